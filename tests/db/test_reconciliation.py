"""Reconciliation: what Codat's list and the stored syncs differ in is found, and fetched."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from app.db import jobs, reconciliation, sync_writer
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.reconciliation import Difference
from app.db.sync_writer import CodatAnswer
from app.domain.models import SyncStatus, Transaction
from tests.factories import STARTED, T0, after, count_rows, deliver, fetch_job, sync_row, timeline

HOUR = timedelta(hours=1)


def status(sync_id: str = "s1", code: int = 5130, **changed: object) -> SyncStatus:
    line = SyncStatus("c1", sync_id, code, "PushError", "text", "thrown", False, after(minutes=3))
    return replace(line, **changed)  # type: ignore[arg-type]


def differences(database: Database, *statuses: SyncStatus, now: datetime = T0) -> list[Difference]:
    with database.reading() as connection:
        return reconciliation.differences(connection, "c1", statuses, now=now, stuck_after=HOUR)


def kinds(database: Database, *statuses: SyncStatus, now: datetime = T0) -> list[str]:
    """The kinds of the differences for which a fetch is due."""
    return [found.kind for found in differences(database, *statuses, now=now) if found.is_due]


def correct(database: Database, found: Sequence[Difference], *, now: datetime = T0) -> None:
    with database.writing() as connection:
        reconciliation.correct(connection, "c1", found, now=now)


def claim(database: Database, at: datetime = T0) -> Claim:
    """Claim the fetch of s1."""
    with database.writing() as connection:
        claims = jobs.claim(connection, "fetch", now=at, lease=HOUR, limit=9, worker_id="w")
        for claimed in claims:
            if sync_writer.sync_id_of(connection, claimed.key) == "s1":
                mine = claimed
            else:
                jobs.release(connection, claimed)
    return mine


def fetch(
    database: Database,
    answer: SyncStatus | None = None,
    *,
    at: datetime = T0,
    complete: bool = True,
) -> None:
    """Record an answer of Codat, as the fetcher does: a running sync has no list yet."""
    claimed = claim(database, at)
    line = answer or status()
    rows = None if line.status_code in (1000, 3000) else (Transaction("t1", "PushError"),)
    recorded = CodatAnswer(line, at, rows, expected=1 if complete else 2)

    def settle(_: object) -> tuple[()]:
        jobs.complete(connection, claimed)
        return ()

    with database.writing() as connection:
        assert sync_writer.record_answer(connection, claimed, recorded, now=at, settle=settle)


def test_what_is_not_known_for_sure_is_fetched(database: Database) -> None:
    """A lost end, an incomplete list; not what waits for its fetch.

    A pass must not bring every backoff forward.
    """
    deliver(database, "m1", event_type=STARTED)
    assert kinds(database, status()) == ["disagrees"]
    deliver(database, "m2")
    assert differences(database, status()) == []
    fetch(database, complete=False)
    assert kinds(database, status()) == ["incomplete"]


@pytest.mark.parametrize("line", [status(), status(code=2000), status(data_pushed=True)])
def test_a_fetch_that_used_up_its_attempts_is_left_alone(
    database: Database, line: SyncStatus
) -> None:
    """Whatever Codat lists and however long; a new event or a refresh starts it again."""
    deliver(database, "m1")
    give_up(database, None)
    for days in (0, 1, 30, 400):
        (found,) = differences(database, line, now=after(days=days))
        assert (found.kind, found.is_due) == ("given_up", False)
    deliver(database, "m2", at=after(minutes=1))
    assert differences(database, line) == []


@pytest.mark.parametrize(
    "line",
    [
        status(code=2000),
        status(error_message="another"),
        status(exception_message=None),
        status(data_pushed=True),
        status(sync_utc=after(minutes=4)),
        status(code=1000),
    ],
)
def test_every_disagreement_is_fetched(database: Database, line: SyncStatus) -> None:
    """Code, texts, time: a retry in the Portal may change any of them without a webhook."""
    deliver(database, "m1")
    fetch(database)
    assert kinds(database, status()) == []
    found = differences(database, line)
    assert [difference.kind for difference in found] == ["disagrees"]
    correct(database, found)
    job = fetch_job(database)
    assert job
    assert (job["state"], job["attempts"], job["run_at"]) == ("pending", 0, T0)


def test_a_code_of_no_known_class_is_fetched_once(database: Database) -> None:
    """Its list is never requested, so it stays incomplete; only what changes is fetched."""
    deliver(database, "m1")
    new = status(code=3000)
    fetch(database, new)
    assert kinds(database, new) == []
    assert kinds(database, replace(new, data_pushed=True)) == ["disagrees"]


@pytest.mark.parametrize(
    "line",
    [status(error_message="in other words"), status(data_pushed=True), status(code=2000)],
)
def test_what_differs_forever_is_fetched_after_growing_pauses_and_logged_once(
    database: Database, line: SyncStatus
) -> None:
    """Codat's list and its single status may differ for good. A new line is new."""
    deliver(database, "m1")
    fetch(database)
    fetched = []
    for hour in range(24 * 40):
        now = after(hours=hour)
        found = differences(database, line, now=now)
        assert [difference.kind for difference in found] == ["disagrees"]
        if found[0].is_due:
            fetched.append(hour)
            correct(database, found, now=now)
            fetch(database, at=now)
    assert fetched == [0, 1, 3, 7, 15, 31, 63, 127, 255, 423, 591, 759, 927]
    assert [kind for kind, _ in timeline(database)].count("reconcile") == 1
    another = replace(line, error_message="in new words")
    assert kinds(database, another, now=after(hours=928)) == ["disagrees"]


def test_members_that_the_list_leaves_out_are_no_difference(database: Database) -> None:
    """They are unknown; a line without a code still names a sync that no webhook reported."""
    deliver(database, "m1")
    fetch(database)
    for line in (status(data_pushed=None), status(sync_utc=None), status(code=None)):  # type: ignore[arg-type]
        assert differences(database, line) == []
    (found,) = differences(database, status("s2", code=None))  # type: ignore[arg-type]
    correct(database, [found])
    row = sync_row(database, "s2")
    assert (row["state"], row["verified_at"], row["status_code"]) == ("started", None, None)


def give_up(database: Database, refused_at: datetime | None, *, at: datetime = T0) -> None:
    claimed = claim(database, at)
    with database.writing() as connection:
        assert sync_writer.give_up(connection, claimed, "x", now=at, refused_at=refused_at)


def test_a_final_refusal_is_fetched_again_after_days_or_when_the_line_changes(
    database: Database,
) -> None:
    """Each pass would cost two calls for every such sync."""
    deliver(database, "m1")
    fetch(database)
    deliver(database, "m2", at=after(minutes=1))
    give_up(database, T0, at=after(minutes=1))
    assert kinds(database, status()) == []
    assert kinds(database, status(code=2000)) == ["given_up"]
    fetched = []
    for day in range(30):
        now = after(days=day, hours=1)
        found = differences(database, status(), now=now)
        if found[0].is_due:
            fetched.append(day)
            correct(database, found, now=now)
            give_up(database, now, at=now)
    assert fetched == [1, 2, 4, 8, 15, 22, 29]
    assert [kind for kind, _ in timeline(database)] == [
        "delivery",
        "delivery",
        "fetch",
        "reconcile",
        "fetch",
    ]


def test_many_differences_are_found_at_once(database: Database) -> None:
    """A line without an id is ignored, and syncs of another company are not mixed up."""
    deliver(database, "m1", company_id="c2")
    lines = (status(f"s{n}") for n in range(1100))
    found = differences(database, status(sync_id=None), *lines)  # type: ignore[arg-type]
    assert len(found) == 1100
    correct(database, found[:500])
    assert (count_rows(database, "syncs"), count_rows(database, "jobs")) == (501, 501)


def test_a_sync_erased_while_it_was_compared_is_not_restored(database: Database) -> None:
    """One that only Codat lists is stored, also when a webhook reported it meanwhile."""
    (found,) = differences(database, status("s2"))
    gone = replace(found, sync_id="s0", kind="disagrees")
    deliver(database, "m1", sync_id="s2")
    correct(database, [gone, found])
    assert count_rows(database, "syncs") == 1
    assert [kind for kind, _ in timeline(database, "s2")] == ["delivery", "reconcile"]


def test_a_running_sync_that_codat_lists_for_long_is_stuck(database: Database) -> None:
    """1010 for hours is worth an entry in its timeline."""
    deliver(database, "m1", event_type=STARTED, at=T0 - HOUR * 3)
    (found,) = differences(database, status(code=1010))
    assert (found.kind, found.reason) == (
        "stuck",
        "in progress since 2026-01-01 06:00, Codat lists 1010",
    )
    assert kinds(database, status(code=1010), now=T0 - HOUR * 2) == []


def enqueue_stuck(database: Database, *, before: datetime, limit: int = 200) -> int:
    with database.writing() as connection:
        return reconciliation.enqueue_stuck(
            connection, before=before, now=after(hours=1), limit=limit
        )


def test_a_sync_in_progress_for_long_is_fetched_once(database: Database) -> None:
    """And not again before as long has passed; its timeline says so once, until it changes."""
    deliver(database, "m1", event_type=STARTED)
    deliver(database, "m2", sync_id="s2")
    assert enqueue_stuck(database, before=T0) == 0
    assert enqueue_stuck(database, before=after(minutes=1)) == 1
    assert enqueue_stuck(database, before=after(minutes=1)) == 0
    assert [kind for kind, _ in timeline(database)] == ["delivery", "stuck"]
    fetch(database, status(code=1000), at=after(hours=1))
    assert enqueue_stuck(database, before=after(minutes=1)) == 0
    assert enqueue_stuck(database, before=after(hours=2)) == 1
    assert [kind for kind, _ in timeline(database)].count("stuck") == 1


def test_a_redrive_of_what_was_refused_shows_in_the_timeline(database: Database) -> None:
    """A repeated fetch of reconciliation does not, unless the answer is another one."""
    deliver(database, "m1")
    give_up(database, T0)
    for day in (2, 9):
        now = after(days=day)
        correct(database, differences(database, status(), now=now), now=now)
        give_up(database, now, at=now)
    entries = ["delivery", "fetch", "reconcile", "fetch"]
    assert [kind for kind, _ in timeline(database)] == entries
    with database.writing() as connection:
        jobs.revive_dead(connection, "fetch", None, now=after(days=10))
    give_up(database, after(days=10), at=after(days=10))
    assert [kind for kind, _ in timeline(database)] == [*entries, "fetch"]
