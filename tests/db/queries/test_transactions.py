"""Reads over many syncs: cures, failed rows, totals, timelines."""

import pytest

from app.db.engine import Database
from app.db.queries import (
    companies as queries_companies,
)
from app.db.queries import (
    events as queries_events,
)
from app.db.queries import (
    transactions as queries_items,
)
from app.db.queries.transactions import ErrorFilter, ItemFilter, KeptItem
from app.domain.models import Item
from app.errors import NotKnown
from tests.web.shelf import T0, Shelf, after, done_item, failed_item


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Fills the database."""
    return Shelf(database)


def errors(database: Database, **wanted: object) -> list[KeptItem]:
    """The failed rows a filter finds."""
    with database.reading() as connection:
        page = queries_items.list_errors(connection, ErrorFilter(**wanted), limit=200)  # type: ignore[arg-type]  # by name
    return page.items


def test_a_failure_is_cured_by_the_first_later_sync_that_completes_it(shelf: Shelf) -> None:
    """Later by the syncs' own times: arrival is the other way round here."""
    shelf.done("third", at=after(hours=3))
    shelf.done("second", at=after(hours=2))
    shelf.failed("first", at=T0)
    with shelf.database.reading() as connection:
        rows = queries_items.history(connection, "c1", "t1")
    assert [row.sync_id for row in rows] == ["third", "second", "first"]
    assert [row.cured_by for row in rows] == [None, None, "second"]
    assert {row.current for row in rows} == {"completed"}


def test_nothing_before_the_failure_cures_it(shelf: Shelf) -> None:
    """Nor another company's transaction of the same id."""
    shelf.done("before", at=T0)
    shelf.failed("now", at=after(hours=1))
    shelf.done("other", "c2", at=after(hours=2))
    (row,) = errors(shelf.database)
    assert (row.cured_by, row.current) == (None, "failed")


def test_half_of_a_transaction_cures_nothing(shelf: Shelf) -> None:
    """All its rows in the later sync must be completed."""
    shelf.failed("first", at=T0)
    half = (done_item(), Item("t1", "Pending", None, "bankfeeds"))
    shelf.sync("second", code=2000, items=half, at=after(hours=1))
    (row,) = errors(shelf.database)
    assert (row.cured_by, row.current) == (None, "pending")


def test_open_and_cured_errors_are_told_apart(shelf: Shelf) -> None:
    """And counted per company, each transaction once."""
    shelf.company("c1")
    twice = (failed_item("t2"), failed_item("t2"), failed_item("t1"), failed_item(None))
    shelf.failed("s1", items=twice, at=T0)
    shelf.done("s2", at=after(hours=1))
    database = shelf.database
    assert [row.transaction_id for row in errors(database, open=True)] == [None, "t2", "t2"]
    assert [row.transaction_id for row in errors(database, open=False)] == ["t1"]
    with database.reading() as connection:
        assert queries_companies.get_company(connection, "c1").open_failures == 2


def test_errors_page_through_every_failed_row_once(shelf: Shelf) -> None:
    """Newest sync first, identical rows kept apart."""
    for n in range(4):
        shelf.failed(f"s{n}", items=(failed_item(), done_item("x"), failed_item()), at=T0)
    seen: list[tuple[str, int]] = []
    cursor = None
    while True:
        with shelf.database.reading() as connection:
            page = queries_items.list_errors(connection, ErrorFilter(), cursor=cursor, limit=3)
        seen += [(row.sync_id, row.position) for row in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert len(seen) == 8
    assert len(set(seen)) == 8


def test_errors_are_searched_by_any_id(shelf: Shelf) -> None:
    """Only the rows meant, not all of their sync."""
    shelf.failed("s1", items=(failed_item("t1"), failed_item("t2")))
    for q in ("t2", "corr-t2"):
        assert [row.transaction_id for row in errors(shelf.database, q=q)] == ["t2"]
    assert len(errors(shelf.database, q="s1")) == 2
    assert len(errors(shelf.database, cause="unclassified", company_id="c1")) == 2
    assert errors(shelf.database, since=after(days=1)) == []


def test_a_syncs_rows_are_filtered_and_paged_in_codats_order(shelf: Shelf) -> None:
    """By status in any case, by failure, by part of an id or message."""
    rows = (failed_item("t1", "Tax 100%"), done_item("t2"), Item("t3", "Odd"), done_item("t2"))
    number = shelf.failed(items=rows)

    def positions(cursor: str | None = None, limit: int = 50, **wanted: object) -> list[int]:
        with shelf.database.reading() as connection:
            page = queries_items.list_items(
                connection,
                number,
                ItemFilter(**wanted),  # type: ignore[arg-type]  # by name
                cursor=cursor,
                limit=limit,
            )
        later = positions(page.next, limit, **wanted) if page.next else []
        return [row.position for row in page.items] + later

    assert positions(limit=1) == [0, 1, 2, 3]
    assert positions(statuses=["completed"]) == [1, 3]
    assert positions(failed=False) == [1, 2, 3]
    assert positions(q="100%") == positions(q="tax") == positions(q="corr-t1") == [0]
    assert positions(q="%") == [0]


def test_companies_have_totals_and_their_newest_sync(shelf: Shelf) -> None:
    """Sorted by name, the unnamed last."""
    for company_id, name in (("c1", None), ("c2", "Zoo"), ("c3", "Ant")):
        shelf.company(company_id, name)
    shelf.failed("old", "c2", at=T0)
    shelf.done("new", "c2", at=after(hours=1))
    with shelf.database.reading() as connection:
        page = queries_companies.list_companies(connection)
        assert [each.company_id for each in page.items] == ["c3", "c2", "c1"]
        zoo = page.items[1]
        assert zoo.by_outcome == {"failed": 1, "all_written": 1}
        assert zoo.last_sync is not None
        assert zoo.last_sync.sync.sync_id == "new"
        with pytest.raises(NotKnown):
            queries_companies.get_company(connection, "c9")


def test_stats_count_by_the_syncs_own_day(shelf: Shelf) -> None:
    """UTC days; the range takes in its start and leaves out its end."""
    shelf.failed("s1", at=T0)
    shelf.done("s2", at=after(days=1))
    shelf.sync("s3", at=after(days=2))
    with shelf.database.reading() as connection:
        told = queries_companies.stats(connection, T0, after(days=2))
    assert told.by_day == {"2026-01-01": {"failed": 1}, "2026-01-02": {"all_written": 1}}
    assert told.by_status_code == {5130: 1, 2000: 1}


def test_a_timeline_tells_events_and_notes_in_order(shelf: Shelf) -> None:
    """Of this sync only, each with its reason, page by page."""
    number = shelf.failed()
    shelf.note(number, after(seconds=3), "fetch", "Codat says 5130")
    shelf.note(number, T0, "duplicate", "came again")
    shelf.event("m2", company_id="c1", sync_id="s1", received_at=after(seconds=2))
    shelf.event("m1", company_id="c1", sync_id="s1", received_at=T0)
    shelf.event("m3", company_id="c2", sync_id="s1", received_at=T0)
    with shelf.database.reading() as connection:
        first = queries_events.timeline(connection, number, "c1", "s1", limit=3)
        rest = queries_events.timeline(connection, number, "c1", "s1", limit=3, cursor=first.next)
    steps = [*first.items, *rest.items]
    assert [(step.kind, step.event_id) for step in steps] == [
        ("delivery", "m1"),
        ("duplicate", None),
        ("delivery", "m2"),
        ("fetch", None),
    ]
    assert all(step.reason for step in steps)
    assert rest.next is None
