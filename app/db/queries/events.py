"""Queries for stored webhook events and for the timeline of a sync."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    and_,
    literal,
    null,
    or_,
    select,
    text,
    union_all,
)

from app.db.pagination import Order, Page, read_page
from app.db.pending_events import reported_as
from app.db.queries.access_paths import Condition, clauses, rare_condition
from app.db.tables import sync_log, syncs, webhook_events
from app.domain.models import ParseStatus
from app.errors import NotFound

_LOGGED_REDELIVERY = "duplicate"  # 0.2.0 added one entry per redelivery
_NEWEST_FIRST = Order("events", (webhook_events.c.id,), descending=True)
# word for word as in the partial indexes, or SQLite does not use them
_NOT_OK = text("parse_status <> 'ok'")
_FAILED = text("projection_error IS NOT NULL")
_TO_REVIEW = union_all(*(select(webhook_events.c.id).where(where) for where in (_NOT_OK, _FAILED)))
_NEEDS_REVIEW = Condition(
    rows=_TO_REVIEW,
    lookup=webhook_events.c.id.in_(_TO_REVIEW),
    check=or_(
        webhook_events.c.parse_status != "ok", webhook_events.c.projection_error.is_not(None)
    ),
)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A stored webhook event; what its body says is None until the projector has applied it.

    `projection_error` is why it could not be applied. `body` is None unless it was asked for, and
    once retention has removed it.
    """

    message_id: str
    received_at: datetime
    deliveries: int
    processed_at: datetime | None
    event_type: str | None
    raw_type: str | None
    parse_status: ParseStatus | None
    parse_error: str | None
    projection_error: str | None
    company_id: str | None
    sync_id: str | None
    body_id: str | None
    generated_at: datetime | None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class LogRecord:
    """An entry of a sync's timeline; `message_id` is that of the webhook event, if it was one."""

    at: datetime
    kind: str
    reason: str
    message_id: str | None


_COLUMNS = [webhook_events.c[name] for name in EventRecord.__slots__ if name != "body"]


def list_events(
    connection: Connection,
    *,
    parse_status: ParseStatus | None = None,
    needs_review: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[EventRecord]:
    """One page of events without bodies, newest first. Raises BadRequest naming `cursor`.

    `needs_review` selects those that are not `ok` or could not be applied.
    """
    statement: Select[Any] = select(*_COLUMNS)
    if parse_status is not None:
        statement = statement.where(webhook_events.c.parse_status == parse_status)
    if parse_status in ("unknown", "unreadable"):
        statement = statement.where(_NOT_OK)
    if needs_review:
        rare = rare_condition(connection, [_NEEDS_REVIEW], sort="-id")
        statement = statement.where(*clauses([_NEEDS_REVIEW], rare, sort="-id"))
    page = read_page(connection, statement, _NEWEST_FIRST, cursor=cursor, limit=limit)
    return Page([_record(row) for row in page.items], page.next, page.previous)


def get_event(connection: Connection, message_id: str, *, with_body: bool = False) -> EventRecord:
    """One event. Raises NotFound."""
    columns = [*_COLUMNS, webhook_events.c.body] if with_body else _COLUMNS
    statement = select(*columns).where(webhook_events.c.message_id == message_id)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound("Webhook event not found")
    return _record(row)


def timeline(
    connection: Connection, sync_pk: int, *, cursor: str | None = None, limit: int = 50
) -> Page[LogRecord]:
    """One page of a sync's timeline, oldest first: its events, and the log of what else happened.

    The redeliveries of an event are one entry, at the time of the latest. Raises BadRequest naming
    `cursor`.
    """
    is_about = and_(
        webhook_events.c.company_id == syncs.c.company_id,
        webhook_events.c.sync_id == syncs.c.sync_id,
    )
    events = (
        select(
            webhook_events.c.received_at.label("at"),
            literal(0).label("source"),
            webhook_events.c.id,
            literal("delivery").label("kind"),
            webhook_events.c.parse_error.label("reason"),
            webhook_events.c.event_type,
            webhook_events.c.raw_type,
            webhook_events.c.message_id,
            literal(0).label("redeliveries"),
        )
        .join_from(syncs, webhook_events, is_about)
        .where(syncs.c.id == sync_pk)
    )
    redeliveries = events.where(webhook_events.c.last_received_at.is_not(None)).with_only_columns(
        *(webhook_events.c.last_received_at, literal(1), webhook_events.c.id),
        *(literal("duplicate"), null(), webhook_events.c.event_type, webhook_events.c.raw_type),
        *(webhook_events.c.message_id, webhook_events.c.deliveries - 1),
    )
    log = select(
        *(sync_log.c.at, literal(2), sync_log.c.id, sync_log.c.kind, sync_log.c.reason),
        *(null(), null(), sync_log.c.message_id, literal(0)),
    ).where(sync_log.c.sync_pk == sync_pk, sync_log.c.kind != _LOGGED_REDELIVERY)
    whole = union_all(events, redeliveries, log).subquery("timeline")
    order = Order("timeline", (whole.c.at, whole.c.source, whole.c.id))
    page = read_page(connection, select(whole), order, cursor=cursor, limit=limit)
    return Page([_log_record(row) for row in page.items], page.next)


def last_fetch_at(connection: Connection, sync_pk: int) -> datetime | None:
    """When Codat was last asked about a sync, with or without an answer."""
    entries = select(sync_log.c.at).where(sync_log.c.sync_pk == sync_pk, sync_log.c.kind == "fetch")
    newest = entries.order_by(sync_log.c.at.desc(), sync_log.c.id.desc()).limit(1)
    at: datetime | None = connection.execute(newest).scalar()
    return at


def _log_record(row: RowMapping) -> LogRecord:
    reason = row["reason"] or reported_as(row["event_type"], row["raw_type"])
    if number := row["redeliveries"]:
        reason += f"; {number} more {'delivery' if number == 1 else 'deliveries'}"
    return LogRecord(row["at"], row["kind"], reason, row["message_id"])


def _record(row: RowMapping) -> EventRecord:
    return EventRecord(**{name: row[name] for name in EventRecord.__slots__ if name in row})
