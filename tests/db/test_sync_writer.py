"""Writing syncs: what follows of a list, its order and its sync's code; and the lock before it."""

import threading
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, select, text

from app.db import change_feed, failed_transactions, outgoing
from app.db.engine import Database, open_database
from app.db.sync_writer import SyncWrite, load_syncs, lock_companies, write_syncs
from app.db.tables import companies
from app.db.tables import failed_transactions as failed_table
from app.domain.models import SYNC_COMPLETED, Transaction
from app.domain.sync_state import Sync, with_transactions
from tests.db.stored import COMPLETED_ROW, FAILED_ROW, answered, reported, write
from tests.factories import T0, after, deliver, sync_row, transaction_rows

LIST = (Transaction("t1", "Failed"), Transaction("t2", "Completed"))


def failures(database: Database) -> list[tuple[Any, ...]]:
    names = ("transaction_id", "cause_key", "resolved_by")
    with database.reading() as connection:
        columns = [failed_table.c[name] for name in names]
        rows = select(*columns).order_by(failed_table.c.transaction_id)
        return list(map(tuple, connection.execute(rows)))


def test_a_new_code_decides_causes_again_though_no_list_came(database: Database) -> None:
    """The list is refused, the status is not: its code is the cause where a message is empty."""
    deliver(database, "m1", transactions=[{"id": "t1", "status": "Failed"}])
    assert failures(database) == [("t1", "unclassified", None)]
    with database.writing() as connection:
        lock_companies(connection, ["c1"])
        before = load_syncs(connection, [("c1", "s1")])["c1", "s1"]
        write_syncs(connection, [SyncWrite(before, before.sync._replace(status_code=4260))], now=T0)
    assert transaction_rows(database)[0]["cause_key"] == "subscription_ended"
    assert failures(database) == [("t1", "subscription_ended", None)]


def test_an_unchanged_list_is_not_written_again(database: Database) -> None:
    write(database, answered(reported(), *LIST), *LIST)
    ids = [row["id"] for row in transaction_rows(database)]
    write(database, answered(reported(), *LIST, at=after(hours=1)), *LIST)
    assert [row["id"] for row in transaction_rows(database)] == ids
    write(database, answered(reported(), *LIST[:1]), *LIST[:1])
    assert [row["transaction_id"] for row in transaction_rows(database)] == ["t1"]


def test_a_change_of_a_list_has_the_rows_of_one_transaction(database: Database) -> None:
    write(database, answered(reported(), *LIST), *LIST)
    changed = (LIST[0], Transaction("t2", "Failed", "No"), Transaction("t2", "Completed"))
    write(database, answered(reported(), *changed), *changed)
    with database.reading() as connection:
        items = change_feed.read(connection, None, 10).items
    feed = [
        (change.transaction_id, [row["status"] for row in change.payload["rows"]])
        for change in items
        if change.transaction_id
    ]
    assert feed == [("t1", ["Failed"]), ("t2", ["Completed"]), ("t2", ["Failed", "Completed"])]
    assert set(items[-1].payload["rows"][0]) == {
        *("integration_type", "status", "message", "failed", "correlation_id"),
    }


def test_an_ordinary_answer_reads_no_history(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest sync of a company: what is stored of its transactions says enough. Only messages
    about failures say more.
    """
    monkeypatch.setattr(outgoing, "sync_ended", lambda *_: None)
    monkeypatch.setattr(outgoing, "transactions_resolved", lambda *_: None)
    write(database, answered(reported("s0"), *LIST), *LIST)
    statements: list[str] = []

    def record(_c: object, _k: object, statement: str, *_: object) -> None:
        statements.append(statement)

    rows = [Transaction("t1", "Completed"), *(Transaction(f"n{n}", "Failed") for n in range(9))]
    event.listen(database.engine, "before_cursor_execute", record)
    try:
        write(database, answered(reported("s1", at=after(days=1)), *rows), *rows)
    finally:
        event.remove(database.engine, "before_cursor_execute", record)
    assert not [text for text in statements if "FROM transactions JOIN syncs" in text]
    assert failures(database) == [*((f"n{n}", "unclassified", None) for n in range(9)),
                                  ("t1", "unclassified", "s1")]  # fmt: skip


def test_a_sync_that_moves_takes_its_earlier_failure_along(database: Database) -> None:
    """Also where the stored failure is another sync's, and only its beginning was this one's."""
    for sync_id, at in (("moving", after(days=-1)), ("staying", T0)):
        write(database, answered(reported(sync_id, at=at), FAILED_ROW, at=at), FAILED_ROW)
    at = after(days=2)
    moved = answered(reported("moving", SYNC_COMPLETED, at=at), COMPLETED_ROW, code=2000, at=at)
    write(database, moved, COMPLETED_ROW)
    with database.reading() as connection:
        (row,) = connection.execute(select(failed_table))
        assert (row.first_failed_at, row.resolved_by) == (T0, "moving")
        assert failed_transactions.is_current(connection, {("c1", "t1")})


@pytest.mark.parametrize("seed", range(2))
def test_failures_are_always_what_the_whole_history_says(database: Database, seed: int) -> None:
    """Whatever is written in whatever order: moved syncs, other codes, lists that shrink.

    Two companies with the same ids of transactions at a time, so that few writes meet often.
    """
    random = Random(seed)
    for history in range(12):
        company_ids = (f"c{history}", f"d{history}")
        keys = {(company_id, key) for company_id in company_ids for key in ("t1", "t2")}
        with database.writing() as connection:
            for _ in range(10):
                _write_randomly(connection, company_ids, random)
                assert failed_transactions.is_current(connection, keys)


def _write_randomly(connection: Connection, company_ids: Sequence[str], random: Random) -> None:
    lock_companies(connection, company_ids)
    possible = [(company_id, f"s{n}") for company_id in company_ids for n in range(3)]
    keys = random.sample(possible, random.choice([1, 1, 2, 3]))
    stored = load_syncs(connection, keys)
    writes = []
    for key in keys:
        before = stored.get(key)
        sync = before.sync if before else Sync(*key, first_seen_at=T0, status_code=2000)
        if before is None or random.random() < 0.3:
            sync = sync._replace(codat_started_at=after(hours=random.randrange(5)))
        if random.random() < 0.2:
            sync = sync._replace(status_code=random.choice([2000, 4260]))
        listed = None
        if before is None or random.random() < 0.7:
            listed = [
                Transaction(
                    random.choice(["t1", "t1", "t2", None]),
                    random.choice(["Failed", "Failed", "Completed", "Completed", "Other"]),
                )
                for _ in range(random.randrange(4))
            ]
            sync = with_transactions(sync, listed, source="codat", at=T0)
        writes.append(SyncWrite(before, sync, listed))
    write_syncs(connection, writes, now=T0)


def test_a_company_that_is_erased_meanwhile_is_locked_all_the_same(postgresql_url: str) -> None:
    """The erasure holds the row, a writer waits for it, and the row is gone."""
    database = open_database(postgresql_url)
    deliver(database, "m1")
    with database.writing() as erasing:
        erasing.execute(select(companies).with_for_update()).all()
        is_waiting = threading.Event()
        locked: list[str] = []

        def lock() -> None:
            with database.writing() as connection:
                is_waiting.set()
                lock_companies(connection, ["c1", "c2"])
                locked.extend(connection.execute(select(companies.c.company_id)).scalars())

        thread = threading.Thread(target=lock)
        thread.start()
        is_waiting.wait()
        _wait_for_a_blocked_query(database)
        erasing.execute(delete(companies).where(companies.c.company_id == "c1"))
    thread.join()
    database.close()
    assert sorted(locked) == ["c1", "c2"]


def _wait_for_a_blocked_query(database: Database) -> None:
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with database.reading() as connection:
        while not connection.execute(waiting).scalar():
            connection.rollback()


def test_long_lists_are_written_in_chunks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.many_rows.MAX_ROWS", 3)
    rows = [Transaction(f"t{n}", "Failed", f"m{n}") for n in range(10)]
    write(database, answered(reported(), *rows), *rows)
    assert [row["transaction_id"] for row in transaction_rows(database)] == [r[0] for r in rows]
    assert len(failures(database)) == 10
    assert sync_row(database)["failed"] == 10
