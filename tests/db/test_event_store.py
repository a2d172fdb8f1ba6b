"""The event store: every acknowledged event is committed, exactly once, many per commit."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from app.db import event_store
from app.db.engine import Database
from app.db.event_store import EventStore, ReceivedEvent, pending_stats
from app.db.tables import webhook_events
from app.errors import DatabaseDown, DatabaseUnavailable
from tests.factories import T0, after, count_rows, event_row

Steps = Callable[[EventStore], Awaitable[Any]]
BACKEND_OF_THE_STORE = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND query LIKE '%INSERT INTO webhook_events%' AND pid <> pg_backend_pid()"
)


def run(database: Database, steps: Steps, **options: Any) -> Any:
    async def body() -> Any:
        store = EventStore(database, **options)
        try:
            return await steps(store)
        finally:
            await store.close()

    return asyncio.run(body())


def received(message_id: str, minutes: float = 0, body: bytes = b"{}") -> ReceivedEvent:
    return ReceivedEvent(message_id, after(minutes=minutes), body)


def store_all(*events: ReceivedEvent) -> Steps:
    async def steps(store: EventStore) -> list[Any]:
        return await asyncio.gather(*map(store.store, events), return_exceptions=True)

    return steps


def test_an_event_is_stored_with_its_bytes(database: Database) -> None:
    """Whatever they are; it is pending, and nothing of it is parsed."""
    body = b'\x00\xff{"not": json'
    assert run(database, store_all(received("m1", body=body))) == [True]
    row = event_row(database, "m1")
    assert (row["body"], row["received_at"], row["deliveries"]) == (body, T0, 1)
    assert (row["processed_at"], row["parse_status"], row["event_type"]) == (None, None, None)


def test_an_empty_body_is_stored_as_empty(database: Database) -> None:
    assert run(database, store_all(received("m1", body=b""))) == [True]
    assert event_row(database, "m1")["body"] == b""


def test_events_that_wait_together_share_a_commit(database: Database) -> None:
    batches: list[int] = []
    stored: list[bool] = []
    results = run(
        database,
        store_all(*(received(f"m{number}") for number in range(300))),
        on_batch=lambda rows, _seconds: batches.append(rows),
        on_stored=lambda: stored.append(True),
    )
    assert results == [True] * 300
    assert sum(batches) == 300
    assert len(batches) == len(stored) <= 3
    assert count_rows(database, "webhook_events") == 300


def test_a_batch_is_bounded_by_its_bytes(database: Database) -> None:
    batches: list[int] = []
    large = b"x" * 900_000
    run(
        database,
        store_all(*(received(f"m{number}", body=large) for number in range(5))),
        on_batch=lambda rows, _seconds: batches.append(rows),
    )
    assert max(batches) == 3


def test_a_redelivery_is_counted_and_pending_again(database: Database) -> None:
    run(database, store_all(received("m1")))
    with database.writing() as connection:
        connection.execute(update(webhook_events).values(processed_at=T0))
    assert run(database, store_all(received("m1", 5), received("m2"))) == [False, True]
    row = event_row(database, "m1")
    assert (row["deliveries"], row["received_at"], row["last_received_at"]) == (
        2,
        T0,
        after(minutes=5),
    )
    assert row["processed_at"] is None


def test_copies_in_one_batch_are_one_event(database: Database) -> None:
    results = run(database, store_all(received("m1"), received("m1", 1), received("m1", 2)))
    assert results == [True, False, False]
    assert event_row(database, "m1")["deliveries"] == 3


def failing(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    *,
    fails: Callable[[Sequence[ReceivedEvent]], bool],
) -> list[int]:
    """Let writes fail where `fails` says so; returns the sizes of all batches tried."""
    writer = event_store._SqliteWriter if database.is_sqlite else event_store._PostgresqlWriter
    write: Any = writer.write
    tried: list[int] = []

    async def patched(self: Any, events: Sequence[ReceivedEvent]) -> list[bool]:
        tried.append(len(events))
        if fails(events):
            raise error
        result: list[bool] = await write(self, events)
        return result

    monkeypatch.setattr(writer, "write", patched)
    return tried


def test_one_bad_event_hurts_only_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(
        database,
        monkeypatch,
        ValueError("bad"),
        fails=lambda events: any(event.message_id == "m1" for event in events),
    )
    results = run(database, store_all(*(received(f"m{number}") for number in range(4))))
    assert [result is True for result in results] == [True, False, True, True]
    assert isinstance(results[1], DatabaseUnavailable)
    assert count_rows(database, "webhook_events") == 3


def test_a_database_that_is_down_is_not_asked_for_each_event(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the store works again when it is back."""

    async def steps(store: EventStore) -> tuple[list[Any], list[int], bool]:
        with monkeypatch.context() as patch:
            tried = failing(database, patch, DatabaseDown("down"), fails=lambda _events: True)
            results = await store_all(*(received(f"m{number}") for number in range(50)))(store)
        return results, tried, await store.store(received("m1"))

    results, tried, recovered = run(database, steps)
    assert all(isinstance(result, DatabaseDown) for result in results)
    assert tried == [50]
    assert recovered is True


def test_requests_behind_a_database_that_hangs_wait_no_longer_than_the_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codat waits for 15 s, which is three batches."""
    writer = event_store._SqliteWriter if database.is_sqlite else event_store._PostgresqlWriter

    async def hang(_self: Any, _events: Sequence[ReceivedEvent]) -> list[bool]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(event_store, "MAX_BATCH", 1)
    monkeypatch.setattr(event_store, "WRITE_WITHIN_S", 0.5)

    async def steps(store: EventStore) -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(writer, "write", hang)
            async with asyncio.timeout(1.4):
                results = await store_all(*(received(f"m{number}") for number in range(20)))(store)
        return [*results, await store.store(received("m0"))]

    *results, recovered = run(database, steps)
    assert all(isinstance(result, DatabaseDown) for result in results)
    assert recovered is True


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_frozen_server_does_not_delay_answers_or_the_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg alone would wait for another 10 s for the server to cancel the statement."""
    monkeypatch.setattr(event_store, "WRITE_WITHIN_S", 0.3)
    monkeypatch.setattr(event_store, "CLOSE_WITHIN_S", 0.3)

    async def steps() -> tuple[Any, float, Any]:
        store = EventStore(database)
        await store.store(received("m1"))
        with database.reading() as connection:
            process = connection.execute(BACKEND_OF_THE_STORE).scalar_one()
        os.kill(process, signal.SIGSTOP)
        try:
            began = time.monotonic()
            results = await store_all(received("m2"))(store)
            recovered = await store.store(received("m3"))  # over another connection
            waiting = asyncio.create_task(store.store(received("m4")))
            await asyncio.sleep(0)
            await store.close()
            results += await asyncio.gather(waiting, return_exceptions=True)
            return results, time.monotonic() - began, recovered
        finally:
            os.kill(process, signal.SIGCONT)

    results, seconds, recovered = asyncio.run(steps())
    assert isinstance(results[0], DatabaseDown)
    assert recovered is True
    assert seconds < 3


def test_a_full_queue_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full by number, or by bytes."""
    monkeypatch.setattr(event_store, "MAX_WAITING", 2)
    monkeypatch.setattr(event_store, "MAX_WAITING_BYTES", 10)
    results = run(database, store_all(*(received(f"m{number}") for number in range(4))))
    assert [result is True for result in results] == [True, True, False, False]
    large = [received(f"large{number}", body=b"x" * 6) for number in range(3)]
    results = run(database, store_all(*large))
    assert [result is True for result in results] == [True, False, False]


def test_each_event_is_in_the_log_with_its_request(database: Database) -> None:
    """New ones and duplicates; one line per commit."""

    async def steps(store: EventStore) -> None:
        await store.store(received("m1"), "r1")
        pairs = [("m2", "r2"), ("m3", "r3"), ("m1", "r4")]
        await asyncio.gather(*(store.store(received(m, 1), r) for m, r in pairs))
        await asyncio.sleep(0)

    with capture_logs() as lines:
        run(database, steps)
    found = [{k: v for k, v in line.items() if k != "log_level"} for line in lines]
    assert found == [
        {"event": "webhook stored", "count": 1, "message_id": "m1", "request_id": "r1"},
        {
            "event": "webhook stored",
            "count": 2,
            "message_ids": ["m2", "m3"],
            "request_ids": ["r2", "r3"],
        },
        {"event": "webhook was stored before", "count": 1, "message_id": "m1", "request_id": "r4"},
    ]


def test_the_queue_is_empty_after_each_outcome(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written or refused does not count as waiting."""
    monkeypatch.setattr(event_store, "MAX_WAITING_BYTES", 10)
    monkeypatch.setattr(event_store, "MAX_BATCH", 1)

    async def steps(store: EventStore) -> list[Any]:
        with monkeypatch.context() as patch:
            failing(database, patch, DatabaseDown("down"), fails=lambda _events: True)
            await store_all(*(received(f"m{number}", body=b"x" * 5) for number in range(2)))(store)
        stored = [await store.store(received(f"m{number}", body=b"x" * 10)) for number in range(3)]
        return [*stored, store._waiting_bytes]

    assert run(database, steps) == [True, True, True, 0]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_redelivery_of_an_event_in_use_delays_no_other(database: Database) -> None:
    """It alone must come again, and the others wait for a tenth of a second at most."""

    async def steps(store: EventStore) -> tuple[list[Any], list[Any]]:
        await store.store(received("m1"))
        with database.writing() as connection:
            connection.execute(select(webhook_events.c.id).with_for_update())
            async with asyncio.timeout(3):
                during = await store_all(received("m1", 1), received("m2"))(store)
                during.append(await store.store(received("m3")))
        return during, await store_all(received("m1", 1), received("m4"))(store)

    during, later = run(database, steps)
    assert isinstance(during[0], DatabaseUnavailable)
    assert not isinstance(during[0], DatabaseDown)
    assert during[1:] == [True, True]
    assert later == [False, True]
    assert event_row(database, "m1")["deliveries"] == 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_short_lock_on_the_table_delays_deliveries_only(database: Database) -> None:
    """As a migration takes it: the limit for redeliveries does not remain on the connection."""

    async def steps(store: EventStore) -> bool:
        await store_all(received("m1"))(store)
        await store_all(received("m1", 1))(store)
        with database.writing() as connection:
            connection.execute(text("LOCK TABLE webhook_events"))
            waiting = asyncio.create_task(store.store(received("m2")))
            await asyncio.sleep(0.5)
        return await waiting

    assert run(database, steps) is True


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_deliveries_do_not_wait_for_a_thread_of_the_others(database: Database) -> None:
    ended = threading.Event()

    async def steps(store: EventStore) -> bool:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        blocked = asyncio.create_task(asyncio.to_thread(ended.wait, 10))
        await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(3):
                return await store.store(received("m1"))
        finally:
            ended.set()
            await blocked

    assert run(database, steps) is True


def test_the_lag_is_reported(database: Database) -> None:
    run(database, store_all(received("m1"), received("m2", 1)))
    with database.writing() as connection:
        connection.execute(
            update(webhook_events)
            .where(webhook_events.c.message_id == "m1")
            .values(processed_at=T0)
        )
    with database.reading() as connection:
        stats = pending_stats(connection)
    assert (stats.count, stats.oldest_received_at) == (1, after(minutes=1))
