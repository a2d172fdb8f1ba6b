"""Owed fetches: claimed by one, taken over from the dead, fenced against the late."""

import threading
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import select

from app.db import jobs as owed
from app.db import rate_limit as gate
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.keep import keep_all
from app.db.tables import gates, heartbeats
from app.errors import NotKnown
from tests.reports import T0, after, delivery, fetch_row

LEASE = timedelta(seconds=60)


def owing(database: Database, *sync_ids: str) -> None:
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m-{each}", sync_id=each) for each in sync_ids])


def claim(database: Database, seconds: float = 0, limit: int = 10) -> list[Claim]:
    with database.writing() as connection:
        return owed.claim(connection, now=after(seconds=seconds), lease=LEASE, limit=limit)


def test_a_due_fetch_is_claimed_once(database: Database) -> None:
    """The second worker finds nothing while the lease runs."""
    owing(database, "s1")
    claims = claim(database)
    assert [(c.company_id, c.sync_id, c.attempts) for c in claims] == [("c1", "s1", 1)]
    assert claim(database, 59) == []


def test_nothing_is_claimed_before_its_time(database: Database) -> None:
    """Put off means put off."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        owed.put_off(connection, claimed, until=after(seconds=30), error="503", free=False)
    assert claim(database, 29) == []
    assert [c.attempts for c in claim(database, 30)] == [2]


def test_a_dead_workers_fetch_is_taken_over_when_its_lease_ends(database: Database) -> None:
    """No heartbeat, no sweeper: the lease is the due time."""
    owing(database, "s1")
    (dead,) = claim(database)
    (heir,) = claim(database, 61)
    assert (heir.sync, heir.attempts) == (dead.sync, 2)
    assert heir.token != dead.token


def test_a_worker_that_slept_past_its_lease_can_write_nothing(database: Database) -> None:
    """Every later write is fenced by the claim's token."""
    owing(database, "s1")
    (late,) = claim(database)
    (heir,) = claim(database, 61)
    with database.writing() as connection:
        assert not owed.renew(connection, late, after(hours=1))
        assert not owed.put_off(connection, late, until=T0, error=None, free=False)
        assert not owed.give_up(connection, late, "late")
        assert owed.wanted_now(connection, late) is None
        owed.finish(connection, late)
        owed.ask_once_more(connection, late, T0)
        assert owed.renew(connection, heir, after(hours=1))
    row = fetch_row(database)
    assert row is not None
    assert (row["state"], row["token"], row["due"]) == ("owed", heir.token, after(hours=1))


def test_a_renewed_lease_is_not_taken_over(database: Database) -> None:
    """A long list keeps its worker."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        assert owed.renew(connection, claimed, after(seconds=110))
    assert claim(database, 61) == []


def test_the_earliest_due_comes_first_and_the_limit_holds(database: Database) -> None:
    """Nobody starves."""
    for n, name in enumerate(("late", "early")):
        with database.writing() as connection:
            keep_all(connection, [delivery(name, sync_id=name, at=after(seconds=5 - n))])
    assert [c.sync_id for c in claim(database, 10, limit=1)] == ["early"]


def companies_claimed(database: Database, *held: str, limit: int, of_one: int) -> list[str]:
    """Whose fetches are claimed by who has those of other companies in hand."""
    with database.writing() as connection:
        claims = owed.claim(
            connection, now=after(seconds=2), lease=LEASE, limit=limit, held=held, of_one=of_one
        )
    return [each.company_id for each in claims]


def test_of_one_company_no_more_is_claimed_than_was_allowed(database: Database) -> None:
    """What is in hand counts too; the others' are found behind all that is passed over."""
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}") for n in range(9)])
        keep_all(connection, [delivery("m", company_id="c2", at=after(seconds=1))])

    claimed = partial(companies_claimed, database, limit=8, of_one=3)

    assert claimed("c1") == ["c1", "c1"]
    assert claimed("c1", "c1", "c1") == ["c2"]
    assert claimed("c1", "c1", "c1") == []
    assert claimed("c2") == ["c1", "c1", "c1"]


def test_another_company_is_looked_for_among_so_many(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all are due at the same moment: a claim must not walk a whole backlog."""
    monkeypatch.setattr(owed, "LOOK_AT", 5)
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}") for n in range(6)])
        keep_all(connection, [delivery("m", company_id="c2", at=after(seconds=1))])

    claimed = partial(companies_claimed, database, limit=2, of_one=2)

    assert claimed("c1", "c1") == []
    assert claimed() == ["c1", "c1"]
    assert claimed("c1", "c1") == ["c2"]


def test_a_free_put_off_gives_the_attempt_back(database: Database) -> None:
    """A rate limit must not use up what was meant for outages."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        owed.put_off(connection, claimed, until=T0, error="429", free=True)
    assert [c.attempts for c in claim(database, 1)] == [1]


def test_news_during_a_fetch_does_not_start_a_second_one(database: Database) -> None:
    """It raises `wanted`, so that the running one knows that it came too early."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        keep_all(connection, [delivery("m2", at=after(seconds=1))])
    assert claim(database, 2) == []
    with database.writing() as connection:
        assert owed.wanted_now(connection, claimed) == claimed.wanted + 1
        owed.ask_once_more(connection, claimed, after(seconds=3))
    assert [c.attempts for c in claim(database, 3)] == [1]


def test_news_brings_a_waiting_fetch_forward(database: Database) -> None:
    """A new event need not wait for an old backoff."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        owed.put_off(connection, claimed, until=after(hours=1), error="503", free=False)
        keep_all(connection, [delivery("m2", at=after(seconds=5))])
    assert [c.attempts for c in claim(database, 5)] == [1]


def test_a_given_up_fetch_is_redriven(database: Database) -> None:
    """By its sync id, or all of them."""
    owing(database, "s1", "s2", "s3")
    for claimed in claim(database):
        with database.writing() as connection:
            assert owed.give_up(connection, claimed, "404")
    assert claim(database, 9999) == []
    with database.writing() as connection:
        assert owed.redrive(connection, sync_id="s1", now=T0) == 1
        with pytest.raises(NotKnown):
            owed.redrive(connection, sync_id="nobody", now=T0)
        assert owed.redrive(connection, sync_id=None, now=T0) == 2
    assert len(claim(database, 1)) == 3


def test_nothing_is_claimed_while_the_gate_is_closed(database: Database) -> None:
    """All replicas rest until the time is over."""
    owing(database, "s1")
    with database.writing() as connection:
        gate.close(connection, after(seconds=30), "429", T0)
    assert claim(database, 29) == []
    with database.reading() as connection:
        assert not owed.is_due(connection, after(seconds=29))
        assert owed.is_due(connection, after(seconds=30))
    assert len(claim(database, 30)) == 1


def test_a_gate_is_never_opened_earlier_by_a_second_closing(database: Database) -> None:
    """The longest wait asked for holds."""
    with database.writing() as connection:
        gate.close(connection, after(seconds=30), "first", T0)
        gate.close(connection, after(seconds=10), "second", after(seconds=1))
    with database.reading() as connection:
        assert connection.execute(select(gates.c.closed_until)).scalar_one() == after(seconds=30)


def test_several_workers_never_hold_one_fetch_together(database: Database) -> None:
    """Eight threads claim two hundred fetches; each is claimed exactly once."""
    owing(database, *(f"s{n}" for n in range(200)))
    taken: list[int] = []
    lock = threading.Lock()

    def work() -> None:
        while claims := claim(database, limit=7):
            with lock:
                taken.extend(claimed.sync for claimed in claims)
            for claimed in claims:
                with database.writing() as connection:
                    owed.finish(connection, claimed)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 200


def test_a_refresh_owes_a_fetch_of_a_known_sync_only(database: Database) -> None:
    """Unknown ids are told apart; a settled fetch comes back."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        owed.finish(connection, claimed)
        assert store.refresh(connection, "s1", None, after(seconds=9))
        assert not store.refresh(connection, "s2", None, T0)
        assert not store.refresh(connection, "s1", "c2", T0)
    assert len(claim(database, 9)) == 1


def test_a_heartbeat_is_one_row_per_worker(database: Database) -> None:
    """Beating again moves the time, ending well removes the row."""
    with database.writing() as connection:
        store.beat(connection, "one", T0)
        store.beat(connection, "two", T0)
        store.beat(connection, "one", after(seconds=10))
    with database.reading() as connection:
        seen = {row.worker: row.seen_at for row in connection.execute(select(heartbeats))}
        assert store.workers_alive(connection, T0) == 2
        assert store.workers_alive(connection, after(seconds=1)) == 1
    assert seen == {"one": after(seconds=10), "two": T0}
    with database.writing() as connection:
        store.forget_worker(connection, "one")
        assert connection.execute(select(heartbeats.c.worker)).scalars().all() == ["two"]


def test_a_settled_fetch_leaves_the_queues_index(database: Database) -> None:
    """It has no due time, so the index holds the owed ones only, however many are done."""
    owing(database, "s1")
    (claimed,) = claim(database)
    with database.writing() as connection:
        owed.finish(connection, claimed)
    row = fetch_row(database)
    assert row is not None
    assert (row["state"], row["due"], row["token"]) == ("settled", None, None)
