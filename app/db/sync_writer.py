"""Other writes: what Codat answered, what we noted, who lives."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, RowMapping, func, select, update

from app.db import announcements as announce
from app.db import change_feed as changes
from app.db import jobs as owed
from app.db.bulk import write
from app.db.engine import insert, rules_of
from app.db.jobs import Claim
from app.db.journal import Entry
from app.db.sync_rows import to_row, to_sync
from app.db.tables import heartbeats, notes, syncs
from app.db.transaction_rows import replace_items
from app.domain.models import CodatStatus, Item
from app.domain.sync_state import Sync, settle, with_items
from app.errors import Conflicting


@dataclass(frozen=True, slots=True)
class Answer:
    """What Codat said about one sync, asked for at `asked_at`.

    `items` is None when the list was not asked for (the sync is still running) or was refused.
    """

    status: CodatStatus
    asked_at: datetime
    items: tuple[Item, ...] | None = None
    expected: int | None = None
    steady: bool = True


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an answer made of the sync; `fresh` says that news came in while Codat was asked."""

    before: Sync
    after: Sync
    fresh: bool


def record(
    connection: Connection, claimed: Claim, answer: Answer, *, now: datetime
) -> Recorded | None:
    """Make the sync what Codat says it is, item set and all; None when the claim was lost.

    The caller then says in the same transaction what becomes of the fetch.
    """
    announce.take_turn(connection, claimed.company_id)
    row = _locked(connection, claimed.sync)
    wanted = owed.wanted_now(connection, claimed)
    if row is None or wanted is None:
        return None
    fresh = wanted != claimed.wanted
    before = to_sync(row)
    after = _answered(before, answer, fresh=fresh, now=now)
    changed_at = now if after != before else row["updated_at"]
    values = to_row(after, updated_at=changed_at, rules=rules_of(connection))
    connection.execute(update(syncs).where(syncs.c.id == claimed.sync).values(values))
    entry = Entry()
    entry.sync(claimed.sync, before, row, values, now)
    if answer.items is not None:
        had = changes.kept_items(connection, claimed.sync)
        code = after.status_code
        replace_items(connection, claimed.sync, answer.items, status_code=code)
        entry.items(after, had, answer.items, now)
        listed = had if before.items_from == "codat" else []
        announce.cured(connection, claimed.sync, after, listed, answer.items, now)
    write(connection, entry.written())
    announce.ended(connection, claimed.sync, after, "owed", now)
    return Recorded(before, after, fresh)


def _locked(connection: Connection, number: int) -> RowMapping | None:
    statement = select(syncs).where(syncs.c.id == number).with_for_update(key_share=True)
    return connection.execute(statement).mappings().first()


def _answered(sync: Sync, answer: Answer, *, fresh: bool, now: datetime) -> Sync:
    """Whoever holds the claim asked last, though another host's clock was ahead of its own."""
    asked_at = max(answer.asked_at, sync.asked_at or answer.asked_at)
    said = settle(sync, answer.status, asked_at=asked_at, fresh=fresh)
    if answer.items is None:
        return said
    return with_items(
        said,
        answer.items,
        source="codat",
        expected=answer.expected,
        steady=answer.steady,
        at=now,
    )


def note(connection: Connection, sync: int, kind: str, reason: str, at: datetime) -> None:
    """Say in the sync's timeline what was done and why."""
    connection.execute(
        notes.insert(), {"sync": sync, "at": at, "kind": kind, "reason": reason[:1000]}
    )


def refresh(connection: Connection, sync_id: str, company_id: str | None, now: datetime) -> bool:
    """Owe a fetch for a known sync; False when there is no such sync.

    Raises Conflicting when two companies have a sync of this id and none was named.
    """
    found = _find(connection, sync_id, company_id)
    if len(found) > 1:
        raise Conflicting("several companies have a sync of this id: say which company_id")
    for row in found:
        owed.owe(connection, [row.id], now)
        note(connection, row.id, "refresh", "somebody asked to ask Codat again", now)
    return bool(found)


def _find(connection: Connection, sync_id: str, company_id: str | None) -> list[Row[tuple[int]]]:
    statement = select(syncs.c.id).where(syncs.c.sync_id == sync_id)
    if company_id is not None:
        statement = statement.where(syncs.c.company_id == company_id)
    return list(connection.execute(statement).all())


def beat(connection: Connection, worker: str, now: datetime) -> None:
    """Say that this worker lives."""
    statement = insert(connection, heartbeats)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["worker"], set_={"seen_at": now}),
        {"worker": worker, "seen_at": now},
    )


def workers_alive(connection: Connection, since: datetime) -> int:
    """How many workers have said since a time that they live."""
    seen = select(func.count()).select_from(heartbeats).where(heartbeats.c.seen_at >= since)
    return connection.execute(seen).scalar_one()


def forget_worker(connection: Connection, worker: str) -> None:
    """Say that this worker has ended well."""
    connection.execute(heartbeats.delete().where(heartbeats.c.worker == worker))
