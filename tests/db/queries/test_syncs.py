"""Reads of syncs: paging that loses nothing, own time before arrival, search."""

import random
import uuid
from datetime import datetime
from typing import get_args

import pytest

from app.db import caused
from app.db.engine import Database
from app.db.queries import syncs as queries
from app.db.queries.syncs import SyncFilter
from app.domain.sync_state import Heard
from app.errors import BadRequest, Conflicting, NotKnown
from app.web.api.query_params import Sort
from tests.web.shelf import T0, Shelf, after, failed_item

SORTS = get_args(Sort)


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Fills the database."""
    return Shelf(database)


def walk(database: Database, sort: str, limit: int, wanted: SyncFilter = SyncFilter()) -> list[str]:  # noqa: B008  # frozen
    """All sync ids in order, page by page, each page in a transaction of its own."""
    seen: list[str] = []
    cursor = None
    while True:
        with database.reading() as connection:
            page = queries.list_syncs(connection, wanted, sort=sort, cursor=cursor, limit=limit)
        assert len(page.items) <= limit
        seen += [kept.sync.sync_id for kept in page.items]
        cursor = page.next
        if cursor is None:
            return seen


def found(database: Database, **wanted: object) -> list[str]:
    """The sync ids a filter finds, sorted."""
    with database.reading() as connection:
        page = queries.list_syncs(connection, SyncFilter(**wanted), limit=200)  # type: ignore[arg-type]  # by name
    return sorted(kept.sync.sync_id for kept in page.items)


def test_every_sort_walks_every_sync_exactly_once(shelf: Shelf) -> None:
    """With ties and unknown values in all columns, and any page size."""
    luck = random.Random(7)
    whole = {f"s{n}" for n in range(23)}
    times: list[datetime | None] = [None, T0, after(hours=1)]
    for sync_id in sorted(whole):
        shelf.sync(
            sync_id,
            luck.choice(["c1", "c2"]),
            at=luck.choice(times),
            code=luck.choice([None, 2000, 5130]),
            updated_at=luck.choice([T0, after(minutes=1)]),
        )
    for sort in SORTS:
        for limit in (1, 4, 23, 50):
            seen = walk(shelf.database, sort, limit)
            assert len(seen) == 23, (sort, limit)
            assert set(seen) == whole, (sort, limit)


@pytest.mark.parametrize("sort", ["started_at", "-started_at", "status_code", "-finished_at"])
def test_unknown_values_come_last_in_both_directions(shelf: Shelf, sort: str) -> None:
    """Although the two databases sort NULL differently."""
    shelf.sync("unknown", at=None)
    shelf.sync("later", at=after(hours=2), code=5130)
    shelf.sync("sooner", at=T0, code=2000)
    known = ["later", "sooner"] if sort.startswith("-") else ["sooner", "later"]
    assert walk(shelf.database, sort, 1) == [*known, "unknown"]


def test_a_sync_that_comes_in_while_somebody_pages_moves_nothing(shelf: Shelf) -> None:
    """Paging by key, not by count."""
    for n in range(4):
        shelf.sync(f"s{n}", updated_at=after(minutes=n))
    with shelf.database.reading() as connection:
        first = queries.list_syncs(connection, SyncFilter(), limit=2)
    shelf.sync("new", updated_at=after(hours=1))
    with shelf.database.reading() as connection:
        second = queries.list_syncs(connection, SyncFilter(), limit=2, cursor=first.next)
    assert [k.sync.sync_id for k in (*first.items, *second.items)] == ["s3", "s2", "s1", "s0"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "e30", "bnVsbA", "W10", "WyJzeW5jczpib3RoIiwxXQ", "é", "W" * 3999, "//8"]
)
def test_a_wrong_cursor_is_refused_by_name(shelf: Shelf, cursor: str) -> None:
    """Whatever it holds."""
    with shelf.database.reading() as connection, pytest.raises(BadRequest) as caught:
        queries.list_syncs(connection, SyncFilter(), cursor=cursor)
    assert caught.value.name == "cursor"


def test_a_cursor_of_another_sort_is_refused(shelf: Shelf) -> None:
    """Its values would mean something else."""
    for n in range(3):
        shelf.sync(f"s{n}")
    with shelf.database.reading() as connection:
        cursor = queries.list_syncs(connection, SyncFilter(), limit=1).next
        with pytest.raises(BadRequest):
            queries.list_syncs(connection, SyncFilter(), sort="updated_at", cursor=cursor)


def test_filters_narrow_and_combine(shelf: Shelf) -> None:
    """Each by itself, several values of one, and two together."""
    shelf.failed("f1", "c1", at=T0)
    shelf.done("d2", "c2", at=after(days=1))
    shelf.sync("r2", "c2", at=after(days=2))
    database = shelf.database
    assert found(database, company_id="c2") == ["d2", "r2"]
    assert found(database, states=["failed"]) == ["f1"]
    assert found(database, outcomes=["all_written", "failed"]) == ["d2", "f1"]
    assert found(database, status_codes=[2000]) == ["d2"]
    assert found(database, cause="unclassified") == ["f1"]
    assert found(database, since=after(days=1), until=after(days=2)) == ["d2"]
    assert found(database, company_id="c2", states=["started"]) == ["r2"]
    assert found(database, company_id="nobody") == []


@pytest.mark.parametrize("few", [0, caused.FEW])
def test_a_cause_is_found_whether_few_or_many_have_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Of one of its transactions, or of the sync as a whole; by both ways, page by page."""
    monkeypatch.setattr(caused, "FEW", few)
    closed = (failed_item("t1", "Bank account is closed"), failed_item("t2", "Oh"))
    shelf.failed("f1", "c1", at=T0, items=closed)
    shelf.failed("f2", "c2", at=after(days=1), items=(failed_item("t3", "Oh"),))
    shelf.failed("f3", "c2", at=after(days=2), items=closed)
    shelf.failed("f4", "c2", at=after(days=3), code=4000, items=None)
    shelf.done("d1", "c1")
    with shelf.database.reading() as connection:
        whole = queries.get_sync(connection, "f4").cause
    causes = {"unclassified": ["f1", "f2", "f3"], whole: ["f4"], "never_seen": []}
    for cause, syncs in causes.items():
        assert walk(shelf.database, "started_at", 1, SyncFilter(cause=cause)) == syncs


def test_search_finds_ids_and_the_beginning_of_a_name(shelf: Shelf) -> None:
    """Exactly one of the four ids, or a name in any case; a wildcard is no wildcard."""
    shelf.company("c1", "Ring & Sons 100%")
    shelf.company("c2", "Toft stores")
    shelf.failed("s1", "c1", items=(failed_item("t9"),))
    shelf.done("s2", "c2")
    database = shelf.database
    for q in ("s1", "c1", "t9", "corr-t9", "RING", "ring & sons 100%"):
        assert found(database, q=q) == ["s1"], q
    for q in ("sons", "s", "r%", "t", "_ing", "%"):
        assert found(database, q=q) == (["s2"] if q == "t" else []), q


def test_search_finds_an_id_that_was_pasted_in_capitals(shelf: Shelf) -> None:
    """Some systems show the same id so; an id that Codat writes in capitals is found as it is."""
    small, large = str(uuid.uuid4()), str(uuid.uuid4()).upper()
    own = str(uuid.uuid4())
    shelf.failed(small, items=(failed_item(own),))
    shelf.done(large)
    for q, sync_id in ((small.upper(), small), (own.upper(), small), (large, large)):
        assert found(shelf.database, q=q) == [sync_id]


def test_search_finds_more_companies_than_a_list_holds(shelf: Shelf) -> None:
    """A short beginning may name very many."""
    for n in range(60):
        shelf.company(f"c{n}", f"Shop {n}")
        shelf.sync(f"s{n}", f"c{n}")
    assert len(found(shelf.database, q="shop")) == 60


def test_one_id_in_two_companies_asks_for_the_company(shelf: Shelf) -> None:
    """The pair is a sync's identity."""
    shelf.done("s1", "c1")
    shelf.failed("s1", "c2")
    with shelf.database.reading() as connection:
        with pytest.raises(Conflicting, match="company_id"):
            queries.get_sync(connection, "s1")
        assert queries.get_sync(connection, "s1", "c2").sync.state == "failed"
        with pytest.raises(NotKnown):
            queries.get_sync(connection, "s1", "c3")


def test_latest_is_newest_by_codats_time_and_not_by_arrival(shelf: Shelf) -> None:
    """An old sync that is heard of late is not the latest."""
    shelf.done("new", at=after(hours=2), updated_at=after(hours=3))
    shelf.failed("old", at=T0, updated_at=after(hours=9))
    with shelf.database.reading() as connection:
        assert queries.latest_sync(connection, "c1").sync.sync_id == "new"


def test_the_last_successful_sync_is_proved_and_newest(shelf: Shelf) -> None:
    """Neither a failed one nor one whose list is not proved counts; no data to write does."""
    shelf.done("first", at=T0)
    shelf.sync("nothing", code=2040, at=after(hours=1), items=())
    shelf.sync("unproved", at=after(hours=2), heard=Heard.COMPLETED, unsettled=Heard.COMPLETED)
    shelf.failed("bad", at=after(hours=3))
    with shelf.database.reading() as connection:
        assert queries.last_successful_sync(connection, "c1").sync.sync_id == "nothing"
        with pytest.raises(NotKnown):
            queries.last_successful_sync(connection, "c2")


def test_a_running_fetch_has_no_next_attempt(shelf: Shelf) -> None:
    """While leased, `due` is the end of the lease and no promise."""
    waiting, running = shelf.failed("waiting", items=None), shelf.failed("running", items=None)
    shelf.fetch(waiting, due=after(hours=1), attempts=2, last_error="503")
    shelf.fetch(running, due=after(hours=1), token="mine", attempts=3)
    with shelf.database.reading() as connection:
        fetch = queries.get_sync(connection, "waiting").fetch
        assert fetch is not None
        assert (fetch.next_attempt_at, fetch.attempts) == (after(hours=1), 2)
        fetch = queries.get_sync(connection, "running").fetch
        assert fetch is not None
        assert fetch.next_attempt_at is None
