"""Compares what Codat lists with what is kept, and owes a fetch for each difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, and_, case, or_, select, update

from app.db.bulk import insert_new, write
from app.db.engine import insert, rules_of
from app.db.jobs import owe
from app.db.journal import Entry
from app.db.slices import chunked
from app.db.sync_rows import to_row, to_sync
from app.db.sync_writer import note
from app.db.tables import companies, duties, fetches, notes, syncs
from app.domain.models import CodatStatus
from app.domain.status_codes import phase_of
from app.domain.sync_state import Sync, settle

ONCE_A = timedelta(days=1)  # what asking again may not mend is asked again once a day
Difference = Literal["never_announced", "disagrees", "given_up", "incomplete", "stuck"]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A sync as we have it, and what became of its fetch."""

    number: int
    sync: Sync
    fetch: str | None
    refused_at: datetime | None


class Named(NamedTuple):
    """What Codat's list of companies calls one, and when that list was asked for."""

    name: str | None
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """One sync on which Codat and we differ, and how."""

    sync_id: str
    difference: Difference
    reason: str
    status: CodatStatus


def differences(
    connection: Connection,
    company_id: str,
    told: Sequence[CodatStatus],
    *,
    now: datetime,
    stuck_after: timedelta,
) -> list[Found]:
    """What differs between Codat's list of a company's syncs and ours. Writes nothing."""
    kept = _kept(connection, company_id, [status.sync_id or "" for status in told])
    found = []
    for status in told:
        if status.sync_id:
            ours = kept.get(status.sync_id)
            difference = _difference(ours, status, now, stuck_after)
            if not difference and ours and _is_worded_apart(connection, ours, status, now):
                difference = "disagrees", f"Codat lists it as “{status.error_message}”"
            if difference:
                found.append(Found(status.sync_id, *difference, status))
    return found


def _is_worded_apart(connection: Connection, kept: _Kept, told: CodatStatus, now: datetime) -> bool:
    """Codat's list has other texts than its status had, and we have not asked because of it lately.

    A retry in the Portal changes them; but list and status may word them apart for ever.
    """
    sync = kept.sync
    ours = (sync.error_message, sync.exception_message)
    if kept.fetch != "settled" or ours == (told.error_message, told.exception_message):
        return False
    lately = select(notes.c.sync).where(
        notes.c.sync == kept.number, notes.c.kind == "reconcile", notes.c.at > now - ONCE_A
    )
    return connection.execute(lately.limit(1)).first() is None


def _kept(connection: Connection, company_id: str, sync_ids: Sequence[str]) -> dict[str, _Kept]:
    kept: dict[str, _Kept] = {}
    statement = select(syncs, fetches.c.state.label("fetch"), fetches.c.refused_at).outerjoin(
        fetches, fetches.c.sync == syncs.c.id
    )
    for some in chunked(sync_ids):
        rows = connection.execute(
            statement.where(syncs.c.company_id == company_id, syncs.c.sync_id.in_(some))
        ).mappings()
        kept |= {
            row["sync_id"]: _Kept(row["id"], to_sync(row), row["fetch"], row["refused_at"])
            for row in rows
        }
    return kept


def _difference(
    kept: _Kept | None, told: CodatStatus, now: datetime, stuck_after: timedelta
) -> tuple[Difference, str] | None:
    """How our knowledge differs from Codat's line; None when it agrees or is being asked about."""
    says = f"Codat lists it with {told.status_code}"
    if kept is None:
        return "never_announced", f"{says}, and no webhook announced it"
    if kept.fetch == "owed":
        return None
    if phase_of(told.status_code) == "running":
        return _running(kept.sync, told, now - stuck_after)
    if kept.fetch == "dead":
        reason = f"{says}, and our asking about it was given up"
        return None if _is_refused(kept, told, now) else ("given_up", reason)
    if kept.sync.asked_at is None or _key(kept.sync) != _key(told):
        return "disagrees", f"{says}, we had {kept.sync.status_code or kept.sync.state}"
    if not kept.sync.items_complete:
        return "incomplete", f"{says}, and its transaction list was never read to the end"
    return None


def _is_refused(kept: _Kept, told: CodatStatus, now: datetime) -> bool:
    """Codat refused for good not long ago, and its line has not changed since."""
    if kept.refused_at is None or kept.refused_at <= now - ONCE_A:
        return False
    return kept.sync.asked_at is None or _key(kept.sync) == _key(told)


def _running(
    sync: Sync, told: CodatStatus, stuck_before: datetime
) -> tuple[Difference, str] | None:
    if sync.state != "started":
        return "disagrees", f"Codat lists it with {told.status_code}, we had it {sync.state}"
    since = sync.started_at or sync.first_seen_at
    asked = sync.asked_at or since
    if since and asked and since < stuck_before and asked < stuck_before:
        return "stuck", f"in progress since {since:%Y-%m-%d %H:%M}, Codat says {told.status_code}"
    return None


def _key(told: Sync | CodatStatus) -> tuple[object, ...]:
    """What must agree at once; the texts are looked at with more patience."""
    moment = told.codat_utc if isinstance(told, Sync) else told.sync_utc
    return (told.status_code, told.data_pushed, moment)


def mend(connection: Connection, company_id: str, found: Sequence[Found], now: datetime) -> None:
    """Know every sync Codat lists; owe a fetch for each that differs, and say why.

    Some at a time (`slices.chunked`). The caller holds the company's row, as whoever keeps a
    delivery does before it makes a sync.
    """
    new = [each for each in found if each.difference == "never_announced"]
    _insert_unannounced(connection, company_id, new, now)
    rows = connection.execute(
        select(syncs.c.id, syncs.c.sync_id).where(
            syncs.c.company_id == company_id,
            syncs.c.sync_id.in_([each.sync_id for each in found]),
        )
    )
    ids = {row.sync_id: row.id for row in rows}
    owe(connection, sorted(ids.values()), now)
    for each in found:
        if each.sync_id in ids:  # else it was erased meanwhile
            note(connection, ids[each.sync_id], "reconcile", each.reason, now)


def _insert_unannounced(
    connection: Connection, company_id: str, found: Sequence[Found], now: datetime
) -> None:
    """Start from Codat's line; the fetch that is owed completes it."""
    if not found:
        return
    connection.execute(
        insert(connection, companies).on_conflict_do_nothing(), {"company_id": company_id}
    )
    blank = {each.sync_id: each.status for each in found}
    first = {
        sync_id: settle(
            Sync(company_id=company_id, sync_id=sync_id, first_seen_at=now),
            status,
            asked_at=now,
            fresh=False,
        )
        for sync_id, status in sorted(blank.items())
    }
    rules = rules_of(connection)
    rows = {sync_id: to_row(sync, updated_at=now, rules=rules) for sync_id, sync in first.items()}
    key = ("company_id", "sync_id")
    new = insert_new(connection, syncs, [*rows.values()], unless=key, returning=("sync_id", "id"))
    entry = Entry()
    for sync_id, number in sorted(new):
        entry.sync(number, None, None, rows[sync_id], now)
    write(connection, entry.written())


def owe_stuck(connection: Connection, *, before: datetime, now: datetime, limit: int = 200) -> int:
    """Owe a status question for syncs in progress since before a time; returns how many."""
    quiet = or_(syncs.c.asked_at.is_(None), syncs.c.asked_at < before)
    rows = connection.execute(
        select(syncs.c.id)
        .outerjoin(fetches, and_(fetches.c.sync == syncs.c.id, fetches.c.state != "settled"))
        .where(syncs.c.state == "started", syncs.c.updated_at < before, quiet)
        .where(fetches.c.sync.is_(None))
        .order_by(syncs.c.updated_at)
        .limit(limit)
    )
    ids = sorted(rows.scalars())
    owe(connection, ids, now)
    for number in ids:
        note(connection, number, "stuck", "in progress for long: Codat is asked about it", now)
    return len(ids)


def is_due(connection: Connection, name: str, now: datetime) -> bool:
    """True when nobody has done this duty in its period; a read, to spare the write."""
    due = connection.execute(select(duties.c.due).where(duties.c.name == name)).scalar()
    return due is None or due <= now


def take_duty(connection: Connection, name: str, *, now: datetime, every: timedelta) -> bool:
    """True for exactly one caller of any number of replicas in each period."""
    fresh = insert(connection, duties).on_conflict_do_nothing().returning(duties.c.name)
    if connection.execute(fresh, {"name": name, "due": now + every}).first():
        return True
    taken = connection.execute(
        update(duties)
        .where(duties.c.name == name, duties.c.due <= now)
        .values(due=now + every)
        .returning(duties.c.name)
    )
    return taken.first() is not None


def reconciled_at(connection: Connection) -> dict[str, datetime]:
    """When each company was compared last; those that never were are left out."""
    found = connection.execute(
        select(companies.c.company_id, companies.c.reconciled_at).where(
            companies.c.reconciled_at.is_not(None)
        )
    )
    return {row.company_id: row.reconciled_at for row in found}


def know_company(connection: Connection, company_id: str, named: Named, now: datetime) -> None:
    """Keep a company that Codat lists, and that it was compared; its name, if told last of all."""
    statement = insert(connection, companies)
    told, known = statement.excluded, companies.c.name_as_of
    later = and_(told.name.is_not(None), or_(known.is_(None), known < told.name_as_of))
    new: dict[str, Any] = {
        each: case((later, told[each]), else_=companies.c[each])
        for each in ("name", "name_folded", "name_as_of")
    }
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["company_id"], set_=new | {"reconciled_at": told.reconciled_at}
        ),
        {
            "company_id": company_id,
            "name": named.name,
            "name_folded": named.name and named.name.casefold(),
            "name_as_of": named.as_of if named.name else None,
            "reconciled_at": now,
        },
    )
