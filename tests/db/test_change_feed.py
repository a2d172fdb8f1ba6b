"""The change feed: once each, in an order that nothing is inserted into later."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, delete, text

from app.db import change_feed
from app.db.change_feed import Change, StoredChange
from app.db.engine import Database
from app.db.pagination import Page
from app.db.tables import changes
from app.errors import BadRequest, Gone
from tests.factories import T0, after


def append(database: Database, *sync_ids: str, days: float = 0) -> None:
    with database.writing() as connection:
        add(connection, *sync_ids, days=days)


def add(connection: Connection, *sync_ids: str, days: float = 0) -> None:
    new = [Change("sync", "c1", sync_id, None, after(days=days), "{}") for sync_id in sync_ids]
    change_feed.append(connection, new)


def read(database: Database, cursor: str | None = None, limit: int = 200) -> Page[StoredChange]:
    with database.reading() as connection:
        return change_feed.read(connection, cursor, limit)


def ids(database: Database, cursor: str | None = None, limit: int = 200) -> list[str]:
    return [change.sync_id for change in read(database, cursor, limit).items]


def prune(database: Database, *, days: float, limit: int = 1000) -> int:
    with database.writing() as connection:
        return change_feed.prune(connection, after(days=days), limit)


def test_a_change_is_read_as_it_was_appended(database: Database) -> None:
    """Times become JSON."""
    with database.writing() as connection:
        change_feed.append(
            connection,
            [
                Change("sync", "c1", "s1", None, T0, change_feed.to_json({"started_at": T0})),
                Change("transaction", "c1", "s1", "t1", T0, '{"rows":[{"status":"PushError"}]}'),
            ],
        )
    first, second = read(database).items
    assert (first.kind, first.company_id, first.sync_id, first.at) == ("sync", "c1", "s1", T0)
    assert first.payload == {"started_at": "2026-01-01T09:00:00Z"}
    assert (second.kind, second.transaction_id) == ("transaction", "t1")
    assert second.payload == {"rows": [{"status": "PushError"}]}


@pytest.mark.own_database
def test_a_cursor_that_a_restore_has_lost_misses_nothing(database: Database) -> None:
    """Its ID is not given to another change; also when the backup had no change at all."""
    for cursor, lost in (("7", "s1"), ("8", "s2")):
        with database.writing() as connection:
            change_feed.skip_lost_ids(connection)
        assert read(database, cursor).items == [] or lost == "s2"
        append(database, lost)
        assert ids(database, cursor)[-1] == lost
    assert ids(database, "7") == ["s1", "s2"]


def test_changes_are_read_on_from_a_cursor_without_a_gap(database: Database) -> None:
    """In pages of any size, and later from the last page's cursor. An empty feed has none yet."""
    assert read(database) == Page([], None)
    assert read(database, "0") == Page([], "0")
    for n in range(7):
        append(database, f"s{n}")
    paged: list[str] = []
    cursor = None
    while (page := read(database, cursor, limit=3)).items:
        paged += [change.sync_id for change in page.items]
        cursor = page.next
    assert paged == ids(database) == [f"s{n}" for n in range(7)]
    assert page.next == cursor
    append(database, "later")
    assert ids(database, cursor) == ["later"]


@pytest.mark.parametrize("cursor", ["x", "", "-1", "1.0", "٣", "9" * 9, "9" * 19, "9" * 400, "W10"])
def test_a_cursor_that_was_never_given_is_refused(database: Database, cursor: str) -> None:
    """Also one of a database that was further, as before a restore: no silent gap."""
    append(database, "s1", "s2")
    with pytest.raises(BadRequest, match="after"):
        read(database, cursor)


def test_a_late_commit_is_not_skipped(database: Database) -> None:
    """A writer that began first and commits last comes last: it gets its ids at the end."""
    if database.is_sqlite:
        with database.writing():
            assert ids(database) == []  # one writer at a time
        return
    with database.writing() as slow:
        slow.execute(text("SELECT 1"))
        append(database, "fast")
        cursor = read(database).next
        add(slow, "slow")
    assert ids(database, cursor) == ["slow"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_writer_waits_for_one_that_has_appended(database: Database) -> None:
    """Otherwise a reader could see the later id first and skip the earlier one."""
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as first:
            add(first, "first")
            second = pool.submit(append, database, "second")
            time.sleep(0.3)
            assert not second.done()
            assert ids(database) == []
        second.result()
    assert ids(database) == ["first", "second"]


def test_writers_append_in_turn(database: Database) -> None:
    """A reader that follows while eight threads write sees every change once, in order."""
    done = threading.Event()
    seen: list[str] = []

    def follow() -> None:
        cursor = None
        while True:
            is_last = done.is_set()
            page = read(database, cursor, limit=7)
            seen.extend(change.sync_id for change in page.items)
            cursor = page.next
            if is_last and not page.items:
                return

    def write(n: int) -> None:
        for turn in range(10):
            append(database, f"{n}-{turn}-a", f"{n}-{turn}-b")

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen == ids(database, limit=1000)
    assert len(seen) == len(set(seen)) == 160
    mine = [sync_id for sync_id in seen if sync_id.startswith("3-")]
    assert mine == [f"3-{turn}-{part}" for turn in range(10) for part in "ab"]


def test_nothing_to_append_takes_no_lock(database: Database) -> None:
    with database.writing() as connection:
        change_feed.append(connection, [])
        if not database.is_sqlite:
            append(database, "s1")
            assert ids(database) == ["s1"]
    assert ids(database) == ([] if database.is_sqlite else ["s1"])


def test_a_cursor_older_than_retention_is_gone(database: Database) -> None:
    """Never a silent gap. The one at the horizon still misses nothing."""
    append(database, "s1", "s2", "s3")
    append(database, "s4", days=2)
    first, second, third, _ = (change.cursor for change in read(database).items)
    assert prune(database, days=1, limit=2) == 2
    for cursor in ("0", first):
        with pytest.raises(Gone):
            read(database, cursor)
    assert ids(database, second) == ids(database) == ["s3", "s4"]
    assert prune(database, days=1) == 1
    assert prune(database, days=1) == 0
    with pytest.raises(Gone):
        read(database, second)
    assert ids(database, third) == ["s4"]


@pytest.mark.parametrize("is_erased", [False, True])
def test_cursors_stay_right_when_all_changes_are_pruned(
    database: Database, is_erased: bool
) -> None:
    """Or erased: ids are never used again."""
    append(database, "s1", "s2")
    last = read(database).next
    if is_erased:
        with database.writing() as connection:
            connection.execute(delete(changes))
    else:
        assert prune(database, days=1) == 2
    assert read(database, last) == Page([], last)
    append(database, "s3")
    assert ids(database, last) == ["s3"]


def test_pruning_stops_at_the_first_young_change(database: Database) -> None:
    """A clock that jumped back must not make a gap."""
    append(database, "young", days=3)
    append(database, "old")
    assert prune(database, days=1) == 0
    assert ids(database) == ["young", "old"]
