"""Few or many of something: the same rows in the same order, and no long walk for the few."""

import random
from typing import get_args

import pytest
from sqlalchemy import case, text, update

from app.db import caused, rare, statistics
from app.db.engine import Database
from app.db.queries import search
from app.db.queries import syncs as queries
from app.db.queries import transactions as queries_items
from app.db.queries.syncs import SyncFilter
from app.db.queries.transactions import ErrorFilter
from app.db.tables import syncs
from app.web.api.query_params import Sort
from tests.db.test_queries_plans import Read, plans, sorts
from tests.db.test_statistics import fill
from tests.web.shelf import Shelf, after, failed_item

WANTED = [
    SyncFilter(company_id="c1"),
    SyncFilter(states=["failed"]),
    SyncFilter(company_id="c2", outcomes=["failed", "in_progress"]),
    SyncFilter(status_codes=[5130], since=after(hours=-30)),
    SyncFilter(q="ring"),
]


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Syncs of three companies, some of whose starts and codes are unknown."""
    luck = random.Random(5)
    filled = Shelf(database)
    for company_id in ("c1", "c2", "c3"):
        filled.company(company_id, f"Ring {company_id}" if company_id != "c3" else "Toft")
    for n in range(30):
        filled.sync(
            f"s{n}",
            luck.choice(["c1", "c2", "c3"]),
            at=luck.choice([None, after(hours=luck.randint(-40, 40))]),
            code=luck.choice([None, 2000, 5130]),
            updated_at=after(minutes=luck.randint(0, 5)),
        )
    return filled


def walk(database: Database, sort: str, wanted: SyncFilter) -> list[queries.KeptSync]:
    """All pages of a list."""
    seen: list[queries.KeptSync] = []
    cursor = None
    while True:
        with database.reading() as connection:
            page = queries.list_syncs(connection, wanted, sort=sort, cursor=cursor, limit=3)
        seen += page.items
        cursor = page.next
        if cursor is None:
            return seen


@pytest.mark.parametrize("wanted", WANTED)
def test_few_and_many_are_listed_alike(
    shelf: Shelf, wanted: SyncFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every order, page by page; starts that are known in the order of the starts."""
    monkeypatch.setattr(search, "FEW", 1)
    for sort in get_args(Sort):
        by_few = walk(shelf.database, sort, wanted)
        monkeypatch.setattr(rare, "FEW", -1)
        assert walk(shelf.database, sort, wanted) == by_few
        monkeypatch.setattr(rare, "FEW", 2_000)
        assert len({kept.number for kept in by_few}) == len(by_few) > 3
        starts = [kept.sync.started_at for kept in by_few if kept.sync.started_at]
        if sort.endswith("started_at"):
            assert starts == sorted(starts, reverse=sort.startswith("-"))


def test_few_and_many_failures_are_listed_alike(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cause, and of companies whose names begin alike."""
    monkeypatch.setattr(search, "FEW", 1)
    shelf = Shelf(database)
    for n in range(6):
        shelf.company(f"c{n}", "Ring" if n % 2 else "Toft")
        items = (failed_item(f"t{n}", "The books are closed"), failed_item(f"u{n}", "Oh"))
        shelf.failed(f"s{n}", f"c{n}", at=after(hours=n), items=items)
    for wanted, ids in (
        (ErrorFilter(cause="unclassified"), ["u5", "u4", "u3", "u2", "u1", "u0"]),
        (ErrorFilter(cause="period_closed"), ["t5", "t4", "t3", "t2", "t1", "t0"]),
        (ErrorFilter(cause="never_seen"), []),
        (ErrorFilter(q="ri"), ["u5", "t5", "u3", "t3", "u1", "t1"]),
    ):
        for few in (-1, 2_000):
            monkeypatch.setattr(rare, "FEW", few)
            monkeypatch.setattr(caused, "FEW_ITEMS", few)
            with database.reading() as connection:
                page = queries_items.list_errors(connection, wanted)
            assert [item.transaction_id for item in page.items] == ids


def look_over(database: Database) -> None:
    """As the duty does, and as a later connection sees it."""
    assert statistics.look_over(database)
    database.engine.dispose()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_few_syncs_have_is_not_looked_for_in_all_of_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite left alone thinks that many are in every state, and walks in the wanted order."""
    monkeypatch.setattr(statistics, "WORTH_IT", 1)
    fill(database, 1000)
    with database.writing() as connection:
        rare_one = case((syncs.c.id % 50 == 0, "failed"), else_="completed")
        connection.execute(update(syncs).values(state=rare_one))
    look_over(database)
    read, walked = lists("-started_at", states=["failed"]), "ix_syncs_started_at (started_at>?)"
    assert walked not in plans(database, read)
    monkeypatch.setattr(rare, "FEW", -1)
    assert walked in plans(database, read)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_unknown_starts_of_a_range_are_not_looked_for_among_all_unknown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite left alone thinks that few starts are unknown, as few share one that is known."""
    monkeypatch.setattr(statistics, "WORTH_IT", 1)
    fill(database, 1000)
    with database.writing() as connection:
        connection.execute(text("UPDATE syncs SET started_at = id WHERE id % 2"))
    look_over(database)
    read = lists("-started_at", states=["completed"], since=after(days=1), until=after(days=2))
    found = plans(database, read).rpartition("MATERIALIZE found\n")[2]
    assert found.startswith("SEARCH syncs USING INDEX ix_syncs_occurred_at")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_syncs_of_many_companies_are_met_in_the_wanted_order(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not all sorted for a page, unless they are few."""
    monkeypatch.setattr(search, "FEW", 1)
    read = lists("-updated_at", q="ring")
    assert sorts(plans(shelf.database, read))
    monkeypatch.setattr(rare, "FEW", -1)
    assert not sorts(plans(shelf.database, read))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_companys_starts_are_read_in_the_order_of_its_own_index(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that is known is the sync's own time."""
    monkeypatch.setattr(rare, "FEW", -1)
    plan = plans(shelf.database, lists("-started_at", company_id="c1"))
    assert "ix_syncs_company_occurred (company_id=?)" in plan
    assert not sorts(plan)


def lists(sort: str, **wanted: object) -> Read:
    """The first page of a list of syncs in this order."""
    asked = SyncFilter(**wanted)  # type: ignore[arg-type]  # by name
    return lambda connection: queries.list_syncs(connection, asked, sort=sort, limit=1)
