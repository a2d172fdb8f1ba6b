"""Reads of the kept webhooks, of a sync's timeline, and of who lives."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, literal, null, select, text, union_all

from app.db.pagination import Order, read_page
from app.db.tables import events, heartbeats, notes
from app.errors import NotKnown

_NEWEST_FIRST = Order("events", (events.c.id,), descending=True)
_ODD = text("reading <> 'ok'")  # word for word as in the index, or SQLite does not use it
_SHOWN = [column for column in events.c if column.name != "body"]


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """One verified webhook. `message_id` is its name here, `event_id` the one in its body."""

    message_id: str
    received_at: datetime
    event: str
    event_type: str | None
    reading: str
    reason: str | None
    event_id: str | None
    company_id: str | None
    sync_id: str | None
    generated_at: datetime | None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events without their bodies, and the cursor of the page after them."""

    items: list[KeptEvent]
    next: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a sync, and why. `event_id` names the webhook it was, if any."""

    at: datetime
    kind: str
    reason: str
    event_id: str | None


@dataclass(frozen=True, slots=True)
class StepPage:
    """Some steps, oldest first, and the cursor of the page after them."""

    items: list[Step]
    next: str | None


def list_events(
    connection: Connection,
    *,
    reading: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> EventPage:
    """One page of the kept webhooks, newest first. Raises BadRequest for a wrong cursor."""
    statement: Select[Any] = select(*_SHOWN)
    if reading is not None:
        statement = statement.where(events.c.reading == reading)
    if reading not in (None, "ok"):
        statement = statement.where(_ODD)
    page = read_page(connection, statement, _NEWEST_FIRST, cursor=cursor, limit=limit)
    return EventPage([_event(row) for row in page.rows], page.next)


def get_event(connection: Connection, message_id: str, *, with_body: bool) -> KeptEvent:
    """One kept webhook by its message id. Raises NotKnown."""
    columns = list(events.c) if with_body else _SHOWN
    statement: Select[Any] = select(*columns).where(events.c.message_id == message_id)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotKnown("no such event is kept here")
    return _event(row)


def hold_event(connection: Connection, message_id: str) -> KeptEvent:
    """A kept webhook with its body, held until the transaction ends. Raises NotKnown."""
    statement = select(events).where(events.c.message_id == message_id).with_for_update()
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotKnown("no such event is kept here")
    return _event(row)


def _event(row: RowMapping) -> KeptEvent:
    return KeptEvent(**{name: row[name] for name in KeptEvent.__slots__ if name in row})


def timeline(
    connection: Connection,
    number: int,
    company_id: str,
    sync_id: str,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> StepPage:
    """What happened to a sync, oldest first: its webhooks, and what was noted about it."""
    told = select(
        events.c.received_at.label("at"),
        literal(0).label("source"),
        events.c.id,
        literal("delivery").label("kind"),
        events.c.reason,
        events.c.event,
        events.c.event_type,
        events.c.message_id,
    ).where(events.c.company_id == company_id, events.c.sync_id == sync_id)
    done = select(
        notes.c.at, literal(1), notes.c.id, notes.c.kind, notes.c.reason, null(), null(), null()
    ).where(notes.c.sync == number)
    both = union_all(told, done).subquery("steps")
    order = Order("timeline", (both.c.at, both.c.source, both.c.id))
    page = read_page(connection, select(both), order, cursor=cursor, limit=limit)
    return StepPage([_step(row) for row in page.rows], page.next)


def _step(row: RowMapping) -> Step:
    kind = str(row["event"]).replace(".", " ")
    spelled = f"{kind} ({row['event_type']})" if row["event_type"] else kind
    reason = row["reason"] or spelled
    return Step(row["at"], row["kind"], reason, row["message_id"])


def last_heartbeat(connection: Connection) -> datetime | None:
    """When a worker was last seen alive; None when none ever was."""
    newest = select(heartbeats.c.seen_at).order_by(heartbeats.c.seen_at.desc()).limit(1)
    return connection.execute(newest).scalar()


def answers(connection: Connection) -> None:
    """Return when the database answers at all."""
    connection.execute(select(literal(1))).scalar_one()
