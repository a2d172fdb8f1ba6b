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
        assert [each.company_id for each in page.items] == ["c3", "c2", "c1"]
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
        seen += [each.company_id for each in page.items]
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


def test_causes_count_each_transaction_once(store: Store) -> None:
    """Under its latest failure; a sync that failed as a whole is counted beside them."""
    locked = "The document date cannot be before the end of year lock date, currently 31-Jul-2015"
    store.failed("s1", rows=(failed_row("t1", "Oh"), failed_row("t1", "Oh"), failed_row(None)))
    store.failed("s2", at=after(hours=1), rows=(failed_row("t1", locked), failed_row("t2", "Ah")))
    store.completed("s3", at=after(hours=2), rows=(completed_row("t2"),))
    store.sync("s4", "c2", code=4040, at=after(hours=3), error_message="c2 is gone")
    with store.database.reading() as connection:
        totals = {each.cause_key: each for each in causes.list_causes(connection, CauseFilter())}
        details = causes.get_cause(connection, "unclassified", CauseFilter())
        pk = store.failed("s5", rows=(failed_row("t7"), failed_row("t8"), failed_row("t9", locked)))
    assert list(totals) == ["unclassified", "period_closed", "disconnected"]
    unclassified = totals["unclassified"]
    assert (unclassified.transactions, unclassified.open, unclassified.companies) == (2, 1, 1)
    assert (totals["disconnected"].transactions, totals["disconnected"].syncs) == (0, 1)
    assert totals["period_closed"].first_failed_at == T0
    assert totals["period_closed"].last_failed_at == after(hours=1)
    assert sorted((group.example or "", group.open) for group in details.groups) == [
        ("Account is closed", 1),
        ("Ah", 0),
    ]
    with store.database.reading() as connection:
        counts = causes.cause_counts(connection, pk)
    assert counts == [("unclassified", 2), ("period_closed", 1)]


def test_only_the_largest_groups_are_shown(store: Store) -> None:
    """The number of all groups says how many more there are."""
    rows = [failed_row(f"t{letter}", f"Strange {letter * 3}") for letter in "abcd"]
    store.failed(rows=(*rows, failed_row("more", "Strange ddd")))
    with store.database.reading() as connection:
        details = causes.get_cause(connection, "unclassified", CauseFilter(), max_groups=2)
    assert (details.group_count, len(details.groups)) == (4, 2)
    assert (details.groups[0].example, details.groups[0].transactions) == ("Strange ddd", 2)
    assert details.totals.transactions == 5
