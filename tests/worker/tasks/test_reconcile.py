"""Reconciliation: what Codat lists and is not stored is found, corrected and explained."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import companies
from app.domain.models import PlatformConnection, SyncStatus
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.tasks.reconcile import Reconciler, enqueue_stuck
from tests.factories import (
    FAILED,
    STARTED,
    T0,
    add_event,
    after,
    count_rows,
    delete_all,
    deliver,
    project,
    sync_row,
    timeline,
)
from tests.worker.fakes import (
    Clock,
    FakeCodat,
    FakeLists,
    claim_jobs,
    fetch,
    reconcile,
    status,
    visible,
)

HOUR = timedelta(hours=1)
ONE = {"c1": [status("s1")]}


def company_name(database: Database) -> str:
    with database.reading() as connection:
        return str(connection.execute(select(companies.c.name)).scalar_one())


def test_a_sync_that_no_webhook_reported_is_found_and_fetched(database: Database) -> None:
    """The endpoint was disabled; the failure is known all the same."""
    assert reconcile(database, FakeLists(ONE)).differences == {"never_announced": 1}
    row = sync_row(database)
    assert (row["state"], row["status_code"]) == ("failed", 5130)
    assert visible(database)[2] == "waiting"
    fetch(database, FakeCodat())
    assert reconcile(database, FakeLists(ONE)).differences == {}
    assert company_name(database) == "Toft stores"
    kind, reason = timeline(database)[0]
    assert (kind, "no webhook reported it" in reason) == ("reconcile", True)


def test_names_and_connections_of_the_list_are_stored(database: Database) -> None:
    """A dry run stores nothing."""
    xero = PlatformConnection("x1", "Xero", "Accounting", "Linked")
    codat = FakeLists({"c1": []}, connections=(xero,))
    reconcile(database, codat, dry_run=True)
    assert count_rows(database, "companies") == 0
    reconcile(database, codat)
    with database.reading() as connection:
        row = connection.execute(select(companies)).mappings().one()
    assert (row["platform"], row["connection_state"], row["reconciled_at"]) == (
        "Xero",
        "Linked",
        T0,
    )


def test_one_company_or_a_time_narrow_the_run(database: Database) -> None:
    """Fewer calls, fewer syncs; but the one company must be readable."""
    codat = FakeLists({"c1": [status("s1"), status("s2", sync_utc=after(days=9))], "c2": []})
    report = reconcile(database, codat, company_id="c1", since=after(days=1), dry_run=True)
    assert (codat.calls, report.syncs, report.differences) == (["c1"], 1, {"never_announced": 1})
    unknown = FakeLists({}, {"c9": CodatRefused("no such company", status=404)})
    with pytest.raises(CodatRefused):
        reconcile(database, unknown, company_id="c9")


def test_a_company_that_cannot_be_read_does_not_stop_the_others(database: Database) -> None:
    """It is counted; one without the product is no problem. A rate limit ends the run."""
    codat = FakeLists(
        {"c1": [], "c2": [], "c3": [status("s1")]},
        {"c1": CodatUnavailable("503"), "c2": CodatRefused("404", status=404)},
    )
    report = reconcile(database, codat)
    assert (report.companies, report.skipped, report.differences) == (3, 1, {"never_announced": 1})
    assert "1 companies could not be read" in str(report)
    limited = FakeLists({"c1": [], "c2": []}, {"c2": CodatRateLimited("429")})
    delete_all(database)
    with pytest.raises(CodatRateLimited):
        reconcile(database, limited)


def test_a_bounded_run_continues_with_those_compared_longest_ago(database: Database) -> None:
    """And reports what it cost."""
    codat = FakeLists({f"c{n}": [] for n in range(5)})
    clock = Clock()
    reconciler = Reconciler(database, codat, clock, stuck_after=HOUR, max_companies=2)
    for n in range(3):
        clock.now = after(minutes=n)
        report = asyncio.run(reconciler.run())
        assert (report.calls, report.left) == (3, 3)
    assert codat.calls == ["c0", "c1", "c2", "c3", "c4", "c0"]
    assert "3 calls to Codat" in str(report)


@pytest.mark.parametrize("error", [CodatRefused("404", status=404), CodatUnavailable("503")])
def test_companies_that_cannot_be_read_do_not_come_first_forever(
    database: Database, error: CodatError
) -> None:
    """Those of a company without this product never can; a dry run or a pause marks nothing."""
    codat = FakeLists({"c0": [], "c1": [], "c2": []}, {"c0": error, "c2": CodatRateLimited("429")})
    reconciler = Reconciler(database, codat, Clock(), stuck_after=HOUR, max_companies=1)
    asyncio.run(reconciler.run(dry_run=True))
    for _ in range(2):
        asyncio.run(reconciler.run())
    for _ in range(2):
        with pytest.raises(CodatRateLimited):
            asyncio.run(reconciler.run())
    assert codat.calls == ["c0", "c0", "c1", "c2", "c2"]


def test_a_name_that_was_reported_during_the_run_stays(database: Database) -> None:
    """A run takes minutes with the names that it began with."""
    clock = Clock()

    class Renaming(FakeLists):
        async def list_statuses(self, company_id: str) -> list[SyncStatus]:
            await asyncio.to_thread(
                deliver,
                database,
                "m1",
                company_name="New name",
                generated_at=after(seconds=1),
                at=after(seconds=1),
            )
            clock.now = after(seconds=2)
            return []

    reconcile(database, Renaming({"c1": []}), clock=clock)
    assert company_name(database) == "New name"
    reconcile(database, FakeLists({"c1": []}), clock=clock)
    assert company_name(database) == "Toft stores"


def test_a_stuck_sync_is_fetched_and_explained(database: Database) -> None:
    """Once per period; and a run of reconciliation finds it too."""
    add_event(database, "m1", event_type=STARTED)
    add_event(database, "m2", sync_id="s2", event_type=FAILED)
    project(database)
    clock = Clock()
    results = []
    for minutes in (60, 61, 62):
        clock.now = after(minutes=minutes)
        results.append(asyncio.run(enqueue_stuck(database, clock, HOUR)))
    assert results == ["0 fetches enqueued", "1 fetches enqueued", "0 fetches enqueued"]
    assert "n progress" in timeline(database)[-1][1]
    assert len(claim_jobs(database, now=clock.now, limit=9)) == 2
