"""Totals: of companies, of days, of causes."""

import random
from collections import Counter
from datetime import datetime

import pytest

from app.db.queries import causes, companies, stats
from app.db.queries.causes import CauseFilter
from app.errors import NotFound
from tests.web.store import T0, Store, after, completed_row, failed_row


def test_companies_are_sorted_by_name_with_their_totals(store: Store) -> None:
    """Those without a name are last."""
    for company_id, name in (("c1", None), ("c2", "Zoo"), ("c3", "Ant")):
        store.company(company_id, name)
    store.failed("old", "c2", at=T0, rows=(failed_row("t1"), failed_row("t1"), failed_row("t2")))
    store.completed("new", "c2", at=after(hours=1), rows=(completed_row("t2"),))
    with store.database.reading() as connection:
        page = companies.list_companies(connection)
        assert [company.company_id for company in page.items] == ["c3", "c2", "c1"]
        zoo = page.items[1]
        assert zoo.by_outcome == {"failed": 1, "all_written": 1}
        assert zoo.open_failures == 1
        assert zoo.last_sync is not None
        assert zoo.last_sync.sync.sync_id == "new"
        assert page.items[0].last_sync is None
        with pytest.raises(NotFound):
            companies.get_company(connection, "c9")


def test_companies_page_by_name(store: Store) -> None:
    for n in range(5):
        store.company(f"c{n}", None if n % 2 else f"Shop {n}")
    seen: list[str] = []
    cursor = None
    while True:
        with store.database.reading() as connection:
            page = companies.list_companies(connection, cursor=cursor, limit=2)
        seen += [company.company_id for company in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == ["c0", "c2", "c4", "c1", "c3"]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (None, None),
        (after(hours=-9), after(hours=15)),  # midnight to midnight
        (after(hours=-9), None),
        (None, after(hours=15)),
        (after(hours=1), after(hours=30)),
        (after(hours=1), after(hours=2)),
        (after(hours=-20), after(hours=15)),
        (after(hours=40), None),
    ],
)
def test_stats_count_the_syncs_of_a_range(
    store: Store, since: datetime | None, until: datetime | None
) -> None:
    """From its start (inclusive) to its end (exclusive), whole days or not."""
    chance = random.Random(5)
    times = [after(hours=chance.randint(-40, 50)) for _ in range(30)]
    times += [after(hours=-9), after(hours=15), after(hours=1)]
    for n, at in enumerate(times):
        store.completed(f"s{n}", at=at)
    expected = [at for at in times if (not since or at >= since) and (not until or at < until)]
    with store.database.reading() as connection:
        totals = stats.stats(connection, since, until)
    days = Counter(at.date().isoformat() for at in expected)
    assert {day: counts.total() for day, counts in totals.by_day.items()} == days
    assert list(totals.by_day) == sorted(totals.by_day)
    assert totals.by_status_code == Counter({2000: len(expected)} if expected else {})


def test_only_the_largest_groups_are_shown(store: Store) -> None:
    """The number of all groups says how many more there are."""
    rows = [failed_row(f"t{letter}", f"Strange {letter * 3}") for letter in "abcd"]
    store.failed(rows=(*rows, failed_row("more", "Strange ddd")))
    with store.database.reading() as connection:
        details = causes.get_cause(connection, "unclassified", CauseFilter(), max_groups=2)
    assert (details.group_count, len(details.groups)) == (4, 2)
    assert (details.groups[0].example, details.groups[0].transactions) == ("Strange ddd", 2)
    assert details.totals.transactions == 5
