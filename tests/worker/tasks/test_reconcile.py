"""Reconciliation: what Codat lists and is not stored is found, corrected and explained."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.db.tables import companies
from app.domain.models import PlatformConnection, SyncStatus
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.tasks.reconcile import Reconciler, ReconcileReport, enqueue_stuck
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
    job_of,
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
    """It is counted. Those without the product are no problem, and reported as what they are."""
    without = {f"w{n}": CodatRefused(str(n), status=n) for n in (403, 404, 422)}
    codat = FakeLists(
        {"c1": [], "c3": [status("s1")], **{key: [] for key in without}},
        {"c1": CodatUnavailable("503", status=503), **without},
    )
    report = reconcile(database, codat)
    assert (report.companies, report.skipped, report.without_product) == (5, 1, 3)
    assert report.differences == {"never_announced": 1}
    assert "3 companies without Sync for Expenses (403, 404, 422)" in str(report)
    assert "1 companies could not be read" in str(report)
    for code in (403, 422):
        one = reconcile(database, codat, company_id=f"w{code}")
        assert (one.without_product, one.skipped) == (1, 0)


@pytest.mark.parametrize(
    "error",
    [
        CodatRefused("401", status=401),
        CodatRefused("402", status=402),
        CodatRateLimited("429", status=429),
    ],
)
def test_what_concerns_all_calls_ends_the_run(database: Database, error: CodatError) -> None:
    """It is trouble once, and not once per company."""
    codat = FakeLists({"c1": [], "c2": [], "c3": []}, {"c2": error})
    with pytest.raises(type(error)):
        reconcile(database, codat)
    assert codat.calls == ["c1", "c2"]


def test_a_run_ends_when_codat_is_down(database: Database) -> None:
    """A single list that fails is not: companies that can be read come in between."""
    ids = [f"c{n:02}" for n in range(30)]
    some = FakeLists({key: [] for key in ids}, dict.fromkeys(ids[::2], CodatUnavailable("503")))
    assert reconcile(database, some).skipped == 15
    delete_all(database)
    codat = FakeLists({key: [] for key in ids}, dict.fromkeys(ids[3:], CodatUnavailable("503")))
    with pytest.raises(CodatUnavailable):
        reconcile(database, codat)
    assert codat.calls == ids[:8]


def periodic(database: Database, codat: FakeLists, clock: Clock) -> ReconcileReport:
    """A run as the worker makes it."""
    day = timedelta(hours=24)
    return asyncio.run(Reconciler(database, codat, clock, HOUR, fully_every=day).run())


def test_what_differs_forever_leaves_the_timeline_alone(database: Database) -> None:
    """Also what Codat's status says again; whatever happened in between shows."""
    line = status("s1", error_message="Codat's list has other words")
    codat = FakeLists({"c1": [line]})
    clock = Clock()
    for hour in range(0, 200, 2):
        clock.now = after(hours=hour)
        reconcile(database, codat, clock=clock)
        if fetch_is_queued(database):
            fetch(database, FakeCodat(), clock=clock)
    entries = [kind for kind, _ in timeline(database)]
    assert entries == ["reconcile", "fetch"]
    deliver(database, "m1", at=after(hours=201))
    clock.now = after(hours=202)
    fetch(database, FakeCodat(), clock=clock)
    assert [kind for kind, _ in timeline(database)] == [*entries, "delivery", "fetch"]


def fetch_is_queued(database: Database) -> bool:
    return job_of(database, "state") == ("pending",)


def test_a_run_compares_what_is_new_and_once_a_day_everything(database: Database) -> None:
    """Two days overlap, because Codat retries a webhook for 28 hours. By Codat's own times."""
    old = [status(f"old{n}", sync_utc=after(days=-9)) for n in range(5)]
    new = [status("s1", sync_utc=T0), status("s2", sync_utc=after(hours=-47))]
    running = status("r", 1000, sync_utc=after(days=-8))
    untimed = status("u", sync_utc=None)
    codat = FakeLists({"c1": [*old, *new, running, untimed]})
    clock = Clock()
    assert periodic(database, codat, clock).syncs == 9
    clock.now = after(hours=23)
    late = status("lost", sync_utc=after(hours=-46))
    codat.syncs["c1"].append(late)
    report = periodic(database, codat, clock)
    assert (report.syncs, report.differences) == (5, {"never_announced": 1})
    codat.syncs["c1"].append(status("very late", sync_utc=after(days=-7)))
    assert periodic(database, codat, clock).syncs == 5
    clock.now = after(hours=24)
    report = periodic(database, codat, clock)
    assert (report.syncs, report.differences) == (11, {"never_announced": 1})


def test_a_time_that_lies_ahead_hides_nothing(database: Database) -> None:
    """Nor does a run that was interrupted, or one with a start of its own."""
    ahead = status("ahead", sync_utc=after(days=4000))
    codat = FakeLists({"c1": [ahead, status("s1", sync_utc=after(hours=-1))]})
    clock = Clock()
    periodic(database, codat, clock)
    codat.syncs["c1"].append(status("s2", sync_utc=after(hours=-30)))
    clock.now = after(hours=1)
    assert periodic(database, codat, clock).differences == {"never_announced": 1}

    class Broken(FakeLists):
        async def list_statuses(
            self, company_id: str, *, within_s: float = 600
        ) -> AsyncGenerator[list[SyncStatus], None]:
            yield [status("s9", sync_utc=after(days=90))]
            raise CodatUnavailable("cut off")

    clock.now = after(days=91)
    assert periodic(database, Broken(codat.syncs), clock).skipped == 1
    codat.syncs["c1"].append(status("s3", sync_utc=after(hours=-40)))
    assert periodic(database, codat, clock).differences == {"never_announced": 1}


def test_a_run_by_hand_compares_everything(database: Database) -> None:
    """With a start of its own it leaves the next periodic run what it has to do."""
    codat = FakeLists({"c1": [status(f"s{n}", sync_utc=after(days=-n)) for n in range(9)]})
    clock = Clock()
    reconcile(database, codat, since=after(days=-1))
    assert periodic(database, codat, clock).syncs == 9
    assert periodic(database, codat, clock).syncs == 3
    assert reconcile(database, codat).syncs == 9


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
        async def list_statuses(
            self, company_id: str, *, within_s: float = 600
        ) -> AsyncGenerator[list[SyncStatus], None]:
            await asyncio.to_thread(
                deliver,
                database,
                "m1",
                company_name="New name",
                generated_at=after(seconds=1),
                at=after(seconds=1),
            )
            clock.now = after(seconds=2)
            yield []

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
