"""Syncs that are started here: one at a time per company, and known from the first moment."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, select

from app.db.bulk import insert_new, write
from app.db.engine import insert, rules_of
from app.db.journal import Entry
from app.db.sync_rows import to_row
from app.db.sync_writer import note
from app.db.tables import companies, starts, syncs
from app.domain.sync_state import Sync

REMEMBERED = timedelta(minutes=85)  # Codat remembers an idempotency key for 90 minutes


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to start a sync of a company; `key` is the idempotency key to do it with."""

    company_id: str
    key: str


def take_turn(
    connection: Connection, company_id: str, wanted: str, *, now: datetime, until: datetime
) -> Turn | None:
    """A turn for one caller at a time per company, of all replicas; at the longest until a time.

    A turn that ended without anybody knowing what became of it leaves its key to the next one that
    wants the same, for as long as Codat remembers keys.
    """
    statement = insert(connection, starts)
    told = statement.excluded
    same = (starts.c.wanted == told.wanted) & (starts.c.until > now - REMEMBERED)
    taken = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["company_id"],
            set_={
                "key": case((same, starts.c.key), else_=told.key),
                "wanted": told.wanted,
                "until": told.until,
            },
            where=starts.c.until <= now,
        ).returning(starts.c.key),
        {"company_id": company_id, "key": str(uuid.uuid4()), "wanted": wanted, "until": until},
    ).first()
    return Turn(company_id, taken.key) if taken else None


def end_turn(connection: Connection, turn: Turn, now: datetime, *, known: bool) -> None:
    """Let the next caller have it; `known` says that it is known what became of the start."""
    mine = (starts.c.company_id == turn.company_id) & (starts.c.key == turn.key)
    ended = starts.delete() if known else starts.update().values(until=now)
    connection.execute(ended.where(mine))


def running_since(connection: Connection, company_id: str, since: datetime) -> list[str]:
    """The ids of the company's syncs in progress that were first heard of since a time."""
    found = connection.execute(
        select(syncs.c.sync_id)
        .where(syncs.c.company_id == company_id, syncs.c.state == "started")
        .where(syncs.c.occurred_at >= since, syncs.c.first_seen_at >= since)
        .order_by(syncs.c.occurred_at.desc())
    )
    return list(found.scalars())


def keep_started(
    connection: Connection, company_id: str, sync_id: str, reason: str, now: datetime
) -> None:
    """Know a sync that Codat has just started for us, and say so in its timeline.

    A webhook may have told of it already; then only the note is added.
    """
    known = insert(connection, companies).on_conflict_do_nothing()
    connection.execute(known, {"company_id": company_id})
    started = Sync(company_id=company_id, sync_id=sync_id, started_at=now, first_seen_at=now)
    row = to_row(started, updated_at=now, rules=rules_of(connection))
    key = ("company_id", "sync_id")
    entry = Entry()
    for (number,) in insert_new(connection, syncs, [row], unless=key, returning=("id",)):
        entry.sync(number, None, None, row, now)
    write(connection, entry.written())
    number = connection.execute(
        select(syncs.c.id).where(syncs.c.company_id == company_id, syncs.c.sync_id == sync_id)
    ).scalar_one()
    note(connection, number, "initiated", reason, now)
