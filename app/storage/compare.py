"""Compares what Codat lists with what is kept, and owes a fetch for each difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, and_, or_, select, update

from app.rules.news import CodatStatus
from app.rules.status import phase_of
from app.rules.sync import Sync, settle
from app.storage.bulk import insert_new
from app.storage.database import chunked, insert
from app.storage.owed import owe
from app.storage.rows import to_row, to_sync
from app.storage.store import note
from app.storage.tables import companies, duties, fetches, syncs
from app.storage.tally import Tally

Difference = Literal["never_announced", "disagrees", "given_up", "stuck"]


@dataclass(frozen=True, slots=True)
class Found:
    """One sync on which Codat and we differ, and how."""

    sync_id: str
    difference: Difference
    reason: str
    status: CodatStatus


def differences(
    connection: Connection, company_id: str, told: Sequence[CodatStatus], stuck_before: datetime
) -> list[Found]:
    """What differs between Codat's list of a company's syncs and ours. Writes nothing."""
    kept = _kept(connection, company_id, [status.sync_id or "" for status in told])
    found = []
    for status in told:
        if status.sync_id:
            difference = _difference(kept.get(status.sync_id), status, stuck_before)
            if difference:
                found.append(Found(status.sync_id, *difference, status))
    return found


def _kept(
    connection: Connection, company_id: str, sync_ids: Sequence[str]
) -> dict[str, tuple[Sync, str | None]]:
    kept: dict[str, tuple[Sync, str | None]] = {}
    statement = select(syncs, fetches.c.state.label("fetch")).outerjoin(
        fetches, fetches.c.sync == syncs.c.id
    )
    for some in chunked(sync_ids):
        rows = connection.execute(
            statement.where(syncs.c.company_id == company_id, syncs.c.sync_id.in_(some))
        ).mappings()
        kept |= {row["sync_id"]: (to_sync(row), row["fetch"]) for row in rows}
    return kept


def _difference(
    kept: tuple[Sync, str | None] | None, told: CodatStatus, stuck_before: datetime
) -> tuple[Difference, str] | None:
    """How our knowledge differs from Codat's line; None when it agrees or is being asked about."""
    says = f"Codat lists it with {told.status_code}"
    if kept is None:
        return "never_announced", f"{says}, and no webhook announced it"
    sync, fetch = kept
    if fetch == "owed":
        return None
    if phase_of(told.status_code) == "running":
        return _running(sync, told, stuck_before)
    if _key(sync) != _key(told) or sync.asked_at is None:
        return "disagrees", f"{says}, we had {sync.status_code or sync.state}"
    if fetch == "dead" or not sync.items_complete:
        return "given_up", f"{says}, and its transaction list was never read to the end"
    return None


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
    moment = told.codat_utc if isinstance(told, Sync) else told.sync_utc
    messages = (told.error_message, told.exception_message)
    return (told.status_code, told.status, *messages, told.data_pushed, moment)


def mend(connection: Connection, company_id: str, found: Sequence[Found], now: datetime) -> None:
    """Know every sync Codat lists; owe a fetch for each that differs, and say why."""
    new = [each for each in found if each.difference == "never_announced"]
    _insert_unannounced(connection, company_id, new, now)
    for some in chunked(found):
        rows = connection.execute(
            select(syncs.c.id, syncs.c.sync_id).where(
                syncs.c.company_id == company_id,
                syncs.c.sync_id.in_([each.sync_id for each in some]),
            )
        )
        ids = {row.sync_id: row.id for row in rows}
        owe(connection, sorted(ids.values()), now)
        for each in some:
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
    made = {
        sync_id: settle(
            Sync(company_id=company_id, sync_id=sync_id, first_seen_at=now),
            status,
            asked_at=now,
            fresh=False,
        )
        for sync_id, status in sorted(blank.items())
    }
    rows = [to_row(sync, updated_at=now) for sync in made.values()]
    key = ("company_id", "sync_id")
    tally = Tally()
    for row in insert_new(connection, syncs, rows, unless=key, returning=("id", "sync_id")):
        tally.sync(row.id, None, made[row.sync_id])
    tally.write(connection)


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


def know_company(
    connection: Connection, company_id: str, name: str | None, as_of: datetime
) -> None:
    """Keep a company that Codat lists, its name as of now, and that it was compared."""
    statement = insert(connection, companies)
    values = {"name": name, "name_folded": name.casefold(), "name_as_of": as_of} if name else {}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["company_id"], set_=values | {"reconciled_at": as_of}
        ),
        {"company_id": company_id, "reconciled_at": as_of, **values},
    )
