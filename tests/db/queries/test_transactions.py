"""Transactions over several syncs: what is failed, open or resolved."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from app.db.engine import Database
from app.db.queries import access_paths, transactions
from app.db.queries.transactions import PushErrorFilter, TransactionFilter, TransactionRecord
from app.domain.models import Transaction
from tests.web.store import T0, Store, after, completed_row, failed_row

CORRELATION = "6fb40d5eb13e11edafa10242ac120002"
CORRELATED = f"An error occurred. Correlation ID: {CORRELATION}. Message: no"


def push_errors(database: Database, limit: int = 200, **criteria: Any) -> list[TransactionRecord]:
    """The failed rows that a filter selects, over all pages."""
    return list(_pages(database, limit, PushErrorFilter(**criteria)))


def _pages(
    database: Database, limit: int, criteria: PushErrorFilter
) -> Iterator[TransactionRecord]:
    cursor = None
    while True:
        with database.reading() as connection:
            page = transactions.list_push_errors(connection, criteria, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


def test_the_first_later_sync_that_completes_a_failure_resolves_it(store: Store) -> None:
    """Later at Codat: here they arrive in the opposite order."""
    store.completed("third", at=after(hours=3))
    store.completed("second", at=after(hours=2))
    store.failed("first", at=T0)
    with store.database.reading() as connection:
        rows = transactions.transaction_history(connection, "c1", "t1")
    assert [row.sync_id for row in rows] == ["third", "second", "first"]
    assert [row.resolved_by for row in rows] == [None, None, "second"]
    assert {row.current_status for row in rows} == {"completed"}


def test_an_earlier_sync_another_company_or_half_of_it_resolves_nothing(store: Store) -> None:
    """All rows of a transaction in the later sync have to be completed."""
    store.completed("before", at=T0)
    store.failed("now", at=after(hours=1))
    store.completed("other", "c2", at=after(hours=2))
    (row,) = push_errors(store.database)
    assert (row.resolved_by, row.current_status) == (None, "failed")
    half = (completed_row(), Transaction("t1", "Pending", None, "bankfeeds"))
    store.sync("half", code=2000, rows=half, at=after(hours=3))
    (row,) = push_errors(store.database)
    assert (row.resolved_by, row.current_status) == (None, "pending")


def test_open_and_resolved_failures_are_told_apart(store: Store) -> None:
    """A row without an id stays open; one before a completion is resolved though it fails again."""
    rows = (failed_row("t2"), failed_row("t2"), failed_row("t1"), failed_row(None))
    store.failed("s1", rows=rows, at=T0)
    store.completed("s2", at=after(hours=1))
    database = store.database
    assert [row.transaction_id for row in push_errors(database, open=True)] == [None, "t2", "t2"]
    assert [row.transaction_id for row in push_errors(database, open=False)] == ["t1"]
    store.failed("s3", at=after(hours=2))
    assert [row.sync_id for row in push_errors(database, open=True)] == ["s3", "s1", "s1", "s1"]
    assert [row.sync_id for row in push_errors(database, open=False)] == ["s1"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "criteria", [{}, {"company_id": "c1"}, {"cause": "unclassified"}, {"since": after(hours=5)}]
)
def test_open_and_resolved_add_up_on_every_access_path(
    store: Store, monkeypatch: pytest.MonkeyPatch, seed: int, criteria: dict[str, Any]
) -> None:
    """Page by page, whether rows are looked up or read in the order of the list."""
    chance = random.Random(seed)
    for n in range(12):
        rows = tuple(
            chance.choice([failed_row, completed_row])(chance.choice(["t1", "t2", "t3", None]))
            for _ in range(3)
        )
        store.sync(
            f"s{n}", chance.choice(["c1", "c2"]), code=5130, rows=rows,
            at=after(hours=chance.randint(0, 9)),
        )  # fmt: skip

    def all_ways() -> list[list[tuple[str, int]]]:
        return [
            [(row.sync_id, row.position) for row in push_errors(store.database, 2, **way)]
            for way in (criteria, criteria | {"open": True}, criteria | {"open": False})
        ]

    everything, is_open, is_resolved = all_ways()
    assert sorted(is_open + is_resolved) == sorted(everything)
    assert len(set(everything)) == len(everything)
    with monkeypatch.context() as patch:
        patch.setattr(access_paths, "FEW", -1)
        patch.setattr(transactions, "FEW_OPEN", -1)
        assert all_ways() == [everything, is_open, is_resolved]


def test_identical_rows_are_listed_once_each(store: Store) -> None:
    for n in range(4):
        rows = (failed_row(), completed_row("x"), failed_row())
        store.failed(f"s{n}", rows=rows, at=T0)
    seen = [(row.sync_id, row.position) for row in push_errors(store.database, 3)]
    assert (len(seen), len(set(seen))) == (8, 8)


def test_failed_rows_are_searched_by_any_id(store: Store) -> None:
    """A transaction or correlation id selects its rows, not all of their sync."""
    store.failed("s1", rows=(failed_row("t1"), failed_row("t2", CORRELATED)))
    for q in ("t2", CORRELATION):
        assert [row.transaction_id for row in push_errors(store.database, q=q)] == ["t2"]
    assert len(push_errors(store.database, q="s1")) == 2
    assert len(push_errors(store.database, cause="unclassified", company_id="c1")) == 2
    assert push_errors(store.database, since=after(days=1)) == []


def test_the_rows_of_a_sync_are_filtered_and_paged_in_codats_order(store: Store) -> None:
    """By status in any case, by failure, by part of an id or a message."""
    rows = (
        failed_row("t1", f"Tax 100%. {CORRELATED}"), completed_row("t2"), Transaction("t3", "Odd"),
        completed_row("t2"),
    )  # fmt: skip
    pk = store.failed(rows=rows)

    def positions(cursor: str | None = None, limit: int = 50, **criteria: Any) -> list[int]:
        with store.database.reading() as connection:
            page = transactions.list_transactions(
                connection, pk, TransactionFilter(**criteria), cursor=cursor, limit=limit
            )
        later = positions(page.next, limit, **criteria) if page.next else []
        return [row.position for row in page.items] + later

    assert positions(limit=1) == [0, 1, 2, 3]
    assert positions(statuses=["completed"]) == [1, 3]
    assert positions(failed=False) == [1, 2, 3]
    assert positions(cause="unclassified") == [0]
    assert positions(q="100%") == positions(q="tax") == positions(q=CORRELATION[-12:]) == [0]
    assert positions(q="%") == [0]
