"""Queries for outgoing messages: to whom, with which attempts, and what comes next."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, or_, select

from app.db.jobs import IS_DEAD, IS_PENDING
from app.db.outgoing import EVERYONE
from app.db.pagination import Order, Page, read_page
from app.db.retries import DELIVERY_STATES
from app.db.tables import jobs, syncs
from app.db.tables import outgoing_messages as messages
from app.domain.outgoing import DeliveryState
from app.errors import NotFound

_NEWEST_FIRST = Order("outgoing", (messages.c.id,), descending=True)
_IS_MESSAGE = jobs.c.kind == "message"
_COLUMNS = ("id", "message_id", "recipient", "kind", "company_id", "created_at", "ended_at")
_JOB = tuple(
    jobs.c[name].label(f"job_{name}")
    for name in ("state", "run_at", "lease_token", "attempts", "last_error")
)
_ROW: Select[Any] = (
    select(*(messages.c[name] for name in _COLUMNS), syncs.c.sync_id, *_JOB)
    .outerjoin(jobs, and_(_IS_MESSAGE, jobs.c.key == messages.c.id))
    .outerjoin(syncs, syncs.c.id == messages.c.sync_pk)
)


class Attempt(NamedTuple):
    """An attempt to deliver a message, and its result in words."""

    at: datetime
    result: str


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A message to one recipient, which is None until a worker has addressed it.

    `next_attempt_at` is None while an attempt is running, and once the delivery has ended.
    `body` and `attempt_log` are only read for one message.
    """

    id: int
    message_id: str
    recipient: str | None
    kind: str
    company_id: str | None
    sync_id: str | None
    created_at: datetime
    ended_at: datetime | None
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None
    body: str = ""
    attempt_log: Sequence[Attempt] = ()


def list_messages(
    connection: Connection,
    state: DeliveryState | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[MessageRecord]:
    """One page of messages, newest first. Raises BadRequest naming `cursor`."""
    statement = _ROW if state is None else _ROW.where(_has_state(state))
    page = read_page(connection, statement, _NEWEST_FIRST, cursor=cursor, limit=limit)
    return Page([_record(row) for row in page.items], page.next, page.previous)


def _has_state(state: DeliveryState) -> ColumnElement[bool]:
    """Those that wait or have failed are looked up; the others are nearly all."""
    if state == "delivered":
        return jobs.c.state == "done"
    keys = select(jobs.c.key).where(_IS_MESSAGE, IS_DEAD if state == "given_up" else IS_PENDING)
    if state == "given_up":
        return messages.c.id.in_(keys)
    unaddressed = select(messages.c.id).where(messages.c.recipient == EVERYONE)
    return or_(messages.c.id.in_(keys), messages.c.id.in_(unaddressed))


def get_message(connection: Connection, pk: int) -> MessageRecord:
    """One message with its body and its attempts. Raises NotFound."""
    statement = _ROW.add_columns(messages.c.body, messages.c.attempt_log)
    row = connection.execute(statement.where(messages.c.id == pk)).mappings().first()
    if row is None:
        raise NotFound("Message not found")
    return _record(row)


def _record(row: RowMapping) -> MessageRecord:
    is_waiting = row["job_state"] == "pending" and row["job_lease_token"] is None
    more: dict[str, Any] = {}
    if "body" in row:
        log = json.loads(row["attempt_log"] or "[]")
        attempts = [Attempt(datetime.fromisoformat(at), result) for at, result in log]
        more = {"body": row["body"], "attempt_log": attempts}
    return MessageRecord(
        **{name: row[name] for name in (*_COLUMNS, "sync_id") if name != "recipient"},
        recipient=None if row["recipient"] == EVERYONE else row["recipient"],
        state=DELIVERY_STATES[row["job_state"] or "pending"],
        attempts=row["job_attempts"] or 0,
        next_attempt_at=row["job_run_at"] if is_waiting else None,
        last_error=row["job_last_error"],
        **more,
    )
