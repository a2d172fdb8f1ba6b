"""Pending webhook events: claimed, applied and marked as processed in one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, func, select, update

from app.db import companies, rate_limit
from app.db.jobs import Origin
from app.db.many_rows import is_any_of, update_many
from app.db.sync_writer import (
    LogEntry,
    SyncKey,
    SyncWrite,
    load_syncs,
    lock_companies,
    write_syncs,
)
from app.db.tables import webhook_events
from app.domain.models import UNKNOWN, WebhookEvent, WebhookPayload
from app.domain.sync_state import TERMINAL_EVENTS, Sync, apply_event_with_list

Key = TypeVar("Key")

_PENDING = webhook_events.c.processed_at.is_(None)
PARSED_COLUMNS = (
    "event_type",
    "raw_type",
    "parse_status",
    "parse_error",
    "body_id",
    "company_id",
    "sync_id",
    "generated_at",
)


@dataclass(slots=True)
class PendingEvent:
    """A claimed event.

    `body` is None when retention has removed it and a redelivery made the event pending again: then
    its meaning was applied before. `payload` is what the body says, or what was stored of it.
    """

    id: int
    message_id: str
    received_at: datetime
    last_received_at: datetime | None
    deliveries: int
    projected_deliveries: int
    was_applied: bool
    replay_request_id: str | None
    replay_actor: str | None
    body: bytes | None
    payload: WebhookPayload

    @property
    def is_replay(self) -> bool:
        """True when it is pending again, and not because of a redelivery."""
        return self.was_applied and not self._was_redelivered

    @property
    def _was_redelivered(self) -> bool:
        return self.deliveries > max(self.projected_deliveries, 1)

    @property
    def request_id(self) -> str | None:
        """The id of the request to replay it, if that is why it is pending."""
        return None if self._was_redelivered else self.replay_request_id

    @property
    def event(self) -> WebhookEvent:
        """The event as a value of `app.domain`."""
        return WebhookEvent(self.message_id, self.received_at, self.payload)


def list_ids(connection: Connection, limit: int) -> list[int]:
    """The ids of pending events, oldest first."""
    ids = select(webhook_events.c.id).where(_PENDING).order_by(webhook_events.c.id).limit(limit)
    return list(connection.execute(ids).scalars())


def claim(
    connection: Connection, limit: int, max_bytes: int, *, event_id: int | None = None
) -> list[PendingEvent]:
    """Lock up to `limit` pending events, oldest first, or the one with this id.

    Those that another projector holds are passed over. Those whose bodies together have more than
    `max_bytes` are left for later, except the first.
    """
    candidates = select(webhook_events.c.id, body_size()).where(_PENDING)
    if event_id is not None:
        candidates = candidates.where(webhook_events.c.id == event_id)
    locked = connection.execute(
        candidates.order_by(webhook_events.c.id).limit(limit).with_for_update(skip_locked=True)
    )
    ids: list[int] = first_within(map(tuple, locked), max_bytes)
    if not ids:
        return []
    rows = connection.execute(
        select(webhook_events)
        .where(is_any_of(connection, webhook_events.c.id, ids))
        .order_by(webhook_events.c.id)
    ).mappings()
    return [_pending_event(row) for row in rows]


def body_size() -> ColumnElement[int]:
    """The bytes of an event's body, which is not read for that; 0 without one."""
    return func.coalesce(func.length(webhook_events.c.body), 0)


def first_within(sizes: Iterable[tuple[Key, int]], limit: int) -> list[Key]:
    """The first of these keys whose sizes together are within the limit; at least one."""
    keys: list[Key] = []
    total = 0
    for key, size in sizes:
        total += size
        if keys and total > limit:
            break
        keys.append(key)
    return keys


def _pending_event(row: Any) -> PendingEvent:
    stored = {name: row[name] for name in PARSED_COLUMNS}
    stored["event_type"] = stored["event_type"] or UNKNOWN
    stored["parse_status"] = stored["parse_status"] or "unknown"
    return PendingEvent(
        id=row["id"],
        message_id=row["message_id"],
        received_at=row["received_at"],
        last_received_at=row["last_received_at"],
        deliveries=row["deliveries"],
        projected_deliveries=row["logged_deliveries"],
        was_applied=row["parse_status"] == "ok" and row["projection_error"] is None,
        replay_request_id=row["replay_request_id"],
        replay_actor=row["replay_actor"],
        body=row["body"],
        payload=WebhookPayload(**stored),
    )


def apply(connection: Connection, events: Sequence[PendingEvent], *, now: datetime) -> None:
    """Apply these claimed events with their payloads, and mark them as processed."""
    processed = {"processed_at": now, "projection_error": None}
    rows = [
        {"id": event.id, "logged_deliveries": event.deliveries, **processed}
        | {name: getattr(event.payload, name) for name in PARSED_COLUMNS}
        for event in events
    ]
    update_many(connection, webhook_events, rows)
    by_sync: dict[SyncKey, list[PendingEvent]] = {}
    for event in events:
        if event.payload.is_sync_event:
            key = (event.payload.company_id or "", event.payload.sync_id or "")
            by_sync.setdefault(key, []).append(event)
    understood = [event.event for event in events if event.payload.parse_status == "ok"]
    lock_companies(
        connection, [event.payload.company_id for event in understood if event.payload.company_id]
    )
    companies.record_events(connection, understood)
    stored = load_syncs(connection, by_sync.keys())
    writes = []
    for key, of_sync in sorted(by_sync.items()):
        write = SyncWrite(stored.get(key), stored[key].sync if key in stored else Sync(*key))
        for event in of_sync:
            _apply_to_sync(write, event, now)
        writes.append(write)
    for reported in understood:
        rate_limit.apply_event(connection, reported)
    write_syncs(connection, writes, now=now)


def _apply_to_sync(write: SyncWrite, event: PendingEvent, now: datetime) -> None:
    write.after, write.transactions = apply_event_with_list(
        write.after, write.transactions, event.event
    )
    write.log += _log_entries(event, now)
    is_news = not event.was_applied and event.payload.event_type in TERMINAL_EVENTS
    if is_news:
        write.fetch = "enqueue"
    elif event.was_applied and write.fetch is None:
        write.fetch = "restart"
    if is_news or event.was_applied:
        write.origin = Origin(event.message_id, event.request_id)


def _log_entries(event: PendingEvent, now: datetime) -> list[LogEntry]:
    """That the event was processed again. The event itself and its redeliveries are in the timeline
    by the event's row (`queries.events.timeline`).
    """
    if not event.is_replay:
        return []
    reported = reported_as(event.payload.event_type, event.payload.raw_type)
    by = f"; requested by {event.replay_actor}" if event.replay_actor else ""
    return [LogEntry(now, "replay", f"{reported}{by}", event.message_id)]


def reported_as(event_type: str, raw_type: str | None) -> str:
    """The text of an event in the timeline of its sync."""
    kind = event_type.removeprefix("sync.")
    return f"Codat reported: {kind} ({raw_type})" if raw_type else f"Codat reported: {kind}"


def mark_failed(connection: Connection, event_id: int, reason: str, *, now: datetime) -> str | None:
    """Take an event that could not be applied off the pending ones; `reason` is one line.

    Returns its message id.
    """
    marked = (
        update(webhook_events)
        .where(webhook_events.c.id == event_id, _PENDING)
        .values(processed_at=now, projection_error=reason)
    )
    return connection.execute(marked.returning(webhook_events.c.message_id)).scalar()
