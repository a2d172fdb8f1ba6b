"""Pages of lists come from indexes: no list sorts or scans a table that grows."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
from sqlalchemy import Connection, event

from app.db import failed_transactions
from app.db.engine import Database
from app.db.queries import access_paths, causes, events, stats, syncs, transactions
from app.db.queries.causes import CauseFilter
from app.db.queries.syncs import SyncFilter
from app.db.queries.transactions import PushErrorFilter, TransactionFilter
from app.web.api.query_params import Sort
from tests.web.store import T0, Store, after, failed_row

Read = Callable[[Connection], Any]
SCANS = (
    *("SCAN syncs\n", "SCAN transactions\n", "SCAN failed_transactions\n"),
    *("Seq Scan on syncs", "Seq Scan on transactions", "Seq Scan on failed_transactions"),
)


def plans(
    database: Database, read: Read, words: Sequence[str] = (" LIMIT ", "count(")
) -> list[str]:
    """The plans of the statements of a read that contain one of these words."""
    statements: list[tuple[str, Any]] = []

    def listen(_c: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        statements.append((statement, values))

    with database.reading() as connection:
        event.listen(database.engine, "before_cursor_execute", listen)
        read(connection)
        event.remove(database.engine, "before_cursor_execute", listen)
        return [
            _plan(connection, statement, values)
            for statement, values in statements
            if any(word in statement for word in words)
        ]


def _plan(connection: Connection, statement: str, values: Any) -> str:
    if connection.dialect.name == "sqlite":
        explain = "EXPLAIN QUERY PLAN "
    else:
        explain = "EXPLAIN "
        for way in ("seqscan", "sort", "bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    rows = connection.exec_driver_sql(explain + statement, values).all()
    return "\n".join(str(row[-1]) for row in rows) + "\n"


def sorts(plan: str) -> bool:
    """True when rows are sorted beyond what an index gives."""
    full_sort = "Sort Key" in plan and "Presorted Key" not in plan
    return full_sort or "TEMP B-TREE FOR ORDER BY" in plan


@pytest.fixture(autouse=True)
def many_rows_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a table that is too large to look up and sort what matches."""
    monkeypatch.setattr(access_paths, "FEW", -1)
    monkeypatch.setattr(syncs, "FEW_IN_RANGE", -1)
    monkeypatch.setattr(transactions, "FEW_OPEN", -1)


def list_syncs(sort: str = "-updated_at", **criteria: Any) -> Read:
    return lambda connection: syncs.list_syncs(
        connection, SyncFilter(**criteria), sort=sort, limit=1
    )


def list_push_errors(**criteria: Any) -> Read:
    return lambda connection: transactions.list_push_errors(
        connection, PushErrorFilter(**criteria), limit=1
    )


READS: dict[str, Read] = {
    "all": list_syncs(),
    "company": list_syncs(company_id="c1"),
    "company by start": list_syncs("-started_at", company_id="c1"),
    "state": list_syncs(states=["failed"]),
    "outcome": list_syncs(outcomes=["failed"]),
    "outcome by start": list_syncs("started_at", outcomes=["failed"]),
    "status code": list_syncs(status_codes=[5130]),
    "range": list_syncs(since=T0, until=after(days=1)),
    "range by end": list_syncs("finished_at", since=T0, until=after(days=1)),
    "cause": list_syncs(cause="unclassified"),
    "search": list_syncs(q="c1"),
    "one": lambda connection: syncs.get_sync(connection, "s1"),
    "transactions": lambda connection: transactions.list_transactions(
        connection, 1, TransactionFilter()
    ),
    "failures": list_push_errors(),
    "failures of a company": list_push_errors(company_id="c1"),
    "failures of a cause": list_push_errors(cause="unclassified"),
    "open failures": list_push_errors(open=True),
    "resolved failures": list_push_errors(open=False),
    "failures of a range": list_push_errors(since=T0, until=after(days=1)),
    "events": events.list_events,
    "unreadable events": lambda connection: events.list_events(
        connection, parse_status="unreadable"
    ),
}


@pytest.mark.parametrize("name", READS)
def test_a_page_is_read_in_the_order_of_an_index(store: Store, name: str) -> None:
    store.failed("s1")
    store.failed("s2")
    for plan in plans(store.database, READS[name]):
        assert not sorts(plan), plan
        assert not [scan for scan in SCANS if scan in plan], plan


@pytest.mark.parametrize("sort", get_args(get_args(Sort.__value__)[0]))
def test_every_sort_order_has_its_index_on_every_page(store: Store, sort: str) -> None:
    """The first page, one after a known value, one among the unknown ones."""
    for n in range(3):
        store.sync(f"s{n}", reported_started_at=None, code=5130 if n else None)

    def walk(connection: Connection) -> None:
        cursor = None
        for _ in range(3):
            page = syncs.list_syncs(connection, SyncFilter(), sort=sort, cursor=cursor, limit=1)
            cursor = page.next

    for plan in plans(store.database, walk):
        assert not sorts(plan), plan
        # Syncs without a start are at the end of the list and are read by their key.
        assert "SCAN syncs\n" not in plan or "started_at" in sort, plan
        assert "Seq Scan on syncs" not in plan, plan


def test_totals_come_from_indexes_alone(store: Store) -> None:
    """Of whole days, and of causes in a range."""
    store.failed("s1")
    midnight = after(hours=-9)

    def read(connection: Connection) -> None:
        stats.stats(connection, midnight, None)
        causes.list_causes(connection, CauseFilter(since=midnight))

    plan = "".join(plans(store.database, read))
    for index in ("ix_syncs_totals", "ix_failed_transactions_"):
        assert index in plan, plan
    assert not [scan for scan in SCANS if scan in plan], plan


def test_failures_without_an_id_are_found_by_their_sync(store: Store) -> None:
    """Other syncs may have many of them."""
    pk = store.failed("s1", rows=(failed_row(None),))

    def read(connection: Connection) -> None:
        assert failed_transactions.is_unnamed_current(connection, [pk])

    plan = "".join(plans(store.database, read, words=["FROM transactions"]))
    assert "uq_transactions_sync_pk" in plan or "sqlite_autoindex_transactions" in plan, plan
    assert "ix_transactions_transaction_id" not in plan, plan
