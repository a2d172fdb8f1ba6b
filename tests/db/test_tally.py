"""What is counted ahead is always what the rows say, whoever writes, in whatever order."""

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from app.db import (
    counted,
    journal,
    tally,
)
from app.db import (
    jobs as owed,
)
from app.db import (
    reconciliation as compare,
)
from app.db import (
    sync_writer as store,
)
from app.db.bulk import write
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.queries import companies as queries_companies
from app.db.recount import recount
from app.db.sync_writer import Answer
from app.db.tables import companies, metadata, open_failures, syncs, tally_changes, transactions
from app.db.tables_counted import NO_CODE, OPEN_FAILURES
from app.domain.models import CodatStatus, Delivery, Item
from tests.reports import COMPLETED, FAILED, STARTED, T0, after, delivery

LEASE = timedelta(minutes=1)
STATUSES = ("Completed", "PushError", "Pending", " completed ", "Odd", None)


@dataclass(frozen=True)
class Tell:
    """Codat tells of a sync."""

    delivery: Delivery


@dataclass(frozen=True)
class Ask:
    """Everything that is owed is fetched, with this answer."""

    code: int
    items: tuple[Item, ...] | None
    hour: int


@dataclass(frozen=True)
class Find:
    """Reconciliation finds a sync that nobody told."""

    sync_id: str
    code: int


@dataclass(frozen=True)
class Fold:
    """What the journal holds is counted, and the changes so far are folded."""


def do(database: Database, step: Tell | Ask | Find | Fold) -> None:
    if isinstance(step, Ask):
        ask(database, step)
        return
    with database.writing() as connection:
        if isinstance(step, Tell):
            keep_all(connection, [step.delivery])
        elif isinstance(step, Find):
            status = CodatStatus("c1", step.sync_id, step.code, sync_utc=after(hours=2))
            found = compare.differences(
                connection, "c1", [status], now=T0, stuck_after=timedelta(0)
            )
            compare.mend(connection, "c1", found, T0)
        else:
            journal.work_off_some(connection)
            counted.fold(connection)


def ask(database: Database, step: Ask) -> None:
    now = after(days=2)
    with database.writing() as connection:
        claims = owed.claim(connection, now=now, lease=LEASE, limit=50)
    for claimed in claims:
        status = CodatStatus(
            claimed.company_id, claimed.sync_id, step.code, sync_utc=after(hours=step.hour)
        )
        with database.writing() as connection:
            store.record(connection, claimed, Answer(status, now, step.items), now=now)
            owed.finish(connection, claimed)


def read(database: Database) -> tuple[list[Any], list[Any]]:
    with database.reading() as connection:
        kept = connection.execute(select(syncs).order_by(syncs.c.occurred_at, syncs.c.id))
        rows = list(kept.mappings())
        items = list(connection.execute(select(transactions)).mappings())
    return rows, items


def rows_say(database: Database) -> tuple[Any, ...]:
    """The plain count over all rows, in Python."""
    rows, items = read(database)
    by_company = Counter((row["company_id"], row["outcome"]) for row in rows)
    by_day: Counter[Any] = Counter()
    for row in rows:
        code = NO_CODE if row["status_code"] is None else row["status_code"]
        by_day[row["occurred_at"].date().isoformat(), row["outcome"], code] += 1
    still, nameless = open_by_rows(rows, items)
    open_by_company = Counter(company for company, _ in still) + nameless
    return +by_company, +by_day, still, +open_by_company


def open_by_rows(rows: list[Any], items: list[Any]) -> tuple[set[Any], Counter[Any]]:
    still: set[Any] = set()
    nameless: Counter[Any] = Counter()
    for row in rows:
        mine = [item for item in items if item["sync"] == row["id"]]
        nameless[row["company_id"]] += sum(
            item["failed"] for item in mine if item["transaction_id"] is None
        )
        for own_id in {item["transaction_id"] for item in mine} - {None}:
            told = [item for item in mine if item["transaction_id"] == own_id]
            if any(item["failed"] for item in told):
                still.add((row["company_id"], own_id))
            elif all((item["status"] or "").strip().lower() == "completed" for item in told):
                still.discard((row["company_id"], own_id))
    return still, nameless


def counters_say(database: Database) -> tuple[Any, ...]:
    rows, _ = read(database)
    ids = sorted({row["company_id"] for row in rows})
    with journal.caught_up(database) as connection:
        totals = counted.of_companies(connection, ids)
        days = counted.of_days(connection, None, None)
        stored = connection.execute(select(open_failures)).all()
    by_company = Counter(
        {(own_id, what): n for own_id, told in totals.items() for what, n in told.items()}
    )
    open_by_company = Counter(
        {own_id: n for (own_id, what), n in by_company.items() if what == OPEN_FAILURES}
    )
    outcomes = {key: n for key, n in by_company.items() if key[1] != OPEN_FAILURES}
    by_day = Counter({(day, what, code): n for day, what, code, n in days})
    return Counter(outcomes) + Counter(), +by_day, {tuple(row) for row in stored}, +open_by_company


def empty(database: Database) -> None:
    with database.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


sync_ids = st.sampled_from(["s1", "s2", "s3"])
lists = st.lists(
    st.tuples(st.sampled_from(["t1", "t2", None]), st.sampled_from(STATUSES)).map(
        lambda told: Item(*told)
    ),
    max_size=4,
).map(tuple)
steps = st.one_of(
    st.builds(
        delivery,
        st.integers(0, 99).map("m{}".format),
        st.sampled_from([STARTED, FAILED, COMPLETED]),
        sync_id=sync_ids,
        company_id=st.sampled_from(["c1", "c1", "c2"]),
        generated_at=st.none() | st.integers(-30, 30).map(lambda n: after(hours=n)),
        items=st.none() | lists,
    ).map(Tell),
    st.builds(
        Ask, st.sampled_from([1000, 2000, 2040, 5130]), st.none() | lists, st.integers(-30, 30)
    ),
    st.builds(Find, sync_ids, st.sampled_from([1000, 2000, 5130])),
    st.just(Fold()),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(steps, max_size=12))
def test_the_counters_are_what_the_rows_say_after_any_steps(
    database: Database, told: list[Tell | Ask | Find | Fold]
) -> None:
    """Webhooks with and without lists, answers, finds and folds, in any order."""
    empty(database)
    for step in told:
        do(database, step)
    assert recount(database) == 0
    assert counters_say(database) == rows_say(database)
    do(database, Fold())
    with database.reading() as connection:
        left = connection.execute(select(func.count()).select_from(tally_changes)).scalar_one()
    assert left == 0
    assert counters_say(database) == rows_say(database)
    assert recount(database) == 0


def test_concurrent_writers_leave_exact_counters(database: Database) -> None:
    """Webhooks, answers and folds of one company at once, as several replicas would."""
    failures: list[Exception] = []
    kinds = [STARTED, FAILED, COMPLETED]

    def write(thread: int) -> None:
        try:
            for n in range(12):
                hour = (n * 7 + thread * 3) % 20
                status = "Completed" if (n + thread) % 2 else "Failed"
                news = delivery(
                    f"m{thread}-{n}",
                    kinds[(n + thread) % 3],
                    sync_id=f"s{n % 5}",
                    generated_at=after(hours=hour),
                    items=(Item("t1", status), Item(f"t{n % 4}", "Completed")),
                )
                do(database, Tell(news))
                listed = (Item("t1", status), Item("t2", "PushError"), Item(None, "Failed"))
                do(database, Ask(5130 if n % 2 else 2000, listed[: 1 + n % 3], hour))
                do(database, Fold())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert counters_say(database) == rows_say(database)
    assert recount(database) == 0


def test_a_cure_and_a_failure_at_the_same_moment_agree(database: Database) -> None:
    """Neither transaction sees the other's rows until one has the company's lock."""
    for turn in range(12):
        both = threading.Barrier(2)

        def tell(news: Delivery, both: threading.Barrier = both) -> None:
            both.wait()
            do(database, Tell(news))

        failed = (Item(f"t{turn}", "Failed"),)
        done = (Item(f"t{turn}", "Completed"),)
        sooner, later = f"a{turn}", f"b{turn}"
        news = (
            delivery(sooner, FAILED, sync_id=sooner, generated_at=T0, items=failed),
            delivery(later, COMPLETED, sync_id=later, generated_at=after(hours=1), items=done),
        )
        threads = [threading.Thread(target=tell, args=(each,)) for each in news]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counters_say(database) == rows_say(database)
    assert counters_say(database)[2] == set()


def test_wrong_counters_are_mended_from_the_rows(database: Database) -> None:
    """After an old version of this code wrote without counting, or a hand in the database."""
    items = (Item("t1", "Failed"), Item(None, "Failed"))
    do(database, Tell(delivery("m1", items=items)))
    do(database, Tell(delivery("m2", COMPLETED, sync_id="s2")))

    def spoil(connection: Connection) -> None:
        journal.work_off_some(connection)
        counted.fold(connection)
        wrong = {("c1", None, "failed", NO_CODE): 5, (None, "2026-01-01", "failed", NO_CODE): -3}
        write(connection, tally.added(wrong))
        connection.execute(open_failures.delete())
        connection.execute(
            open_failures.insert(), {"company_id": "gone", "transaction_id": "never"}
        )
        write(connection, tally.added({("gone", None, OPEN_FAILURES, NO_CODE): 4}))

    with database.writing() as connection:
        spoil(connection)
    assert counters_say(database) != rows_say(database)
    assert recount(database) > 0
    with database.writing() as connection:
        counted.fold(connection)
    assert counters_say(database) == rows_say(database)
    assert recount(database) == 0


def test_a_recount_also_folds_names_and_days(database: Database) -> None:
    """As an old version of this code, which knows neither, left them beside us."""
    do(database, Tell(delivery("m1", company_name="Harbour & Sons")))
    with database.writing() as connection:
        connection.execute(companies.update().values(name_folded=None))
        connection.execute(syncs.update().values(day=""))
    recount(database)
    with database.reading() as connection:
        found = queries_companies.list_companies(connection, q="HARB").items
        days = connection.execute(select(syncs.c.day)).scalars().all()
    assert [each.name for each in found] == ["Harbour & Sons"]
    assert days == ["2026-01-01"]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (None, None),
        (after(hours=-3), None),
        (None, after(hours=3)),
        (after(hours=-30), after(hours=31)),
        (after(hours=1), after(hours=2)),
        (after(hours=-9), after(hours=15)),
        (after(hours=10), after(hours=20)),
    ],
)
def test_statistics_of_a_range_are_those_of_its_rows(
    database: Database, since: datetime | None, until: datetime | None
) -> None:
    """Whole days come from the counters, the ends of the range from the rows."""
    for n in range(-40, 40):
        kind = COMPLETED if n % 3 else FAILED
        do(
            database,
            Tell(delivery(f"m{n}", kind, sync_id=f"s{n}", generated_at=after(hours=n))),
        )
    rows, _ = read(database)
    wanted = [
        row
        for row in rows
        if (since is None or row["occurred_at"] >= since)
        and (until is None or row["occurred_at"] < until)
    ]
    with database.reading() as connection:
        told = queries_companies.stats(connection, since, until)
    days = Counter(row["occurred_at"].date().isoformat() for row in wanted)
    assert told.by_outcome == Counter(row["outcome"] for row in wanted)
    assert told.by_status_code == Counter(row["status_code"] for row in wanted)
    assert {day: count.total() for day, count in told.by_day.items()} == dict(days)
