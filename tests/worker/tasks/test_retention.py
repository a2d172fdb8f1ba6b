"""Raw bodies and history are removed in time; syncs, errors and message ids stay."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db import retention
from app.db.change_feed import Change, append
from app.db.engine import Database
from app.db.sync_writer import LogEntry, add_log
from app.db.tables import alerts, webhook_events
from app.worker.tasks import retention as retention_module
from app.worker.tasks.retention import PruneReport, Retention
from tests.db.stored import pk_of
from tests.factories import (
    T0,
    add_event,
    after,
    count_rows,
    project,
    timeline,
)
from tests.worker.fakes import Clock
from tests.worker.test_dispatcher import FakeChannel, deliver_due, make_pool, send

MONTH = timedelta(days=30)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses."""
    monkeypatch.setattr(retention_module, "PAUSE_S", 0)


def deliver_all(database: Database, *message_ids: str, days: float = 0) -> None:
    for message_id in message_ids:
        at = after(days=days)
        add_event(database, message_id, sync_id=f"of-{message_id}", at=at)
    project(database)


def prune(
    database: Database,
    days: float,
    *,
    keep_events: timedelta | None = MONTH,
    keep_changes: timedelta | None = None,
    reports: list[str] | None = None,
) -> PruneReport:
    task = Retention(
        database,
        Clock(after(days=days)),
        keep_events=keep_events,
        keep_changes=keep_changes,
        report=([] if reports is None else reports).append,
    )
    return asyncio.run(task.run())


def with_body(database: Database) -> set[str]:
    with database.reading() as connection:
        found = select(webhook_events.c.message_id).where(webhook_events.c.body.is_not(None))
        return set(connection.execute(found).scalars())


def test_only_old_bodies_of_processed_events_are_removed(database: Database) -> None:
    """To the day; a pending event needs its body, and a second run finds nothing."""
    deliver_all(database, "old")
    deliver_all(database, "young", days=2)
    add_event(database, "pending")
    assert prune(database, 31) == PruneReport(bodies=1)
    assert with_body(database) == {"young", "pending"}
    assert prune(database, 31) == PruneReport()
    assert prune(database, 4000, keep_events=None) == PruneReport()


def test_history_has_a_period_of_its_own(database: Database) -> None:
    """The change feed, ended messages and resolved alerts; not what is still open."""
    change = Change("sync", "c1", "s1", None, T0, "{}")
    with database.writing() as connection:
        append(connection, [change, change._replace(at=after(days=9))])
        for company_id, resolved_at in (("c1", T0), ("c2", None)):
            row = {"cause": "x", "company_id": company_id, "text": "x", "opened_at": T0}
            connection.execute(alerts.insert(), row | {"resolved_at": resolved_at})
    send(database, "webhook:a", "webhook:b")
    deliver_due(make_pool(database, Clock(), webhook_a=FakeChannel()))
    report = prune(database, 8, keep_changes=timedelta(days=7))
    assert report == PruneReport(0, changes=1, messages=1, alerts=1)
    assert str(report) == (
        "Removed 0 raw webhook bodies, 1 changes, 1 ended messages, 1 resolved alerts and "
        "0 timeline entries"
    )
    tables = ("changes", "outgoing_messages", "alerts")
    assert [count_rows(database, name) for name in tables] == [1, 1, 1]


def test_a_timeline_keeps_its_newest_entries(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a sync is reconciled or refreshed, and with unlimited periods too."""
    monkeypatch.setattr(retention, "TIMELINE_ENTRIES", 3)
    monkeypatch.setattr(retention, "SYNCS_PER_STEP", 1)
    deliver_all(database, "m1", "m2", "m3")
    pks = [pk_of(database, f"of-m{n}") for n in (1, 2, 3)]
    with database.writing() as connection:
        for sync_pk, count in zip(pks, (5, 3, 4), strict=True):
            for n in range(count):
                add_log(connection, sync_pk, LogEntry(after(seconds=n), "refresh", f"No. {n}"))
    report = prune(database, 31, keep_events=None)
    assert report == PruneReport(timeline_entries=3)
    assert [reason for _, reason in timeline(database, "of-m1")][1:] == ["No. 2", "No. 3", "No. 4"]
    assert [len(timeline(database, f"of-m{n}")) for n in (1, 2, 3)] == [4, 4, 4]


def test_it_works_in_small_steps_and_reports_progress(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery never waits for more than one of them."""
    monkeypatch.setattr(retention_module, "ROWS_PER_STEP", 2)
    monkeypatch.setattr(retention_module, "REPORT_EVERY", 4)
    deliver_all(database, *(f"m{n}" for n in range(9)))
    reports: list[str] = []
    assert prune(database, 31, reports=reports).bodies == 9
    assert reports == ["4 of 9 bodies removed", "8 of 9 bodies removed"]


def test_an_interrupted_run_is_continued_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed stays removed."""
    monkeypatch.setattr(retention_module, "ROWS_PER_STEP", 1)
    deliver_all(database, "m1", "m2", "m3")

    async def interrupted() -> None:
        task = Retention(database, Clock(after(days=31)), keep_events=MONTH, keep_changes=None)
        running = asyncio.create_task(task.run())
        while len(await asyncio.to_thread(with_body, database)) == 3:
            await asyncio.sleep(0)
        running.cancel()

    asyncio.run(interrupted())
    left = len(with_body(database))
    assert left < 3
    assert prune(database, 31).bodies == left
