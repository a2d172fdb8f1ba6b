"""Reads stay fast as tables grow: no page of a list is made by sorting the table."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
from sqlalchemy import Connection, event

from app.db.engine import Database
from app.db.queries import events as queries_events
from app.db.queries import syncs as queries
from app.db.queries import transactions as queries_items
from app.db.queries.syncs import SyncFilter
from app.web.api.query_params import Sort
from tests.web.shelf import Shelf

Read = Callable[[Connection], Any]


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Fills the database."""
    return Shelf(database)


def plans(database: Database, read: Read) -> str:
    """The plans of all statements of a read, with sorting and scanning priced out."""
    said: list[tuple[str, Any]] = []

    def listen(_c: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        said.append((statement, values))

    with database.reading() as connection:
        event.listen(database.engine, "before_cursor_execute", listen)
        read(connection)
        event.remove(database.engine, "before_cursor_execute", listen)
        return "\n".join(_plan(connection, statement, values) for statement, values in said)


def _plan(connection: Connection, statement: str, values: Any) -> str:
    if connection.dialect.name == "sqlite":
        explain = "EXPLAIN QUERY PLAN "
    else:
        explain = "EXPLAIN "
        for way in ("seqscan", "sort", "bitmapscan"):
            connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    rows = connection.exec_driver_sql(explain + statement, values).all()
    return "\n".join(str(row[-1]) for row in rows)


def sorts(plan: str) -> bool:
    """True when rows are sorted beyond what an index gives."""
    return "TEMP B-TREE FOR ORDER BY" in plan or "Sort Key" in plan


def lists(**wanted: Any) -> Read:
    """The first page of a filtered list of syncs."""
    return lambda connection: queries.list_syncs(connection, SyncFilter(**wanted), limit=1)


@pytest.mark.parametrize(
    "read",
    [
        lists(),
        lists(company_id="c1"),
        lists(states=["failed"]),
        lists(outcomes=["failed"]),
        lists(q="c1"),
        lambda connection: queries.get_sync(connection, "s1"),
        lambda connection: queries_items.list_items(connection, 1, queries_items.ItemFilter()),
        queries_events.list_events,
        lambda connection: queries_events.list_events(connection, reading="unreadable"),
    ],
    ids=["all", "company", "state", "outcome", "search", "one", "items", "events", "odd"],
)
def test_a_page_is_read_in_the_order_of_an_index(shelf: Shelf, read: Read) -> None:
    """The usual views, on both databases."""
    shelf.company("c1")
    shelf.failed("s1")
    shelf.failed("s2")
    plan = plans(shelf.database, read)
    assert not sorts(plan.split("CORRELATED")[0].split("SubPlan")[0]), plan
    assert "Seq Scan on syncs" not in plan, plan


@pytest.mark.parametrize("sort", get_args(Sort))
def test_every_sort_has_its_index_on_every_page(shelf: Shelf, sort: str) -> None:
    """The first page, one after a known value, one among the unknown."""
    for n in range(3):
        shelf.sync(f"s{n}", at=None, code=5130 if n else None)

    def walk(connection: Connection) -> None:
        cursor = None
        for _ in range(3):
            page = queries.list_syncs(connection, SyncFilter(), sort=sort, cursor=cursor, limit=1)
            cursor = page.next

    plan = plans(shelf.database, walk)
    assert not sorts(plan), plan
    assert "SCAN syncs\n" not in plan
    assert "Seq Scan on syncs" not in plan
