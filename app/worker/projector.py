"""The projector: applies stored webhook events to the syncs that they are about.

    claim pending events → parse → apply → mark as processed, in one transaction per batch

Any number of projectors work side by side: each claims events that no other holds (SKIP LOCKED).
Applying is idempotent and commutative, so neither order nor repetition matters. When a batch
fails, its events are applied one by one; the one that fails alone is marked with its error
(`projection_error`) and does not hold up the others. A conflict with another transaction is no
fault of an event: then it stays pending.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from app import logging
from app.codat.webhooks import payloads
from app.db import pending_events
from app.db.engine import Database, chunked
from app.db.pending_events import PendingEvent
from app.errors import DatabaseDown, DatabaseRejected, DatabaseUnavailable
from app.worker.threads import retry_conflicts

BATCH_SIZE = 500
BATCH_BYTES = 500_000  # of bodies: a large event travels alone
# SQLite's one writer is shared with the endpoint: a delivery must not wait for long.
SQLITE_BATCH_SIZE = 50
SQLITE_BATCH_BYTES = 100_000
SQLITE_BATCH_S = 0.010
SQLITE_SMALLEST_BATCH = 10  # on a busy machine one by one would be eight times the work

_log = logging.get(__name__)


@dataclass(slots=True)
class Projector:
    """Applies pending events, each batch within `trace`; `clock` gives aware UTC times."""

    database: Database
    clock: Callable[[], datetime]
    trace: Callable[[Sequence[PendingEvent]], AbstractContextManager[None]] = lambda _: (
        nullcontext()
    )
    _batch_size: int = field(init=False)

    def __post_init__(self) -> None:
        self._batch_size = SQLITE_BATCH_SIZE if self.database.is_sqlite else BATCH_SIZE

    def project_pending(self) -> int:
        """Apply one batch of pending events; returns how many were handled.

        Raises DatabaseDown when the database is down: the events stay pending.
        """
        with self.database.reading() as connection:  # spares SQLite's one writer when idle
            if not pending_events.list_ids(connection, 1):
                return 0
        try:
            count = retry_conflicts(self._project, tries=2)
        except DatabaseDown:
            raise
        except Exception as error:
            _log.warning("could not project a batch of webhook events", reason=_describe(error))
            with self.database.reading() as connection:
                ids = pending_events.list_ids(connection, self._batch_size)
            return sum(map(self._project_alone, ids))
        return count

    def _project(self, event_id: int | None = None) -> int:
        """Apply a batch, or the one event that is named, in one transaction."""
        max_bytes = SQLITE_BATCH_BYTES if self.database.is_sqlite else BATCH_BYTES
        limit = self._batch_size if event_id is None else 1
        with self.database.writing() as connection:
            began = time.perf_counter()
            events = pending_events.claim(connection, limit, max_bytes, event_id=event_id)
            if not events:
                return 0
            with self.trace(events):
                for event in events:
                    if event.body is not None:
                        event.payload = payloads.parse(event.body)
                pending_events.apply(connection, events, now=self.clock())
            took = time.perf_counter() - began
        _log_projected(events)
        if self.database.is_sqlite:
            fitting = int(len(events) * SQLITE_BATCH_S / took)
            self._batch_size = max(SQLITE_SMALLEST_BATCH, min(SQLITE_BATCH_SIZE, fitting))
        return len(events)

    def _project_alone(self, event_id: int) -> int:
        """1 when this event was applied or marked as failed, 0 when it is still pending."""
        try:
            return self._project(event_id)
        except DatabaseDown:
            raise
        except Exception as error:
            if isinstance(error, DatabaseUnavailable) and not isinstance(error, DatabaseRejected):
                return 0
            message_id = None
            try:
                with self.database.writing() as connection:
                    message_id = pending_events.mark_failed(
                        connection, event_id, _describe(error), now=self.clock()
                    )
            finally:
                fields = {"message_id": message_id, "exc_info": error}
                _log.exception("could not project a webhook event", **fields)
            return 1


def _log_projected(events: Sequence[PendingEvent]) -> None:
    """One line for a lone event; the events of a burst share lines."""
    for event in events:
        if event.payload.parse_status == "unreadable":
            fields = {"message_id": event.message_id, "reason": event.payload.parse_error}
            _log.warning("webhook could not be parsed", **fields)
    if len(events) == 1:
        (event,), payload = events, events[0].payload
        names = ("event_type", "parse_status", "company_id", "sync_id")
        fields = {name: getattr(payload, name) for name in names}
        with logging.bound(message_id=event.message_id, request_id=event.request_id):
            _log.info("webhook projected", **fields)
        return
    for chunk in chunked(events, logging.MAX_IDS):
        ids = [event.message_id for event in chunk]
        _log.info("webhooks projected", count=len(ids), message_ids=ids)


def _describe(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, DatabaseUnavailable):
        text = f"{type(error).__name__}: {text}"
    return text.splitlines()[0][:500]
