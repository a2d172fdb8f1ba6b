"""The feed of changes: once each, in an order that nothing can come in behind."""

import json
from typing import Any

import pytest
from sqlalchemy import Connection, select, text, update

from app.db import change_feed as changes
from app.db import journal
from app.db import migrations as schema
from app.db.bulk import write
from app.db.change_feed import Change, KeptChange
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables_told import changes as kept
from app.domain.models import Item
from app.errors import BadRequest
from tests.reports import COMPLETED, FAILED, STARTED, T0, after, delivery
from tests.worker.tasks.test_reconcile import Lister, reconcile, status
from tests.worker.test_fetcher import FakeCodat, fetch

BAD, DONE = Item("t1", "PushError", "closed", "expense"), Item("t1", "Completed", None, "expense")


def tell(database: Database, *ids: str, event: str = FAILED, **more: Any) -> None:
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m-{each}", event, sync_id=each, **more) for each in ids])


def read(database: Database, cursor: str | None = None, limit: int = 200) -> list[KeptChange]:
    with journal.caught_up(database) as connection:
        return changes.read_changes(connection, cursor, limit).items


def seen(database: Database) -> list[tuple[str, str | None, Any]]:
    found: list[tuple[str, str | None, Any]] = []
    for each in read(database):
        told = json.loads(each.told)
        short = told["state"] if each.kind == "sync" else [row["status"] for row in told["rows"]]
        found.append((each.kind, each.transaction_id, short))
    return found


def test_a_change_is_told_once_and_a_repetition_is_no_change(database: Database) -> None:
    """The same news under another message id looks the same to others."""
    tell(database, "s1", event=STARTED)
    with database.writing() as connection:
        keep_all(connection, [delivery("again", STARTED, at=after(minutes=1))])
        keep_all(connection, [delivery("again", STARTED, at=after(minutes=1))])
    tell(database, "s1", event=STARTED)
    with database.writing() as connection:
        keep_all(connection, [delivery("end", FAILED, at=after(minutes=2))])
    assert seen(database) == [("sync", None, "started"), ("sync", None, "failed")]


def test_codats_answer_changes_the_sync_and_each_transaction_that_differs(
    database: Database,
) -> None:
    """Those that stay as they were are not told again; one that is gone has no rows."""
    tell(database, "s1", event=FAILED, items=(BAD, Item("t2", "Completed"), Item("t9", "Pending")))
    fetch(database, FakeCodat(items=(DONE, Item("t2", "Completed"), Item("t3", "PushError"))))
    told = seen(database)
    assert told[:4] == [
        ("sync", None, "failed"),
        ("transaction", "t1", ["PushError"]),
        ("transaction", "t2", ["Completed"]),
        ("transaction", "t9", ["Pending"]),
    ]
    assert told[4] == ("sync", None, "failed")
    assert sorted(told[5:], key=str) == [
        ("transaction", "t1", ["Completed"]),
        ("transaction", "t3", ["PushError"]),
        ("transaction", "t9", []),
    ]


def test_a_failure_that_codat_withdraws_takes_its_stage_along(database: Database) -> None:
    """It was true while a webhook said so; all written and failed while pushing cannot be."""
    tell(database, "s1", event=FAILED, failure_stage="Pushing")
    fetch(database, FakeCodat(code=2000, items=(DONE,)))
    told = [json.loads(each.told) for each in read(database) if each.kind == "sync"]
    assert [(each["state"], each["failure_stage"]) for each in told] == [
        ("failed", "Pushing"),
        ("completed", None),
    ]


def test_a_sync_that_only_codats_list_tells_of_is_a_change(database: Database) -> None:
    """No webhook announced it."""
    reconcile(database, Lister({"c1": [status("s7")]}))
    assert [(each.kind, each.sync_id) for each in read(database)] == [("sync", "s7")]


def test_changes_are_read_on_from_a_cursor_without_a_gap(database: Database) -> None:
    """In pages of any size, the same in every page size."""
    for n in range(7):
        tell(database, f"s{n}")
    everything = [each.sync_id for each in read(database)]
    assert everything == [f"s{n}" for n in range(7)]
    paged: list[str] = []
    cursor = None
    while page := read(database, cursor, limit=3):
        paged += [each.sync_id for each in page]
        cursor = page[-1].cursor
    assert paged == everything
    tell(database, "later")
    assert [each.sync_id for each in read(database, cursor)] == ["later"]


@pytest.mark.parametrize("cursor", ["x", "WyJzeW5jcyIsMSwyXQ", "W10", "WyJjaGFuZ2VzIiwxXQ"])
def test_a_cursor_of_something_else_is_refused(database: Database, cursor: str) -> None:
    """Naming the parameter."""
    with pytest.raises(BadRequest, match="after"):
        read(database, cursor)


def test_a_change_that_commits_late_is_not_skipped(database: Database) -> None:
    """Two at once, as beside an older version: the later id commits first, and must wait."""
    if database.is_sqlite:
        with database.writing():
            assert read(database) == []  # one writer at a time: there is nothing to wait for
        return
    with database.writing() as slow:
        write_down(slow, "slow")
        with database.writing() as fast:
            write_down(fast, "fast")
        assert ids(slow) == ["slow", "fast"]  # it could be read, but something may come before it
        assert read(database) == []
    told = read(database)
    assert sorted(each.sync_id for each in told) == ["fast", "slow"]
    assert [each.sync_id for each in read(database, told[0].cursor)] == [told[1].sync_id]


def test_a_low_id_that_commits_after_a_high_one_comes_after_it_for_a_reader(
    database: Database,
) -> None:
    """The reader has already gone past the high id: by id alone the low one would be lost."""
    if database.is_sqlite:
        tell(database, "s1")
        assert len(read(database)) == 1
        return
    with database.writing() as late:
        late.execute(text("SELECT 1"))  # it has begun, and has no number yet
        tell(database, "s-high")
        cursor = read(database)[-1].cursor
        write_down(late, "s-low")
        late.execute(update(kept).where(kept.c.sync_id == "s-low").values(id=0))
    assert [each.sync_id for each in read(database, cursor)] == ["s-low"]


def write_down(connection: Connection, sync_id: str) -> None:
    write(connection, changes.written([Change("sync", "c1", sync_id, None, T0, {})]))


def ids(connection: Connection) -> list[str]:
    return list(connection.execute(select(kept.c.sync_id).order_by(kept.c.id)).scalars())


def test_what_is_rolled_back_was_never_a_change(database: Database) -> None:
    """It is written with what it tells."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1")])
        connection.get_transaction().rollback()  # type: ignore[union-attr]  # one is open
    assert read(database) == []


def test_old_changes_are_forgotten_and_cursors_stay_right(database: Database) -> None:
    """Even when all are gone: ids are never used again."""
    tell(database, "old", at=T0)
    tell(database, "new", at=after(days=2))
    assert len(read(database)) == 2
    with database.writing() as connection:
        assert changes.forget_changes(connection, after(days=1)) == 1
    last = read(database)
    assert [each.sync_id for each in last] == ["new"]
    with database.writing() as connection:
        assert changes.forget_changes(connection, after(days=3)) == 1
        assert changes.forget_changes(connection, after(days=3)) == 0
    tell(database, "newest", at=after(days=4))
    assert [each.sync_id for each in read(database, last[0].cursor)] == ["newest"]


def test_the_order_goes_on_in_another_postgresql(database: Database) -> None:
    """A restored dump comes from a server that had counted further; `migrate` lifts the count."""
    tell(database, "before", event=COMPLETED)
    if database.is_sqlite:
        schema.migrate(database)
        assert len(read(database)) == 1
        return
    assert len(read(database)) == 1
    with database.writing() as connection:
        connection.execute(update(kept).values(txid=10**12))
    assert read(database) == []
    schema.migrate(database)
    (first,) = read(database)
    tell(database, "after")
    assert [each.sync_id for each in read(database, first.cursor)] == ["after"]
    schema.migrate(database)
    tell(database, "last")
    assert [each.sync_id for each in read(database, first.cursor)] == ["after", "last"]
