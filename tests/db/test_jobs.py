"""The queue: a job is one worker's at a time, and nothing that was enqueued is lost."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import RowMapping, func, select

from app import logging as log
from app.db import jobs, rate_limit, workers
from app.db.engine import Database
from app.db.jobs import Claim, JobStats
from app.db.tables import jobs as table
from app.db.tables import workers as heartbeats
from tests.factories import T0, after

LEASE = timedelta(seconds=60)


def enqueue(database: Database, *keys: int, group: str = "c1", at: datetime = T0) -> None:
    with database.writing() as connection:
        jobs.enqueue(connection, "fetch", [(key, group) for key in keys], now=at)


def claim(
    database: Database,
    seconds: float = 0,
    limit: int = 10,
    *,
    worker: str = "w1",
    kind: jobs.Kind = "fetch",
    in_hand: Mapping[str, int] | None = None,
    per_group: int | None = None,
    groups: list[str] | None = None,
) -> list[Claim]:
    with database.writing() as connection:
        return jobs.claim(
            connection,
            kind,
            now=after(seconds=seconds),
            lease=LEASE,
            limit=limit,
            worker_id=worker,
            in_hand=in_hand,
            per_group=per_group,
            groups=groups,
        )


def row(database: Database, key: int = 1) -> RowMapping:
    with database.reading() as connection:
        found = connection.execute(select(table).where(table.c.key == key))
        return found.mappings().one()


def test_a_due_job_is_claimed_once(database: Database) -> None:
    """The earliest first. Keys of different kinds are unrelated."""
    enqueue(database, 1, 1, at=after(seconds=5))
    enqueue(database, 2, at=after(seconds=4))
    with database.writing() as connection:
        jobs.enqueue(connection, "message", [(1, "webhook:a")], now=T0)
    assert [c.key for c in claim(database, 5, limit=1)] == [2]
    claims = claim(database, 5)
    assert [(c.key, c.group_key, c.attempts, c.generation) for c in claims] == [(1, "c1", 1, 1)]
    assert claim(database, 64) == []
    assert [c.group_key for c in claim(database, kind="message")] == ["webhook:a"]


def test_a_job_knows_what_caused_it(database: Database) -> None:
    """The latest cause of each kind of the work that is not done yet."""
    with database.writing() as connection:
        event = {1: jobs.Origin("m1", None)}
        jobs.enqueue(connection, "fetch", [(1, "c1")], now=T0, origins=event)
        with log.bound(request_id="r1"):
            jobs.enqueue(connection, "fetch", [(1, "c1"), (2, "c1")], now=T0)
    first, second = claim(database)
    assert (first.origin, second.origin) == (("m1", "r1"), (None, "r1"))
    with database.writing() as connection:
        jobs.complete(connection, first)
        event = {1: jobs.Origin("m2", None)}
        jobs.enqueue(connection, "fetch", [(1, "c1")], now=T0, origins=event)
        replay = {1: jobs.Origin("m1", "r2")}
        assert jobs.restart(connection, "fetch", [1], now=T0, origins=replay) == 1
    assert claim(database)[0].origin == ("m1", "r2")


def test_a_rescheduled_job_waits_for_its_time(database: Database) -> None:
    """Its attempt counts, but not where that is refunded (a rate limit) or it is released."""
    enqueue(database, 1)
    (claimed,) = claim(database)
    with database.writing() as connection:
        assert jobs.reschedule(connection, claimed, run_at=after(seconds=30), error="503")
    assert row(database)["last_error"] == "503"
    assert claim(database, 29) == []
    (claimed,) = claim(database, 30)
    assert claimed.attempts == 2
    with database.writing() as connection:
        at = after(seconds=31)
        jobs.reschedule(connection, claimed, run_at=at, error="429", refund_attempt=True)
    (claimed,) = claim(database, 31)
    with database.writing() as connection:
        assert jobs.release(connection, claimed)
    assert [c.attempts for c in claim(database, 31, worker="w2")] == [2]


def test_an_expired_lease_is_up_for_grabs(database: Database) -> None:
    """Also without any look at heartbeats: a worker may hang and still beat."""
    enqueue(database, 1)
    (first,) = claim(database)
    with database.writing() as connection:
        assert jobs.renew(connection, first, after(seconds=110))
    assert claim(database, 109) == []
    (second,) = claim(database, 110)
    assert (second.key, second.attempts) == (first.key, 2)
    assert second.token != first.token
    enqueue(database, 1, at=after(seconds=170))  # which takes an expired lease away
    with database.writing() as connection:
        assert not jobs.complete(connection, second)
    assert [c.attempts for c in claim(database, 170)] == [1]


def test_a_worker_that_lost_its_lease_changes_nothing(database: Database) -> None:
    enqueue(database, 1)
    (late,) = claim(database)
    (current,) = claim(database, 61)
    before = row(database)
    with database.writing() as connection:
        assert not jobs.renew(connection, late, after(hours=1))
        assert not jobs.reschedule(connection, late, run_at=T0, error=None)
        assert not jobs.bury(connection, late, "late")
        assert not jobs.release(connection, late)
        assert not jobs.complete(connection, late)
        jobs.discard(connection, late)
        assert jobs.current_generation(connection, late) is None
    assert row(database) == before
    with database.writing() as connection:
        assert jobs.renew(connection, current, after(hours=1))
    assert row(database)["lease_until"] == after(hours=1)


def test_no_more_than_the_allowed_jobs_of_a_group_are_in_hand(database: Database) -> None:
    """Those of others are found behind the ones that are passed over, however many."""
    enqueue(database, *range(500))
    enqueue(database, 1000, group="c2", at=after(seconds=1))

    def groups(**in_hand: int) -> list[str]:
        claims = claim(database, 2, limit=8, in_hand=in_hand, per_group=3)
        return [claimed.group_key for claimed in claims]

    assert groups(c1=1) == ["c1", "c1"]
    assert groups(c1=3) == ["c2"]
    assert groups(c1=3) == []
    assert groups(c2=1) == ["c1", "c1", "c1"]


def test_only_jobs_of_the_named_groups_are_claimed(database: Database) -> None:
    """None of a full one, and none when no group is named."""
    for n, group in enumerate(("c1", "c2", "c3")):
        enqueue(database, n, group=group)
    assert claim(database, groups=[]) == []
    claims = claim(database, groups=["c1", "c3"], in_hand={"c1": 2}, per_group=2)
    assert [c.group_key for c in claims] == ["c3"]
    with database.reading() as connection:
        assert jobs.is_due(connection, "fetch", T0, groups=["c1"])
        assert not jobs.is_due(connection, "fetch", T0, groups=["c3"])


@pytest.mark.parametrize("ending", ["complete", "reschedule", "bury", "release"])
def test_a_job_enqueued_while_in_hand_ends_up_due(database: Database, ending: str) -> None:
    """Not twice at the same time, and with all attempts left."""
    enqueue(database, 1)
    (claimed,) = claim(database)
    with database.writing() as connection:
        jobs.reschedule(connection, claimed, run_at=T0, error="503")
    (claimed,) = claim(database)
    enqueue(database, 1, at=after(seconds=1))
    assert claim(database, 2) == []
    with database.writing() as connection:
        assert jobs.current_generation(connection, claimed) == claimed.generation + 1
        match ending:
            case "complete":
                assert jobs.complete(connection, claimed)
            case "reschedule":
                assert jobs.reschedule(connection, claimed, run_at=after(hours=9), error="503")
            case "release":
                assert jobs.release(connection, claimed)
            case _:
                assert not jobs.bury(connection, claimed, "404")
    again = claim(database, 3)
    assert [(c.attempts, c.generation) for c in again] == [(1, 2)]


def test_a_job_whose_target_is_gone_is_discarded(database: Database) -> None:
    """Unless it was enqueued meanwhile: SQLite may give the key to something new."""
    enqueue(database, 1, 2)
    first, second = claim(database)
    enqueue(database, 2)
    with database.writing() as connection:
        jobs.discard(connection, first)
        jobs.discard(connection, second)
    assert [claimed.key for claimed in claim(database, 60)] == [2]


def test_enqueueing_brings_a_waiting_or_done_job_forward(database: Database) -> None:
    """A new event need not wait for an old backoff."""
    enqueue(database, 1)
    (claimed,) = claim(database)
    with database.writing() as connection:
        jobs.reschedule(connection, claimed, run_at=after(hours=1), error="503")
    enqueue(database, 1, at=after(seconds=5))
    (claimed,) = claim(database, 5)
    assert claimed.attempts == 1
    with database.writing() as connection:
        assert jobs.complete(connection, claimed)
    assert row(database)["state"] == "done"
    assert claim(database, 9999) == []
    enqueue(database, 1, at=after(seconds=9))
    assert [c.attempts for c in claim(database, 9)] == [1]


def test_dead_jobs_are_revived(database: Database) -> None:
    """By key, or all of them; with all attempts left."""
    enqueue(database, 1, 2, 3)
    for claimed in claim(database):
        with database.writing() as connection:
            assert jobs.bury(connection, claimed, "404", refused_at=T0)
    assert (row(database)["last_error"], row(database)["refused_at"]) == ("404", T0)
    assert claim(database, 9999) == []
    with database.writing() as connection:
        assert jobs.revive_dead(connection, "message", None, now=T0) == 0
        assert jobs.revive_dead(connection, "fetch", [1, 9], now=T0) == 1
        assert jobs.revive_dead(connection, "fetch", None, now=T0) == 2
    assert [c.attempts for c in claim(database, 1)] == [1, 1, 1]


def test_a_restart_leaves_running_and_done_jobs_alone(database: Database) -> None:
    """A redelivered event restarts a job that waits or was abandoned."""
    enqueue(database, 1, 2, 3, 4)
    waiting, dead, done, running = claim(database)
    with database.writing() as connection:
        jobs.reschedule(connection, waiting, run_at=after(hours=1), error="503")
        jobs.bury(connection, dead, "404")
        jobs.complete(connection, done)
        keys = [claimed.key for claimed in (waiting, dead, done, running)]
        assert jobs.restart(connection, "fetch", keys, now=after(seconds=1)) == 2
        assert jobs.current_generation(connection, running) == running.generation
    assert [c.key for c in claim(database, 1)] == [waiting.key, dead.key]


def test_no_fetch_is_claimed_while_calls_are_paused(database: Database) -> None:
    """In every replica. Messages do not go to Codat."""
    enqueue(database, 1)
    with database.writing() as connection:
        jobs.enqueue(connection, "message", [(1, "webhook:a")], now=T0)
        rate_limit.pause(connection, after(seconds=30), "429", T0)
    assert claim(database, 29) == []
    assert len(claim(database, 29, kind="message")) == 1
    with database.reading() as connection:
        assert not jobs.is_due(connection, "fetch", after(seconds=29))
        assert jobs.is_due(connection, "fetch", after(seconds=30))
    assert len(claim(database, 30)) == 1


def test_several_workers_never_hold_a_job_together(database: Database) -> None:
    """Eight threads claim two hundred jobs; each is claimed exactly once."""
    enqueue(database, *range(200))
    taken: list[int] = []
    lock = threading.Lock()

    def work(worker: str) -> None:
        while claims := claim(database, limit=7, worker=worker, per_group=5):
            with lock:
                taken.extend(claimed.key for claimed in claims)
            for claimed in claims:
                with database.writing() as connection:
                    assert jobs.complete(connection, claimed)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, (f"w{n}" for n in range(8))))
    assert len(taken) == len(set(taken)) == 200


def write_in_an_order(database: Database, n: int) -> None:
    keys = list(range(40))[:: -1 if n % 2 else 1]
    with database.writing() as connection:
        if n % 3 == 0:
            jobs.enqueue(connection, "fetch", [(key, "c1") for key in keys], now=T0)
        elif n % 3 == 1:
            jobs.restart(connection, "fetch", keys, now=T0)
        else:
            jobs.revive_dead(connection, "fetch", None, now=T0)


def test_writers_of_the_same_jobs_do_not_deadlock(database: Database) -> None:
    """All of them lock jobs in the same order, whatever the order they are given."""

    def work(n: int) -> None:
        for _ in range(8):
            write_in_an_order(database, n)
            for claimed in claim(database, limit=5, worker=f"w{n}"):
                with database.writing() as connection:
                    jobs.bury(connection, claimed, "x")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))  # raises what a writer raised
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(table)).scalar() == 40


def test_the_leases_of_a_dead_worker_are_freed(database: Database) -> None:
    """Those of the living stay; the dead one is forgotten, and its attempt counts.

    One without any heartbeat, which was removed when it ended, is watched too.
    """
    enqueue(database, 1, 2, 3)
    claim(database, limit=1, worker="gone")
    with database.writing() as connection:
        assert workers.heartbeats(connection) == {"gone": None}
        assert workers.take_over(connection, ["gone"]) == 1
        assert jobs.remove(connection, "fetch", [1, 7]) == 1
        assert jobs.remove(connection, "message", [2]) == 0
    with database.writing() as connection:
        workers.beat(connection, "dead", T0)
        workers.beat(connection, "alive", after(seconds=6))
    (orphan,) = claim(database, limit=1, worker="dead")
    (held,) = claim(database, limit=1, worker="alive")
    with database.writing() as connection:
        assert workers.take_over(connection, []) == 0
        assert workers.take_over(connection, ["dead"]) == 1
        assert workers.take_over(connection, ["dead"]) == 0
        assert workers.heartbeats(connection) == {"alive": after(seconds=6)}
        assert not jobs.complete(connection, orphan)
        assert jobs.complete(connection, held)
    assert [(c.key, c.attempts) for c in claim(database, 10)] == [(orphan.key, 2)]


def test_stats_count_what_is_due_and_what_is_dead(database: Database) -> None:
    """Jobs in hand and those that wait for their time are not due."""
    enqueue(database, 1, 2, 3, 4)
    enqueue(database, 5, at=after(seconds=90))
    first, second, *_ = claim(database, limit=2)
    with database.writing() as connection:
        jobs.bury(connection, first, "404")
        for at, expected in (
            (0, JobStats(2, T0, 1)),
            (61, JobStats(3, T0, 1)),
            (91, JobStats(4, T0, 1)),
        ):
            assert jobs.stats(connection, "fetch", after(seconds=at)) == expected
        jobs.complete(connection, second)
        assert jobs.stats(connection, "message", T0) == JobStats(0, None, 0)


def test_a_heartbeat_is_one_row_per_worker(database: Database) -> None:
    with database.writing() as connection:
        assert workers.last_seen(connection) is None
        workers.beat(connection, "one", T0)
        workers.beat(connection, "two", T0)
        workers.beat(connection, "one", after(seconds=10))
        assert workers.alive(connection, T0) == 2
        assert workers.alive(connection, after(seconds=1)) == 1
        assert workers.last_seen(connection) == after(seconds=10)
        workers.remove(connection, "one")
        assert connection.execute(select(heartbeats.c.worker_id)).scalars().all() == ["two"]
        workers.beat(connection, "three", after(days=2))
        assert connection.execute(select(heartbeats.c.worker_id)).scalars().all() == ["three"]
