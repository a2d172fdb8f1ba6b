"""Lists of syncs: sort orders, pages, filters, search; the latest syncs of a company."""

import random
from datetime import datetime
from typing import Any, get_args

import pytest

from app.db.engine import Database
from app.db.queries import access_paths, causes, syncs, transactions
from app.db.queries.syncs import SyncFilter
from app.db.queries.transactions import TransactionFilter
from app.domain.models import Transaction
from app.errors import BadRequest, NotFound
from app.web.api.query_params import Sort
from tests.web.store import T0, Store, after, completed_row, failed_row

SORTS = get_args(get_args(Sort.__value__)[0])
EVERYTHING = SyncFilter()


def walk(database: Database, sort: str, limit: int, criteria: SyncFilter = EVERYTHING) -> list[str]:
    """All sync ids in order, page by page, each page in a transaction of its own."""
    seen: list[str] = []
    cursor = None
    while True:
        with database.reading() as connection:
            page = syncs.list_syncs(connection, criteria, sort=sort, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        seen += [record.sync.sync_id for record in page.items]
        cursor = page.next
        if cursor is None:
            return seen


def found(database: Database, **criteria: Any) -> list[str]:
    """The sync ids that a filter selects, sorted."""
    with database.reading() as connection:
        page = syncs.list_syncs(connection, SyncFilter(**criteria), limit=200)
    return sorted(record.sync.sync_id for record in page.items)


def fill(store: Store, count: int, seed: int) -> None:
    """Syncs with ties and unknown values in every column that lists are sorted by."""
    chance = random.Random(seed)
    for n in range(count):
        starts: list[datetime | None] = [None, T0, after(hours=1), after(days=-2)]
        store.sync(
            f"s{n}",
            chance.choice(["c1", "c2"]),
            code=chance.choice([None, 2000, 5130]),
            rows=chance.choice([None, (failed_row(),), (failed_row("t2", "The account closed"),)]),
            updated_at=chance.choice([T0, after(minutes=1)]),
            reported_started_at=chance.choice(starts),
            sync_utc=None,
        )


def test_every_sort_order_pages_through_every_sync_once(store: Store) -> None:
    fill(store, 16, seed=7)
    for sort in SORTS:
        for limit in (1, 4, 50):
            seen = walk(store.database, sort, limit)
            assert len(seen) == 16, (sort, limit)
            assert set(seen) == {f"s{n}" for n in range(16)}, (sort, limit)


FILTERS = [
    {"since": after(hours=-20), "until": after(hours=1, minutes=1)},
    {"until": after(hours=1), "states": ["failed"]},
    {"since": after(hours=-1), "cause": "unclassified"},
    {"states": ["failed", "started"], "status_codes": [5130, 2000]},
    {"company_id": "c1", "states": ["started", "completed"]},
    {"company_id": "c1", "since": T0},
    {"outcomes": ["failed"], "status_codes": [5130]},
    {"cause": "unclassified", "q": "c2"},
    {"q": "toft"},
]


@pytest.mark.parametrize("criteria", FILTERS)
def test_both_access_paths_give_the_same_list(
    store: Store, monkeypatch: pytest.MonkeyPatch, criteria: dict[str, Any]
) -> None:
    """Looked up and sorted, or read in the order of the list."""
    store.company("c2", "Toft stores")
    fill(store, 16, seed=11)
    for sort in SORTS:
        looked_up = walk(store.database, sort, 5, SyncFilter(**criteria))
        with monkeypatch.context() as patch:
            patch.setattr(access_paths, "FEW", -1)
            patch.setattr(syncs, "FEW_IN_RANGE", -1)
            read_in_order = walk(store.database, sort, 5, SyncFilter(**criteria))
        assert looked_up == read_in_order, sort
        assert 0 < len(looked_up) < 16


def test_every_sort_order_pages_back_to_the_first_sync(store: Store) -> None:
    fill(store, 16, seed=7)
    for sort in SORTS:
        pages, cursor = [], None
        with store.database.reading() as connection:
            while True:
                page = syncs.list_syncs(connection, EVERYTHING, sort=sort, cursor=cursor, limit=3)
                pages.append([record.pk for record in page.items])
                assert (page.previous is None) == (len(pages) == 1)
                cursor = page.next
                if cursor is None:
                    break
            for expected in reversed(pages[:-1]):
                page = syncs.list_syncs(
                    connection, EVERYTHING, sort=sort, cursor=page.previous, limit=3
                )
                assert [record.pk for record in page.items] == expected, sort
                assert page.next is not None
            assert page.previous is None


@pytest.mark.parametrize("criteria", FILTERS)
def test_the_syncs_of_a_filter_are_counted_unless_that_takes_long(
    store: Store, monkeypatch: pytest.MonkeyPatch, criteria: dict[str, Any]
) -> None:
    store.company("c2", "Toft stores")
    fill(store, 16, seed=11)
    chosen = SyncFilter(**criteria)
    with store.database.reading() as connection:
        found = len(walk(store.database, "updated_at", 50, chosen))
        assert syncs.count_syncs(connection, chosen) == found
        monkeypatch.setattr(access_paths, "FEW", 0)
        monkeypatch.setattr(syncs, "FEW_IN_RANGE", 0)
        assert syncs.count_syncs(connection, chosen) is None


@pytest.mark.parametrize("sort", ["started_at", "-started_at", "status_code", "-finished_at"])
def test_unknown_values_are_last_in_both_directions(store: Store, sort: str) -> None:
    """Although the two databases sort NULL differently."""
    store.sync("unknown", reported_started_at=None)
    store.sync("later", at=after(hours=2), code=5130)
    store.sync("sooner", at=T0, code=2000)
    known = ["later", "sooner"] if sort.startswith("-") else ["sooner", "later"]
    assert walk(store.database, sort, 1) == [*known, "unknown"]


def test_a_new_sync_shifts_no_page(store: Store) -> None:
    for n in range(4):
        store.sync(f"s{n}", updated_at=after(minutes=n))
    with store.database.reading() as connection:
        first = syncs.list_syncs(connection, EVERYTHING, limit=2)
    store.sync("new", updated_at=after(hours=1))
    with store.database.reading() as connection:
        second = syncs.list_syncs(connection, EVERYTHING, limit=2, cursor=first.next)
    seen = [record.sync.sync_id for record in (*first.items, *second.items)]
    assert seen == ["s3", "s2", "s1", "s0"]


@pytest.mark.parametrize(
    "cursor",
    ["other", "", "x", "e30", "bnVsbA", "W10", "WyJzeW5jczpib3RoIiwxXQ", "é", "W" * 3999, "//8"],
)
def test_an_invalid_cursor_is_named(store: Store, cursor: str) -> None:
    """Also one of another sort order."""
    if cursor == "other":
        store.sync("s1")
        store.sync("s2")
        with store.database.reading() as connection:
            found = syncs.list_syncs(connection, EVERYTHING, sort="updated_at", limit=1)
        cursor = found.next or ""
    with store.database.reading() as connection, pytest.raises(BadRequest) as caught:
        syncs.list_syncs(connection, EVERYTHING, cursor=cursor)
    assert caught.value.name == "cursor"


def test_filters_combine(store: Store) -> None:
    store.failed("f1", "c1", at=T0)
    store.completed("d2", "c2", at=after(days=1))
    store.sync("r2", "c2", at=after(days=2))
    database = store.database
    assert found(database, company_id="c2") == ["d2", "r2"]
    assert found(database, states=["failed"]) == ["f1"]
    assert found(database, states=["started", "completed"]) == ["d2", "r2"]
    assert found(database, outcomes=["all_written", "failed"]) == ["d2", "f1"]
    assert found(database, status_codes=[2000]) == ["d2"]
    assert found(database, cause="unclassified") == ["f1"]
    assert found(database, since=after(days=1), until=after(days=2)) == ["d2"]
    assert found(database, company_id="c2", states=["started"]) == ["r2"]
    assert found(database, states=["completed"], outcomes=["failed"]) == []
    assert found(database, company_id="nobody") == []


def test_a_state_and_its_outcomes_are_told_apart(store: Store) -> None:
    """`unknown` is the outcome of a completed sync that is not proved, and of an unknown code."""
    store.sync("unproved", completed_received_at=T0)
    store.sync("odd", code=7000)
    assert found(store.database, outcomes=["unknown"]) == ["odd", "unproved"]
    assert found(store.database, states=["completed"]) == ["unproved"]
    assert found(store.database, states=["started"]) == ["odd"]


def test_a_cause_selects_syncs_by_their_transactions_or_their_own(store: Store) -> None:
    store.failed("f1", rows=(failed_row("t1", "The account is closed"), failed_row("t2", "Oh")))
    store.failed("f2", rows=(failed_row("t3", "Oh"),))
    store.failed("f3", code=4000, rows=None)
    store.completed("d1")
    with store.database.reading() as connection:
        whole = syncs.get_sync(connection, "f3").cause_key
    assert found(store.database, cause="unclassified") == ["f1", "f2"]
    assert found(store.database, cause=whole) == ["f3"]
    assert found(store.database, cause="never_seen") == []


def test_the_last_successful_sync_is_proved_and_newest(store: Store) -> None:
    """A sync without data to write counts; a failed or an unproved one does not."""
    store.completed("first", at=T0)
    store.sync("nothing", code=2040, at=after(hours=1), rows=())
    store.sync("unproved", at=after(hours=2), completed_received_at=T0)
    store.failed("bad", at=after(hours=3))
    with store.database.reading() as connection:
        assert syncs.last_successful_sync(connection, "c1").sync.sync_id == "nothing"
        with pytest.raises(NotFound):
            syncs.last_successful_sync(connection, "c2")


def test_a_complete_failure_is_open_until_a_later_sync_succeeds(store: Store) -> None:
    store.failed("s1", code=4000, rows=None, at=T0)
    store.failed("s2", at=after(hours=1))

    def open_failure() -> str | None:
        with store.database.reading() as connection:
            record = syncs.open_whole_failure(connection, "c1")
        return record.sync.sync_id if record else None

    assert open_failure() == "s1"
    store.completed("s3", at=after(hours=2), rows=(completed_row("t9"),))
    assert open_failure() is None


def test_the_open_rows_of_a_sync_are_those_that_no_later_sync_has_completed(store: Store) -> None:
    """Also where a transaction failed again, was completed in between, or has several rows."""
    chance = random.Random(3)
    statuses = ["PushError", "PushError", "Completed", " completed", "Pending", None, "Odd"]
    for n in range(60):
        rows = tuple(
            Transaction(chance.choice(["t1", "t2", "t3", None]), chance.choice(statuses))
            for _ in range(chance.randint(0, 5))
        )
        company_id = chance.choice(["c1", "c2"])
        store.sync(f"s{n}", company_id, code=5130, rows=rows, at=after(hours=chance.randint(0, 20)))
    with store.database.reading() as connection:
        records = syncs.list_syncs(connection, EVERYTHING, limit=200).items
        for record in records:
            rows_of_sync = transactions.list_transactions(
                connection, record.pk, TransactionFilter(failed=True)
            ).items
            is_open = [row for row in rows_of_sync if row.resolved_by is None]
            assert record.open_failures == len(is_open)
            counts = causes.cause_counts(connection, [record.pk])[record.pk]
            assert sum(number_open for *_, number_open in counts) == len(is_open)
            assert sum(number for _, number, _ in counts) == len(rows_of_sync)
    assert {record.open_failures for record in records} >= {0, 1, 2}
