"""Reconciliation: what Codat knows and we do not is found, mended and explained."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db import jobs as owed
from app.db import reconciliation as compare
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.sync_rows import to_sync
from app.db.tables import companies, fetches, notes, syncs
from app.domain.models import CodatStatus, Delivery, Item
from app.domain.sync_state import errors_state
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.scheduler import Duties, Duty
from app.worker.tasks.reconcile import Reconciler, Report
from tests.reports import FAILED, STARTED, T0, after, delivery, fetch_row, sync_row
from tests.worker.test_fetcher import Clock, FakeCodat, fetch

HOUR = timedelta(hours=1)


@dataclass
class Company:
    company_id: str
    name: str | None = "Toft stores"


@dataclass
class Lister:
    """Codat's lists, scripted."""

    told: dict[str, list[CodatStatus]] = field(default_factory=dict)
    errors: dict[str, CodatError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def list_companies(self) -> AsyncIterator[Company]:
        for company_id in self.told:
            yield Company(company_id)

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        self.asked.append(company_id)
        if company_id in self.errors:
            raise self.errors[company_id]
        return self.told[company_id]


def status(sync_id: str, code: int = 5130, **more: object) -> CodatStatus:
    told = CodatStatus("c1", sync_id, code, "PushError", "said", "thrown", False, after(minutes=3))
    return replace(told, **more)  # type: ignore[arg-type]


def reconcile(
    database: Database, codat: Lister, *, clock: Clock | None = None, **how: object
) -> Report:
    ours = Reconciler(database, codat, clock or Clock(), HOUR)
    return asyncio.run(ours.run(**how))  # type: ignore[arg-type]


def test_a_sync_that_no_webhook_announced_is_found_and_fetched(database: Database) -> None:
    """The endpoint was disabled; the failure is known all the same."""
    report = reconcile(database, Lister({"c1": [status("s1")]}))
    assert report.found == {"never_announced": 1}
    row = sync_row(database)
    assert (row["state"], row["status_code"]) == ("failed", 5130)
    owing = fetch_row(database)
    assert owing is not None
    assert errors_state(to_sync(row), owing["state"]) == "waiting"
    fetch(database, FakeCodat())
    assert reconcile(database, Lister({"c1": [status("s1")]})).found == {}
    with database.reading() as connection:
        reasons = connection.execute(select(notes.c.reason).order_by(notes.c.id)).scalars().all()
        assert connection.execute(select(companies.c.name)).scalar_one() == "Toft stores"
    assert "no webhook announced it" in reasons[0]


def test_a_running_sync_that_nobody_announced_is_known_as_running(database: Database) -> None:
    """Its end will be told by webhook, or found by the next pass."""
    reconcile(database, Lister({"c1": [status("s1", 1000)]}))
    assert sync_row(database)["state"] == "started"


@pytest.mark.parametrize(
    "now_told",
    [
        status("s1", 2000),
        status("s1", error_message="another"),
        status("s1", exception_message=None),
        status("s1", data_pushed=True),
        status("s1", sync_utc=after(minutes=4)),
        status("s1", 1000),
    ],
)
def test_every_disagreement_is_asked_about(database: Database, now_told: CodatStatus) -> None:
    """Code, messages, time: a Portal retry may change any of them without a webhook."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    fetch(database, FakeCodat())
    assert reconcile(database, Lister({"c1": [status("s1")]})).found == {}
    assert reconcile(database, Lister({"c1": [now_told]})).found == {"disagrees": 1}
    owing = fetch_row(database)
    assert owing is not None
    assert (owing["state"], owing["due"]) == ("owed", T0)


def test_a_lost_end_is_found(database: Database) -> None:
    """Only the start was heard; Codat says that it failed."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", STARTED)])
    assert reconcile(database, Lister({"c1": [status("s1")]})).found == {"disagrees": 1}


def test_what_is_already_owed_is_left_to_its_fetch(database: Database) -> None:
    """A pass must not bring every backoff forward."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    assert reconcile(database, Lister({"c1": [status("s1")]})).found == {}


def test_a_list_that_is_worded_apart_for_ever_is_asked_about_once_a_day(
    database: Database,
) -> None:
    """Codat's list and its single status need not use the same words."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    apart = Lister({"c1": [status("s1", error_message="in other words")]})
    found = []
    clock = Clock()
    fetch(database, FakeCodat(), clock=clock)
    for hours in (0, 1, 23, 25):
        clock.now = after(hours=hours)
        found.append(dict(reconcile(database, apart, clock=clock).found))
        if found[-1]:
            fetch(database, FakeCodat(), clock=clock)
    assert found == [{"disagrees": 1}, {}, {}, {"disagrees": 1}]


def test_an_outage_longer_than_all_attempts_ends_here(database: Database) -> None:
    """A fetch given up over passing failures is tried again at the next pass."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    fetch(database, FakeCodat(list_error=CodatUnavailable("503", status=503)), attempts=1)
    assert reconcile(database, Lister({"c1": [status("s1")]})).found == {"given_up": 1}


def test_a_final_refusal_is_put_to_codat_again_after_a_day_or_when_its_line_changes(
    database: Database,
) -> None:
    """Each pass would cost two calls for every such sync, for ever."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    fetch(database, FakeCodat(list_error=CodatRefused("404", status=404)))
    same, other = Lister({"c1": [status("s1")]}), Lister({"c1": [status("s1", 2000)]})
    assert reconcile(database, same, dry_run=True).found == {}
    assert reconcile(database, other, dry_run=True).found == {"given_up": 1}
    clock = Clock()
    clock.now = after(hours=25)
    assert reconcile(database, same, clock=clock).found == {"given_up": 1}


def test_a_dry_run_counts_and_changes_nothing(database: Database) -> None:
    """Not even the company."""
    report = reconcile(database, Lister({"c1": [status("s1")]}), dry_run=True)
    assert report.found == {"never_announced": 1}
    with database.reading() as connection:
        for table in (syncs, fetches, companies, notes):
            assert connection.execute(select(table)).all() == []


def test_one_company_or_a_time_narrow_the_pass(database: Database) -> None:
    """Fewer calls, fewer syncs."""
    codat = Lister({"c1": [status("s1"), status("s2", sync_utc=after(days=9))], "c2": []})
    report = reconcile(database, codat, company_id="c1", since=after(days=1), dry_run=True)
    assert (codat.asked, report.syncs, report.found) == (["c1"], 1, {"never_announced": 1})


def test_a_company_that_cannot_be_read_does_not_stop_the_others(database: Database) -> None:
    """It is counted; a company without the product is neither news nor trouble."""
    codat = Lister(
        {"c1": [], "c2": [], "c3": [status("s1")]},
        {"c1": CodatUnavailable("503"), "c2": CodatRefused("404", status=404)},
    )
    report = reconcile(database, codat)
    assert (report.companies, report.skipped, report.found) == (3, 1, {"never_announced": 1})
    assert "1 companies could not be read" in str(report)


def test_the_one_company_asked_about_must_be_readable(database: Database) -> None:
    """A mistyped id is no company without news."""
    codat = Lister({"c1": []}, {"c1": CodatRefused("404: no such company", status=404)})
    with pytest.raises(CodatRefused):
        reconcile(database, codat, company_id="c1")


def test_a_pass_is_bounded_and_the_next_goes_on_where_it_ended(database: Database) -> None:
    """Those compared longest ago come first, and the cost is told."""
    codat = Lister({f"c{n}": [] for n in range(5)})
    clock = Clock()
    ours = Reconciler(database, codat, clock, HOUR, most_companies=2)
    for n in range(3):
        clock.now = after(minutes=n)
        report = asyncio.run(ours.run())
        assert (report.calls, report.left) == (3, 3)
    assert codat.asked == ["c0", "c1", "c2", "c3", "c4", "c0"]
    assert "3 calls to Codat" in str(report)


def test_a_rate_limit_ends_the_pass(database: Database) -> None:
    """Every further call would be refused too, and counted."""
    codat = Lister({"c1": [], "c2": []}, {"c1": CodatRateLimited("429")})
    with pytest.raises(CodatRateLimited):
        reconcile(database, codat)
    assert codat.asked == ["c1"]


def test_a_sync_in_progress_for_too_long_is_asked_about_and_explained(
    database: Database,
) -> None:
    """By the watch, without any list; and not again before as long has passed."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", STARTED), delivery("m2", FAILED, sync_id="s2")])
        assert compare.owe_stuck(connection, before=T0, now=after(hours=1)) == 0
        assert compare.owe_stuck(connection, before=after(minutes=1), now=after(hours=1)) == 1
        assert compare.owe_stuck(connection, before=after(minutes=1), now=after(hours=1)) == 0
        assert "in progress" in connection.execute(select(notes.c.reason)).scalar_one()


def test_a_stuck_sync_that_codat_still_runs_is_explained_by_a_pass(database: Database) -> None:
    """1010 for hours is worth a line in its timeline."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", STARTED, at=T0 - HOUR * 3)])
    assert reconcile(database, Lister({"c1": [status("s1", 1010)]})).found == {"stuck": 1}


def test_inline_items_give_way_to_codats_own_list(database: Database) -> None:
    """What a webhook listed is checked against the API's list."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", items=(Item("t9", "Failed", "x"),))])
    fetch(database, FakeCodat())
    assert (sync_row(database)["items_from"], sync_row(database)["total"]) == ("codat", 2)


def test_a_duty_is_done_by_one_of_many_in_each_period(database: Database) -> None:
    """Replicas share the work without a leader."""

    def take(seconds: float) -> bool:
        with database.writing() as connection:
            return compare.take_duty(
                connection, "reconcile", now=after(seconds=seconds), every=HOUR
            )

    assert [take(0), take(0), take(3599), take(3600), take(3600)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_duty_that_fails_does_not_end_the_others(database: Database) -> None:
    """Neither a known error nor an unforeseen one."""
    done: list[str] = []

    async def fail() -> None:
        done.append("failed")
        raise CodatUnavailable("away") if len(done) < 2 else KeyError("unforeseen")

    async def work() -> None:
        done.append("worked")

    async def run() -> None:
        named = [Duty("one", HOUR, fail), Duty("two", HOUR, fail), Duty("three", HOUR, work)]
        running = asyncio.create_task(Duties(database, named, Clock()).run())
        async with asyncio.timeout(5):
            while len(done) < 3:
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(run())
    assert done == ["failed", "failed", "worked"]


def test_nothing_owed_stays_unclaimed_after_a_pass(database: Database) -> None:
    """What a pass owes is due at once."""
    reconcile(database, Lister({"c1": [status(f"s{n}") for n in range(5)]}))
    with database.writing() as connection:
        assert len(owed.claim(connection, now=T0, lease=HOUR, limit=9)) == 5


def test_a_name_that_was_told_after_the_list_was_asked_for_stays(database: Database) -> None:
    """A pass goes on for minutes with the names it began with."""

    class Renamed(Lister):
        async def list_statuses(self, company_id: str) -> list[CodatStatus]:
            told = delivery("m1", company_name="New name", generated_at=after(seconds=1))
            await asyncio.to_thread(keep, told)
            clock.now = after(seconds=2)
            return []

    def keep(told: Delivery) -> None:
        with database.writing() as connection:
            keep_all(connection, [told])

    def name() -> object:
        with database.reading() as connection:
            return connection.execute(select(companies.c.name)).scalar_one()

    clock = Clock()
    reconcile(database, Renamed({"c1": []}), clock=clock)
    assert name() == "New name"
    reconcile(database, Lister({"c1": []}), clock=clock)
    assert name() == "Toft stores"


def test_a_sync_that_is_erased_while_it_is_compared_does_not_stop_the_pass(
    database: Database,
) -> None:
    """The other companies' turn would not come; the next pass finds it anew."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
    with database.reading() as connection:
        told = [status("s1"), status("s2")]
        found = compare.differences(connection, "c1", told, now=T0, stuck_after=HOUR)
    assert [each.sync_id for each in found] == ["s2"]
    gone = replace(found[0], sync_id="s0", difference="disagrees")
    with database.writing() as connection:
        compare.mend(connection, "c1", [gone, *found], T0)
        reasons = connection.execute(select(notes.c.reason)).scalars().all()
    assert len(reasons) == 1
