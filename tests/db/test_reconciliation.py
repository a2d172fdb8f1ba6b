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
    return [each.kind for each in differences(database, *statuses, now=now)]


def correct(database: Database, found: Sequence[Difference], *, now: datetime = T0) -> None:
    with database.writing() as connection:
        reconciliation.correct(connection, "c1", found, now=now)


def claim(database: Database, at: datetime = T0) -> Claim:
    """Claim the fetch of s1."""
    with database.writing() as connection:
        claims = jobs.claim(connection, "fetch", now=at, lease=HOUR, limit=9, worker_id="w")
        mine = [each for each in claims if sync_writer.sync_id_of(connection, each.key) == "s1"]
        for each in claims:
            if each not in mine:
                jobs.release(connection, each)
    (claimed,) = mine
    return claimed


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


def test_a_sync_that_no_webhook_reported_is_stored_and_fetched(database: Database) -> None:
    """The endpoint was disabled; the failure is known all the same."""
    found = differences(database, status())
    assert [each.kind for each in found] == ["never_announced"]
    correct(database, found)
    row = sync_row(database)
    assert (row["state"], row["status_code"], row["first_seen_at"]) == ("failed", 5130, T0)
    job = fetch_job(database)
    assert job
    assert (job["state"], job["run_at"]) == ("pending", T0)
    ((kind, reason),) = timeline(database)
    assert kind == "reconcile"
    assert "no webhook reported it" in reason
    assert count_rows(database, "changes") == 1
    fetch(database)
    assert kinds(database, status()) == []


def test_a_running_sync_that_nobody_reported_is_running(database: Database) -> None:
    """A webhook will report its end, or the next pass finds it."""
    correct(database, differences(database, status(code=1000)))
    assert sync_row(database)["state"] == "started"


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
    assert [each.kind for each in found] == ["disagrees"]
    correct(database, found)
    job = fetch_job(database)
    assert job
    assert (job["state"], job["attempts"], job["run_at"]) == ("pending", 0, T0)


def test_a_lost_end_is_found(database: Database) -> None:
    """Only the start was reported; Codat lists it as failed."""
    deliver(database, "m1", event_type=STARTED)
    assert kinds(database, status()) == ["disagrees"]


def test_what_waits_for_its_fetch_is_left_alone(database: Database) -> None:
    """A pass must not bring every backoff forward."""
    deliver(database, "m1")
    assert kinds(database, status()) == []


def test_an_incomplete_list_is_read_again(database: Database) -> None:
    deliver(database, "m1")
    fetch(database, complete=False)
    assert kinds(database, status()) == ["incomplete"]


def test_a_code_of_no_known_class_is_fetched_once(database: Database) -> None:
    """Its list is never requested, so it stays incomplete; only what changes is fetched."""
    deliver(database, "m1")
    new = status(code=3000)
    fetch(database, new)
    assert kinds(database, new) == []
    assert kinds(database, replace(new, data_pushed=True)) == ["disagrees"]


def test_texts_that_differ_forever_are_fetched_once_a_day(database: Database) -> None:
    """Codat's list and its single status need not use the same words."""
    deliver(database, "m1")
    fetch(database)
    found = []
    for hours in (0, 1, 23, 25):
        now = after(hours=hours)
        differs = differences(database, status(error_message="in other words"), now=now)
        found.append([each.kind for each in differs])
        if differs:
            correct(database, differs, now=now)
            fetch(database, at=now)
    assert found == [["disagrees"], [], [], ["disagrees"]]


def give_up(database: Database, refused_at: datetime | None, *, at: datetime = T0) -> None:
    claimed = claim(database, at)
    with database.writing() as connection:
        assert sync_writer.give_up(connection, claimed, "x", now=T0, refused_at=refused_at)


def test_an_outage_longer_than_all_attempts_ends_here(database: Database) -> None:
    """A fetch given up over passing failures is tried again at the next pass."""
    deliver(database, "m1")
    give_up(database, None)
    assert kinds(database, status()) == ["given_up"]


def test_a_final_refusal_is_asked_again_after_a_day_or_when_the_line_changes(
    database: Database,
) -> None:
    """Each pass would cost two calls for every such sync."""
    deliver(database, "m1")
    fetch(database)
    deliver(database, "m2", at=after(minutes=1))
    give_up(database, T0, at=after(minutes=1))
    assert kinds(database, status()) == []
    assert kinds(database, status(code=2000)) == ["given_up"]
    assert kinds(database, status(), now=after(hours=25)) == ["given_up"]


def test_lines_without_an_id_are_ignored_and_others_companies_are_not_mixed_up(
    database: Database,
) -> None:
    deliver(database, "m1", company_id="c2")
    found = differences(database, status(), replace(status(), sync_id=None))
    assert [(each.sync_id, each.kind) for each in found] == [("s1", "never_announced")]


def test_nothing_is_written_by_comparing(database: Database) -> None:
    differences(database, status())
    for table in ("syncs", "jobs", "companies", "sync_log"):
        assert count_rows(database, table) == 0


def test_many_differences_are_found_at_once(database: Database) -> None:
    found = differences(database, *(status(f"s{n}") for n in range(1100)))
    assert len(found) == 1100
    correct(database, found[:500])
    with database.writing() as connection:
        claims = jobs.claim(connection, "fetch", now=T0, lease=HOUR, limit=999, worker_id="w")
    assert len(claims) == 500


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
    """And not again before as long has passed."""
    deliver(database, "m1", event_type=STARTED)
    deliver(database, "m2", sync_id="s2")
    assert enqueue_stuck(database, before=T0) == 0
    assert enqueue_stuck(database, before=after(minutes=1)) == 1
    assert enqueue_stuck(database, before=after(minutes=1)) == 0
    assert [kind for kind, _ in timeline(database)] == ["delivery", "stuck"]
    fetch(database, status(code=1000), at=after(hours=1))
    assert enqueue_stuck(database, before=after(minutes=1)) == 0
    assert enqueue_stuck(database, before=after(hours=2)) == 1


def test_stuck_syncs_are_taken_in_batches_the_oldest_first(database: Database) -> None:
    for n in range(3):
        deliver(database, f"m{n}", event_type=STARTED, sync_id=f"s{n}", at=after(seconds=-n))
    assert enqueue_stuck(database, before=after(minutes=1), limit=2) == 2
    assert fetch_job(database, "s0") is None
    assert enqueue_stuck(database, before=after(minutes=1), limit=2) == 1
