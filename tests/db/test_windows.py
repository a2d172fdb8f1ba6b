"""A range of time in a list: the same rows in the same order, whichever way they are found."""

import random
from datetime import datetime
from typing import get_args

import pytest

from app.db import windows
from app.db.engine import Database
from app.db.queries import syncs as queries
from app.db.queries.syncs import SyncFilter
from app.web.api.query_params import Sort
from tests.web.shelf import Shelf, after

RANGES = [
    (after(hours=-20), after(hours=30)),
    (after(hours=-3), None),
    (None, after(hours=5)),
    (after(hours=1), after(hours=14)),
]


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Some days of syncs, updated in another order than they happened."""
    luck = random.Random(3)
    filled = Shelf(database)
    for n in range(24):
        filled.sync(
            f"s{n}",
            at=after(hours=luck.randint(-40, 40)),
            code=luck.choice([None, 2000, 5130]),
            updated_at=after(minutes=luck.randint(0, 5)),
        )
    return filled


def walk(database: Database, sort: str, wanted: SyncFilter) -> list[str]:
    seen: list[str] = []
    cursor = None
    while True:
        with database.reading() as connection:
            page = queries.list_syncs(connection, wanted, sort=sort, cursor=cursor, limit=3)
        seen += [kept.sync.sync_id for kept in page.items]
        cursor = page.next
        if cursor is None:
            return seen


@pytest.mark.parametrize(("since", "until"), RANGES)
def test_a_range_is_read_alike_by_each_way(
    shelf: Shelf,
    since: datetime | None,
    until: datetime | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found and sorted apart; day by day; in the order of an index."""
    for wanted in (
        SyncFilter(since=since, until=until),
        SyncFilter(until=until, states=["failed"]),
    ):
        for sort in get_args(Sort):
            monkeypatch.setattr(windows, "FEW", 10_000)
            apart = walk(shelf.database, sort, wanted)
            monkeypatch.setattr(windows, "FEW", -1)
            by_days = walk(shelf.database, sort, wanted)
            monkeypatch.setattr(windows, "MOST_DAYS", 0)
            plain = walk(shelf.database, sort, wanted)
            monkeypatch.undo()
            assert apart == by_days == plain
            assert len(set(plain)) == len(plain) > 0
