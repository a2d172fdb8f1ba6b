"""The messages we owe others: owing, claiming, putting off, giving up.

As in `owed`: one column, `due`, is the time to start while a message waits, and the end of the
lease while a worker has it; the attempt is counted at the claim; every later write is fenced by the
claim's token. One row per recipient, so that one who is down delays nobody else.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from app.db.tables_told import outgoing
from app.domain.outgoing import NOBODY, Kind, Recipients, message

_FORGET_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Message:
    """A message that this worker, and nobody else, may deliver until its lease ends."""

    number: int
    message_id: str
    recipient: str
    kind: Kind
    body: str
    sync: int | None
    token: str
    attempts: int


def recipients(connection: Connection) -> Recipients:
    """Whom this process tells; the database was opened with it."""
    found: Recipients = connection.get_execution_options().get("recipients", NOBODY)
    return found


def owe(
    connection: Connection,
    kind: Kind,
    told: Mapping[str, Any],
    at: datetime,
    *,
    to: Sequence[str],
    sync: int | None = None,
    content: str | None = None,
) -> str:
    """Owe one message to each of these recipients, from now on; returns its id.

    `content` is a digest of what it says, by which a repetition can be known.
    """
    message_id = f"msg_{uuid.uuid4().hex}"
    rows = [
        {
            "message_id": message_id,
            "recipient": recipient,
            "kind": kind,
            "company_id": told.get("company_id"),
            "sync": sync,
            "content": content,
            "body": message(kind, at, told),
            "owed_at": at,
            "state": "owed",
            "due": at,
            "attempts": 0,
        }
        for recipient in to
    ]
    if rows:
        connection.execute(outgoing.insert(), rows)
    return message_id


def said_lately(
    connection: Connection, sync: int, kind: Kind, content: str, since: datetime
) -> str | None:
    """The id of the message of this kind and content that was owed since a time, if any."""
    return connection.execute(
        select(outgoing.c.message_id)
        .where(outgoing.c.sync == sync, outgoing.c.kind == kind)
        .where(outgoing.c.content == content, outgoing.c.owed_at > since)
        .limit(1)
    ).scalar()


def are_due(connection: Connection, names: Collection[str], now: datetime) -> list[str]:
    """Which of these recipients have a message that is due; a read, to spare the write."""
    return [
        name
        for name in names
        if connection.execute(
            select(outgoing.c.id)
            .where(outgoing.c.recipient == name, outgoing.c.due <= now)
            .limit(1)
        ).first()
    ]


def claim(
    connection: Connection, recipient: str, *, now: datetime, lease: timedelta, limit: int
) -> list[Message]:
    """Take up to `limit` due messages to one recipient, those due longest first."""
    token = uuid.uuid4().hex
    due = (
        select(outgoing.c.id)
        .where(outgoing.c.recipient == recipient, outgoing.c.due <= now)
        .order_by(outgoing.c.due, outgoing.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due_messages")
    )
    names = ("message_id", "recipient", "kind", "body", "sync", "token", "attempts")
    taken = connection.execute(
        update(outgoing)
        .where(outgoing.c.id.in_(select(due.c.id)))
        .values(due=now + lease, token=token, attempts=outgoing.c.attempts + 1)
        .returning(outgoing.c.id, *(outgoing.c[name] for name in names))
    )
    return [Message(*row) for row in sorted(taken.all(), key=lambda row: row.id)]


def _mine(claimed: Message) -> ColumnElement[bool]:
    return and_(outgoing.c.id == claimed.number, outgoing.c.token == claimed.token)


def _end(connection: Connection, claimed: Message, **values: Any) -> bool:
    written = connection.execute(
        update(outgoing).where(_mine(claimed)).values(token=None, **values).returning(outgoing.c.id)
    )
    return written.first() is not None


def finish(connection: Connection, claimed: Message, now: datetime) -> bool:
    """It was delivered; False when the claim was lost meanwhile."""
    return _end(connection, claimed, state="sent", due=None, last_error=None, ended_at=now)


def put_off(
    connection: Connection, claimed: Message, *, until: datetime, error: str | None
) -> bool:
    """Give the message back until a time."""
    return _end(connection, claimed, due=until, last_error=error)


def give_back(connection: Connection, claimed: Message, now: datetime) -> bool:
    """Let another worker deliver it at once; the attempt was none."""
    return _end(connection, claimed, due=now, attempts=outgoing.c.attempts - 1)


def give_up(connection: Connection, claimed: Message, reason: str, now: datetime) -> bool:
    """Stop trying, visibly; `redrive` brings it back."""
    return _end(connection, claimed, state="dead", due=None, last_error=reason, ended_at=now)


def abandon(
    connection: Connection, known: Collection[str], *, before: datetime, now: datetime
) -> int:
    """Give up what has long been owed to addresses that are no longer set; returns how many."""
    gone = connection.execute(
        update(outgoing)
        .where(outgoing.c.state == "owed", outgoing.c.recipient.not_in(sorted(known)))
        .where(outgoing.c.owed_at < before)
        .values(state="dead", due=None, ended_at=now, last_error="its address is no longer set")
        .returning(outgoing.c.id)
    )
    return len(gone.scalars().all())


def redrive(connection: Connection, now: datetime) -> int:
    """Put given-up messages back to work; returns how many."""
    back = connection.execute(
        update(outgoing)
        .where(outgoing.c.state == "dead")
        .values(state="owed", due=now, attempts=0, ended_at=None)
        .returning(outgoing.c.id)
    )
    return len(back.scalars().all())


def given_up(connection: Connection) -> dict[str, int]:
    """How many messages were given up, by recipient."""
    found = connection.execute(
        select(outgoing.c.recipient, func.count())
        .where(outgoing.c.state == "dead")
        .group_by(outgoing.c.recipient)
        .order_by(outgoing.c.recipient)
    )
    return {row[0]: row[1] for row in found}


def forget_messages(connection: Connection, before: datetime) -> int:
    """Forget up to a thousand messages sent or given up before a time; returns how many."""
    old = (
        select(outgoing.c.id)
        .where(outgoing.c.state.in_(("sent", "dead")), outgoing.c.ended_at < before)
        .limit(_FORGET_AT_ONCE)
    )
    gone = connection.execute(
        delete(outgoing).where(outgoing.c.id.in_(old)).returning(outgoing.c.id)
    )
    return len(gone.scalars().all())
