"""The event store: raw webhook events, inserted for many requests in one commit.

Group commit without a timer: a batch is whatever arrived while the last one was written. A request
is answered only after the commit that holds its event. Events are parsed and applied later, by
the projector (`app.worker.projector`).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app import logging
from app.db.engine import Database, chunked, count_up_to, translate_errors
from app.db.tables import webhook_events
from app.errors import DatabaseDown, DatabaseRejected, DatabaseUnavailable, Gone, NotFound

MAX_BATCH = 512
MAX_BATCH_BYTES = 2_000_000
MAX_WAITING = 20_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
WRITE_WITHIN_S = 5.0  # Codat waits 15 s for an answer
CLOSE_WITHIN_S = 2.0
REDELIVER_WITHIN_MS = 100
DOWN_AFTER = 2  # failures in a row that mean the database is down, not that an event is bad
MAX_COUNTED = 100_000
QUIET_TURNS = 4  # of the event loop without a new event, after which a burst is complete

_log = logging.get(__name__)
# `inline`: no id is wanted back. `preserve_rowcount`: the number of rows that were new is.
_INSERT = sqlite.insert(webhook_events).on_conflict_do_nothing().inline()
# The one statement that is not built by SQLAlchemy: a batch as three binary arrays takes 6 µs of
# processor time per event, as executemany 23 µs, of about 100 µs for a whole delivery.
_INSERT_ARRAYS = """
    INSERT INTO webhook_events (message_id, received_at, body)
    SELECT * FROM unnest(%b::text[], %b::timestamptz[], %b::bytea[])
    ON CONFLICT (message_id) DO NOTHING
"""
_STORED = select(webhook_events.c.message_id, webhook_events.c.received_at)
# The projector then adds the redelivery to the timeline and restarts unfinished work.
_REDELIVER = (
    update(webhook_events)
    .where(webhook_events.c.message_id == bindparam("redelivered"))
    .values(
        deliveries=webhook_events.c.deliveries + 1,
        last_received_at=bindparam("at"),
        processed_at=None,
    )
)


Result = bool | DatabaseUnavailable
"""Of one event: whether it is new, or why it is not stored."""


class ReceivedEvent(NamedTuple):
    """An authentic delivery: the message id of its signature headers, and the bytes of its body."""

    message_id: str
    received_at: datetime
    body: bytes


class _Waiting(NamedTuple):
    event: ReceivedEvent
    request_id: str
    stored: "asyncio.Future[bool]"


class EventStore:
    """Stores events for one process, from one event loop.

    `on_stored` is called after each commit; `on_batch` with the number of events and the seconds
    that their commit took.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_stored: Callable[[], None] = lambda: None,
        on_batch: Callable[[int, float], None] = lambda _rows, _seconds: None,
    ) -> None:
        self._writer = (
            _SqliteWriter(database) if database.is_sqlite else _PostgresqlWriter(database)
        )
        self._on_stored = on_stored
        self._on_batch = on_batch
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self._in_hand: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._abandoned: set[asyncio.Task[None]] = set()

    async def store(self, event: ReceivedEvent, request_id: str = "") -> bool:
        """Return once the event is committed: True when it is new, False when it is a duplicate.

        `request_id` is for the log.
        Raises DatabaseUnavailable when it cannot be, or not soon enough; Codat then sends the event
        again.
        """
        size = self._waiting_bytes + len(event.body)
        if len(self._waiting) >= MAX_WAITING or size > MAX_WAITING_BYTES:
            raise DatabaseUnavailable("Too many deliveries are waiting for the database")
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(_Waiting(event, request_id, stored))
        self._waiting_bytes = size
        if self._committing is None or self._committing.done():
            self._committing = loop.create_task(self._commit_batches())
        return await stored

    async def close(self) -> None:
        """Wait for what has arrived to be written, but not for a database that hangs."""
        if self._committing:
            await asyncio.wait([self._committing], timeout=CLOSE_WITHIN_S)
        self._give_up("the service is stopping")
        if self._abandoned:
            await asyncio.sleep(0)
            for task in self._abandoned:
                task.cancel()  # the second time, psycopg does not wait for the server
            await asyncio.wait(self._abandoned, timeout=CLOSE_WITHIN_S)
        await self._writer.close()

    async def _commit_batches(self) -> None:
        """Write what waits, batch by batch, until nothing does."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._gather()
            batch = self._in_hand = self._next_batch()
            events = [waiting.event for waiting in batch]
            if not events:
                continue
            started = time.perf_counter()
            reason = "the database takes too long"
            deadline = loop.call_later(WRITE_WITHIN_S, self._give_up, reason)
            try:
                results: Sequence[Result] = await self._writer.write(events)
            except DatabaseDown as error:
                fields = {"reason": str(error), **_ids(batch[: logging.MAX_IDS])}
                _log.warning("could not store webhook events", count=len(events), **fields)
                results = [error] * len(events)
            except Exception as error:
                log = _log.warning if isinstance(error, DatabaseUnavailable) else _log.exception
                log("could not store a batch of webhook events", reason=str(error))
                results = await self._store_one_by_one(events)
            finally:
                deadline.cancel()
            if self._committing is not asyncio.current_task():
                return  # it was abandoned
            for waiting, result in zip(batch, results, strict=True):
                _resolve(waiting.stored, result)
            self._after_batch(results, time.perf_counter() - started)
            loop.call_soon(_log_stored, batch, results)  # after the requests are answered

    def _after_batch(self, results: Sequence[Result], seconds: float) -> None:
        if any(not isinstance(result, Exception) for result in results):
            self._on_batch(len(results), seconds)
            self._on_stored()
        down = next((result for result in results if isinstance(result, DatabaseDown)), None)
        if down:  # or the last ones would wait for many batches to fail
            self._refuse_waiting(down)

    def _give_up(self, reason: str) -> None:
        """Answer all requests. The write is cancelled, and not waited for.

        psycopg sends a cancel request, and waits up to 10 s for a server that hangs.
        """
        error = DatabaseDown(reason)
        for waiting in self._in_hand:
            _resolve(waiting.stored, error)
        self._refuse_waiting(error)
        task, self._committing = self._committing, None
        if task and not task.done():
            _log.warning("could not store webhook events", count=len(self._in_hand), reason=reason)
            task.cancel()
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)

    async def _gather(self) -> None:
        """Wait for what the sockets already hold; else a burst would begin with a batch of one."""
        seen = quiet = 0
        while quiet < QUIET_TURNS and len(self._waiting) < MAX_BATCH:
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Waiting]:
        """As many as fit into a batch; requests that were cancelled are left out."""
        size = 0
        taken = 0
        for taken, waiting in enumerate(self._waiting[:MAX_BATCH], 1):  # noqa: B007 # used after
            size += len(waiting.event.body)
            if size > MAX_BATCH_BYTES:
                break
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._waiting_bytes -= sum([len(waiting.event.body) for waiting in batch])
        return [waiting for waiting in batch if not waiting.stored.done()]

    def _refuse_waiting(self, error: DatabaseUnavailable) -> None:
        for waiting in self._waiting:
            _resolve(waiting.stored, error)
        self._waiting = []
        self._waiting_bytes = 0

    async def _store_one_by_one(self, events: Sequence[ReceivedEvent]) -> Sequence[Result]:
        """One commit each, so that a bad event affects only itself."""
        results: list[Result] = []
        failures = 0
        for event in events:
            if failures >= DOWN_AFTER:
                results.append(DatabaseDown("The database is unavailable"))
                continue
            try:
                results += await self._writer.write([event])
                failures = 0
            except Exception as error:
                failures += not isinstance(error, DatabaseRejected)
                _log.warning(
                    "could not store a webhook event",
                    message_id=event.message_id,
                    reason=str(error),
                )
                if not isinstance(error, DatabaseUnavailable):
                    error = DatabaseUnavailable(type(error).__name__)
                results.append(error)
        return results


def _log_stored(batch: Sequence[_Waiting], results: Sequence[Result]) -> None:
    for wanted, text in ((True, "webhook stored"), (False, "webhook was stored before")):
        pairs = zip(batch, results, strict=True)
        found = [waiting for waiting, result in pairs if result is wanted]
        for chunk in chunked(found, logging.MAX_IDS):
            _log.info(text, count=len(chunk), **_ids(chunk))


def _ids(batch: Sequence[_Waiting]) -> dict[str, object]:
    """The ids of events and of the requests that delivered them, for the log."""
    return logging.listed(
        message_id=[waiting.event.message_id for waiting in batch],
        request_id=[waiting.request_id for waiting in batch],
    )


def _resolve(stored: "asyncio.Future[bool]", result: Result) -> None:
    if stored.done():
        return
    if isinstance(result, bool):
        stored.set_result(result)
    else:
        stored.set_exception(result)


def _in_order(events: Sequence[ReceivedEvent]) -> list[ReceivedEvent]:
    """By message id: two replicas that insert the same ones must not deadlock."""
    return sorted(events, key=lambda event: event.message_id)


def _results(
    events: Sequence[ReceivedEvent], stored: dict[str, datetime]
) -> tuple[list[bool], list[dict[str, Any]]]:
    """Which events are new, and the parameters of `_REDELIVER` for the others.

    An event is new when the stored row is its own; of copies in one batch the first one is.
    """
    results = []
    redelivered = []
    for event in events:
        is_new = stored.get(event.message_id) == event.received_at
        if is_new:
            del stored[event.message_id]
        else:
            redelivered.append({"redelivered": event.message_id, "at": event.received_at})
        results.append(is_new)
    return results, sorted(redelivered, key=lambda row: row["redelivered"])


class _PostgresqlWriter:
    """Writes from the event loop, over one connection that it holds.

    In autocommit mode the statement is its own transaction: a batch costs one round trip. BEGIN
    and COMMIT would cost two more, and a thread of its own a third of the time that a lone request
    takes (measured: 0.39, 0.59 and 0.52 ms).
    """

    def __init__(self, database: Database) -> None:
        self._engine = database.autocommit_async_engine()
        self._connection: AsyncConnection | None = None

    async def write(self, events: Sequence[ReceivedEvent]) -> list[Result]:
        # Taken while it is in use: a write that fails, or never ends, does not give it back.
        connection, self._connection = self._connection, None
        columns = zip(*_in_order(events), strict=True)
        try:
            with translate_errors():
                connection = connection or await self._engine.connect()
                inserted = await connection.exec_driver_sql(
                    _INSERT_ARRAYS, tuple(map(list, columns))
                )
                results: list[Result] = [True] * len(events)
                if inserted.rowcount < len(events):
                    results = await self._count_duplicates(connection, events)
        except BaseException:
            await _close(connection)
            raise
        self._connection = connection
        return results

    async def _count_duplicates(
        self, connection: AsyncConnection, events: Sequence[ReceivedEvent]
    ) -> list[Result]:
        """Which events are new; duplicates must come again when a projector holds one of them.

        All deliveries wait meanwhile. The INSERT has no such limit: it waits for a migration only.
        """
        ids = {event.message_id for event in events}
        found = await connection.execute(_STORED.where(webhook_events.c.message_id.in_(ids)))
        results, redelivered = _results(events, {row.message_id: row.received_at for row in found})
        await connection.exec_driver_sql("BEGIN")  # a pooler keeps no session between transactions
        try:
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {REDELIVER_WITHIN_MS}")
            with translate_errors():
                await connection.execute(_REDELIVER, redelivered)
        except (DatabaseDown, DatabaseRejected):
            raise
        except DatabaseUnavailable as error:
            await connection.exec_driver_sql("ROLLBACK")
            _log.info("a redelivered event is in use; it must come again", reason=str(error))
            return [is_new or error for is_new in results]
        await connection.exec_driver_sql("COMMIT")
        return [*results]

    async def close(self) -> None:
        await _close(self._connection)
        await self._engine.dispose()


async def _close(connection: AsyncConnection | None) -> None:
    if connection is not None:
        with suppress(Exception):
            await connection.invalidate()
        with suppress(Exception):
            await connection.close()


class _SqliteWriter:
    """Writes in a thread, because SQLite's own calls block; its own, because others are busy."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-store")

    async def write(self, events: Sequence[ReceivedEvent]) -> list[Result]:
        write = copy_context().run  # for traces, as `asyncio.to_thread` does
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, write, self._write, events)

    def _write(self, events: Sequence[ReceivedEvent]) -> list[Result]:
        with self._database.writing(priority=True) as connection:
            rows = [event._asdict() for event in _in_order(events)]
            options = {"preserve_rowcount": True}
            inserted = connection.execute(_INSERT, rows, execution_options=options)
            if inserted.rowcount == len(events):
                return [True] * len(events)
            ids = {event.message_id for event in events}
            found = connection.execute(_STORED.where(webhook_events.c.message_id.in_(ids)))
            results, redelivered = _results(
                events, {row.message_id: row.received_at for row in found}
            )
            connection.execute(_REDELIVER, redelivered)
            return [*results]

    async def close(self) -> None:
        self._thread.shutdown(wait=False)


@dataclass(frozen=True, slots=True)
class PendingStats:
    """Events that the projector has yet to apply; `count` is capped at MAX_COUNTED."""

    count: int
    oldest_received_at: datetime | None


def pending_stats(connection: Connection) -> PendingStats:
    """How far the projector is behind. Costs no more than MAX_COUNTED index entries."""
    pending = webhook_events.c.processed_at.is_(None)
    count = count_up_to(connection, MAX_COUNTED, select(webhook_events.c.id).where(pending))
    oldest = select(func.coalesce(webhook_events.c.last_received_at, webhook_events.c.received_at))
    first = connection.execute(oldest.where(pending).order_by(webhook_events.c.id).limit(1))
    return PendingStats(count, first.scalar())


def last_received_at(connection: Connection) -> datetime | None:
    """When the newest event was received for the first time; None without any."""
    newest = select(webhook_events.c.received_at).order_by(webhook_events.c.id.desc()).limit(1)
    return connection.execute(newest).scalar()


def mark_pending(connection: Connection, message_id: str, actor: str | None = None) -> None:
    """Let the projector apply an event again; `actor` is the name of the caller's API key.

    Raises NotFound, or Gone when retention has removed its body.
    """
    found = connection.execute(
        select(webhook_events.c.body.is_not(None)).where(webhook_events.c.message_id == message_id)
    ).first()
    if found is None:
        raise NotFound("Webhook event not found")
    if not found[0]:
        raise Gone("Retention has removed the body of this webhook event.")
    connection.execute(
        update(webhook_events)
        .where(webhook_events.c.message_id == message_id)
        .values(
            processed_at=None,
            projection_error=None,
            replay_actor=actor,
            replay_request_id=logging.bound_id("request_id"),
        )
    )
