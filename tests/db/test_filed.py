"""What is filed by cause is always what the rows say, and the sums answer as the rows would."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from app.db import causes, journal
from app.db.causes_by_rows import by_rows
from app.db.causes_counted import CauseFilter, Counted, by_sums, in_days
from app.db.causes_seen import look_at
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.migrations import migrate
from app.db.queries.causes import list_causes
from app.db.recount import recount
from app.db.tables import filed_days, filed_failures, filed_spans, filed_totals, syncs, transactions
from app.db.tables_told import journal as entries
from app.domain.causes.loader import read_own, shipped
from app.domain.models import Item
from tests.db.test_queries_plans import plans
from tests.db.test_tally import Ask, Find, Fold, Tell, do, empty
from tests.reports import COMPLETED, FAILED, T0, after, delivery
from tests.web.shelf import Shelf, done_item, failed_item

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
ALL = CauseFilter()
SAID = {  # of two causes, one of which has two messages
    "Completed": None,
    "PushError": "The document date cannot be before the period lock date",
    "Failed": "Supplier Smith could not be found",
    "Error": "Something quite unheard of",
    "Rejected": "Something else that nobody knows",
    "Pending": None,
}


@dataclass(frozen=True)
class Decide:
    """The team's rules change, and are applied."""

    own: str


OWN = """
[[rule]]
cause = "period_closed"
message = 'something quite unheard of'
"""

lists = st.lists(
    st.tuples(st.sampled_from(["t1", "t2", None]), st.sampled_from(sorted(SAID))).map(
        lambda told: Item(told[0], told[1], SAID[told[1]])
    ),
    max_size=4,
).map(tuple)
sync_ids = st.sampled_from(["s1", "s2", "s3", "s4"])
steps = st.one_of(
    st.builds(
        delivery,
        st.integers(0, 99).map("m{}".format),
        st.sampled_from([FAILED, COMPLETED]),
        sync_id=sync_ids,
        company_id=st.sampled_from(["c1", "c1", "c2"]),
        generated_at=st.integers(-60, 60).map(lambda n: after(hours=n)),
        items=st.none() | lists,
    ).map(Tell),
    st.builds(Ask, st.sampled_from([2000, 4040, 5130]), st.none() | lists, st.integers(-60, 60)),
    st.builds(Find, sync_ids, st.sampled_from([2000, 4040, 5130])),
    st.builds(Decide, st.sampled_from(["", OWN])),
    st.just(Fold()),
)


def step(database: Database, each: Tell | Ask | Find | Fold | Decide) -> None:
    if not isinstance(each, Decide):
        do(database, each)
        return
    database.rules = read_own(each.own, shipped()) if each.own else shipped()
    with database.writing() as connection:
        while causes.decide_anew(connection, 3):
            pass


Counts = tuple[int, int, int, int]
Seen = dict[tuple[str, str | None], tuple[Counts, datetime, datetime]]


def sums_say(database: Database, wanted: CauseFilter) -> Seen:
    told: Seen = {}
    with journal.caught_up(database) as connection:
        days = in_days(connection, wanted)
        assert days is not None
        found = by_sums(connection, days)
        seen = look_at(connection, days, [(each.cause, each.fingerprint) for each in found])
    for each in found:
        its = seen[each.cause, each.fingerprint]
        counts = (each.transactions, each.open, each.syncs, its.companies)
        told[each.cause, each.fingerprint] = (counts, its.first_at, its.last_at)
    return told


def rows_say(database: Database, wanted: CauseFilter) -> Seen:
    """The plain count over all rows, in Python."""
    with database.reading() as connection:
        of_sync = select(syncs.c.occurred_at, syncs.c.company_id, syncs.c.id)
        items = of_sync.add_columns(
            transactions.c.transaction_id,
            transactions.c.status,
            transactions.c.id.label("row"),
            transactions.c.cause,
            transactions.c.fingerprint,
        ).join(transactions, transactions.c.sync == syncs.c.id)
        rows = list(connection.execute(items))
        wholes = of_sync.add_columns(syncs.c.cause, syncs.c.fingerprint)
        failed = [row for row in rows if row.cause]
        failed += [row for row in connection.execute(wholes) if row.cause]
    keys = {(row.cause, row.fingerprint) for row in failed} | {(row.cause, None) for row in failed}
    told: Seen = {}
    for cause, fingerprint in keys:
        mine = [
            row
            for row in failed
            if row.cause == cause
            and fingerprint in (None, row.fingerprint)
            and wanted.cause in (None, cause)
            and wanted.company_id in (None, row.company_id)
        ]
        times = [row.occurred_at for row in mine]
        some = [row for row in mine if is_wanted(row.occurred_at, wanted)]
        if some:
            told[cause, fingerprint] = (count(some, rows), min(times), max(times))
    return told


def is_wanted(at: datetime, wanted: CauseFilter) -> bool:
    return (not wanted.since or at >= wanted.since) and (not wanted.until or at < wanted.until)


def count(failed: Sequence[Any], rows: Sequence[Any]) -> Counts:
    """Transactions, those still open, whole syncs, companies."""
    items = [row for row in failed if hasattr(row, "transaction_id")]
    still = [row for row in items if not is_cured(row, rows)]
    own = [
        {(row.company_id, row.transaction_id or row.row) for row in some} for some in (items, still)
    ]
    companies = {row.company_id for row in failed}
    return len(own[0]), len(own[1]), len(failed) - len(items), len(companies)


def is_cured(failed: Any, rows: Sequence[Any]) -> bool:
    """True when all rows of the transaction in a later sync are completed."""
    if failed.transaction_id is None:
        return False
    later: dict[int, set[str]] = {}
    for row in rows:
        same = (row.company_id, row.transaction_id) == (failed.company_id, failed.transaction_id)
        if same and (row.occurred_at, row.id) > (failed.occurred_at, failed.id):
            later.setdefault(row.id, set()).add(row.status)
    return {"Completed"} in later.values()


def counts_by_rows(database: Database, wanted: CauseFilter) -> dict[Any, Counts]:
    """What is answered where the sums cannot."""
    with journal.caught_up(database) as connection:
        return {
            (each.cause, each.fingerprint): (
                each.transactions,
                each.open,
                each.syncs,
                each.companies or 0,
            )
            for each in by_rows(connection, wanted)
        }


WANTED = (
    ALL,
    CauseFilter(since=MIDNIGHT),
    CauseFilter(since=MIDNIGHT + timedelta(days=1), until=MIDNIGHT + timedelta(days=99)),
    CauseFilter(company_id="c1"),
    CauseFilter(company_id="c2", cause="period_closed", since=MIDNIGHT),
    CauseFilter(since=MIDNIGHT - timedelta(days=1), until=MIDNIGHT + timedelta(days=1)),
    CauseFilter(until=MIDNIGHT, company_id="c1"),
    CauseFilter(until=MIDNIGHT + timedelta(days=1), cause="unclassified"),
)
BY_ROWS = (
    CauseFilter(since=after(hours=-20), until=after(hours=20)),
    CauseFilter(until=after(hours=1), company_id="c1"),
    CauseFilter(since=after(hours=1), cause="unclassified"),
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(steps, max_size=12))
def test_the_sums_say_what_the_rows_say_after_any_steps(
    database: Database, told: list[Tell | Ask | Find | Fold | Decide]
) -> None:
    """Webhooks with and without lists, answers, finds and changed rules, in any order."""
    empty(database)
    database.rules = shipped()
    for each in told:
        step(database, each)
    for wanted in (*WANTED, *BY_ROWS):
        truth = rows_say(database, wanted)
        if wanted in WANTED:
            assert sums_say(database, wanted) == truth
        counts = {key: counts for key, (counts, *_) in truth.items()}
        assert counts_by_rows(database, wanted) == counts
    assert recount(database) == 0


@pytest.fixture
def filled(database: Database) -> Database:
    """Failures of two companies on three days, one cured, one without an id, one whole sync."""
    shelf = Shelf(database)
    shelf.failed("s1", items=(failed_item("t1"), failed_item("t2"), failed_item(None)))
    shelf.failed("s2", "c2", items=(failed_item("t1", "Oops"),), at=after(days=1))
    shelf.done("s3", items=(done_item("t1"),), at=after(days=1))
    shelf.failed("s4", items=(failed_item("t1", "Oops"), failed_item("t2")), at=after(days=2))
    shelf.sync("s5", "c2", code=4040, at=after(days=2), error_message="Company c2 is gone")
    return database


def test_a_sum_that_is_wrong_is_mended_from_the_rows(filled: Database) -> None:
    """After an old version kept news beside us, or a hand in the database."""
    right = [sums_say(filled, wanted) for wanted in WANTED]
    for table in (filed_failures, filed_days, filed_totals, filed_spans):
        with filled.writing() as connection:
            connection.execute(table.delete())
        assert recount(filled) > 0
        assert [sums_say(filled, wanted) for wanted in WANTED] == right
        assert recount(filled) == 0
    with filled.writing() as connection:
        connection.execute(update(filed_days).values(open=filed_days.c.open + 3))
        connection.execute(update(filed_totals).values(syncs=7))
        connection.execute(update(filed_spans).values(first_at=T0 - timedelta(days=9)))
        connection.execute(filed_failures.delete().where(filed_failures.c.company_id == "c2"))
    assert recount(filled) > 0
    assert [sums_say(filled, wanted) for wanted in WANTED] == right
    assert recount(filled) == 0


def test_what_counts_nothing_any_more_does_not_stay(filled: Database) -> None:
    """A rule that is changed for good would else leave a row for each day."""
    with filled.writing() as connection:
        connection.execute(update(transactions).values(cause="other", cause_rules="x"))
    assert recount(filled) > 0
    with filled.reading() as connection:
        for table in (filed_days, filed_totals, filed_spans):
            kept = set(connection.execute(select(table.c.cause)).scalars())
            assert kept == {"other", "disconnected"}


def test_of_two_failures_in_one_sync_the_last_leads_wherever_they_are_kept(
    database: Database,
) -> None:
    """A restored dump, or a row that was written anew, puts them into another order."""
    Shelf(database).failed("s1", items=(failed_item("t1", "Oops"), failed_item("t1", "Alas")))
    with database.writing() as connection:
        kept = connection.execute(select(transactions).order_by(transactions.c.position))
        rows = [{**row, "id": 9 - row["position"]} for row in kept.mappings()]
        connection.execute(transactions.delete())
        connection.execute(transactions.insert(), rows[::-1])
    assert recount(database) == 0


def test_ids_of_an_older_version_that_are_too_long_stop_nothing(database: Database) -> None:
    """It kept syncs whose ids fit into the index of the syncs, and not into that of failures."""
    shelf, long_id = Shelf(database), Random(1).randbytes(1335).hex()
    shelf.sync(long_id, code=4040, error_message="Company c1 is gone")
    shelf.sync("s2", code=4040, error_message="Company c1 is gone")
    assert [each.syncs for each in list_of(database)] == [1]
    step(database, Decide(OWN))
    assert [each.syncs for each in list_of(database)] == [1]
    migrate(database, "-1")
    migrate(database)
    assert recount(database) == 0


def test_an_entry_of_an_older_version_is_counted(database: Database) -> None:
    """It does not name the syncs that failed as a whole; the next recount finds those."""
    items = (Item("t1", "PushError", SAID["PushError"]), Item(None, "Failed", SAID["Failed"]))
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", items=items)])
        plain = func.replace(entries.c.told, '"syncs":[["c1","s1"]]', '"more":0')
        connection.execute(update(entries).values(told=plain))
    (told,) = list_of(database)
    assert (told.cause, told.transactions) == ("period_closed", 1)
    assert recount(database) > 0
    assert [each.transactions for each in list_of(database)] == [1, 1]


def list_of(database: Database) -> list[Counted]:
    with journal.caught_up(database) as connection:
        return [each for each in by_sums(connection, ALL) if each.fingerprint is None]


def days(first: int, end: int | None = None) -> CauseFilter:
    """From a day on, and before another."""
    until = None if end is None else MIDNIGHT + timedelta(days=end)
    return CauseFilter(since=MIDNIGHT + timedelta(days=first), until=until)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ALL, True),
        (days(0), True),
        (days(0, 3), True),
        (days(0, 2), True),
        (days(1, 2), True),
        (CauseFilter(since=T0), False),
        (CauseFilter(until=after(days=2)), False),
        (CauseFilter(until=after(days=2, seconds=1)), True),
        (CauseFilter(until=after(days=2), company_id="nobody"), True),
        (CauseFilter(until=after(days=2), cause="unheard_of"), True),
    ],
)
def test_the_sums_are_asked_where_they_say_what_is_wanted(
    filled: Database, wanted: CauseFilter, expected: bool
) -> None:
    """A range of whole days, or one after which nothing has failed; both ways agree then."""
    with journal.caught_up(filled) as connection:
        assert (in_days(connection, wanted) is not None) is expected
    if expected:
        assert sums_say(filled, wanted) == rows_say(filled, wanted)


def test_a_transaction_that_fails_again_counts_in_an_earlier_range_too(filled: Database) -> None:
    """In each it counts on the last day on which it failed there."""
    with journal.caught_up(filled) as connection:
        told = {each.cause: each.failing for each in list_causes(connection, days(0, 1))}
        newest = {each.cause: each.failing for each in list_causes(connection, days(2))}
    assert (told["unclassified"].transactions, told["unclassified"].open) == (3, 2)
    assert newest["unclassified"].transactions == 2
    assert told["unclassified"].last_seen_at == newest["unclassified"].last_seen_at == after(days=2)


def steps_of(table: str) -> tuple[str, ...]:
    return (f"Seq Scan on {table} ", f"SCAN {table}\n")


@pytest.mark.parametrize("wanted", [ALL, CauseFilter(company_id="c1"), days(0), days(0, 2)])
def test_what_is_filed_is_answered_without_reading_failures(
    filled: Database, wanted: CauseFilter
) -> None:
    """Sums are added up; of failures only the newest of a group is looked up, by an index."""
    plan = plans(filled, lambda each: list_causes(each, wanted))
    growing = (syncs, transactions, filed_failures)
    assert not [each for table in growing for each in steps_of(table.name) if each in plan], plan
