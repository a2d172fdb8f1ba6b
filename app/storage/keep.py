"""Keeps what Codat delivers: many events in one commit, each exactly once.

One transaction holds the raw events, the syncs they speak of, and the fetches those owe. A known
message id is no news; it only starts again what was left undone. Rows are always locked in the
same order (events, companies, syncs, fetches; by key within each), so that two replicas that
write at once wait for each other and never deadlock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, or_, select, tuple_, update

from app.rules.news import Delivery, Item
from app.rules.sync import (
    TERMINAL,
    Sync,
    inline_key,
    inline_wins,
    tell,
    with_items,
)
from app.storage import gate
from app.storage.bulk import insert_new, inserting, put
from app.storage.database import insert
from app.storage.items import replace_items
from app.storage.owed import owe, owe_again
from app.storage.rows import to_row, to_sync
from app.storage.tables import companies, events, notes, syncs
from app.storage.tally import Tally

SyncKey = tuple[str, str]


@dataclass(slots=True)
class Kept:
    """What one commit did: the message ids that were new, and whether a fetch is owed now."""

    new: set[str] = field(default_factory=set)
    owes: bool = False


@dataclass(slots=True)
class _Merged:
    """A sync while the news of this commit is folded into it."""

    sync: Sync
    items: tuple[Item, ...] | None = None


def keep_all(connection: Connection, deliveries: Sequence[Delivery]) -> Kept:
    """Keep these deliveries and all they cause, inside the caller's transaction."""
    by_id: dict[str, Delivery] = {}
    again = [each for each in deliveries if by_id.setdefault(each.message_id, each) is not each]
    new = _insert_events(connection, by_id.values())
    news = [by_id[message_id] for message_id in sorted(new)]
    again += [delivery for message_id, delivery in by_id.items() if message_id not in new]
    kept = Kept(new=new)
    tally = Tally()
    kept.owes |= _merge_news(connection, news, tally)
    kept.owes |= _note_repeats(connection, again)
    for delivery in news:
        gate.heed(connection, delivery)
    tally.write(connection)
    return kept


def keep_raw(connection: Connection, delivery: Delivery, reason: str) -> None:
    """Keep one event whose meaning the database refused, so that nothing is lost."""
    row = _event_row(delivery) | {"reading": "unreadable", "reason": reason}
    row |= dict.fromkeys(("event_type", "event_id", "company_id", "sync_id", "generated_at"))
    connection.execute(insert(connection, events).on_conflict_do_nothing(), row)


def _insert_events(connection: Connection, deliveries: Iterable[Delivery]) -> set[str]:
    rows = [_event_row(delivery) for delivery in sorted(deliveries, key=lambda d: d.message_id)]
    new = insert_new(connection, events, rows, unless=("message_id",), returning=("message_id",))
    return {row.message_id for row in new}


def _event_row(delivery: Delivery) -> dict[str, Any]:
    event = delivery.event
    return {
        "message_id": delivery.message_id,
        "received_at": delivery.received_at,
        "event": event.event,
        "event_type": event.event_type,
        "reading": event.reading,
        "reason": event.reason,
        "event_id": event.event_id,
        "company_id": event.company_id,
        "sync_id": event.sync_id,
        "generated_at": event.generated_at,
        "body": delivery.body,
    }


def _merge_news(connection: Connection, news: Sequence[Delivery], tally: Tally) -> bool:
    """Fold the news into companies and syncs; True when that makes a fetch owed."""
    _merge_companies(connection, news)
    by_sync: dict[SyncKey, list[Delivery]] = {}
    for delivery in news:
        if delivery.event.speaks_of_a_sync:
            by_sync.setdefault(_key(delivery), []).append(delivery)
    if not by_sync:
        return False
    now = max(delivery.received_at for delivery in news)
    ids = _insert_syncs(connection, by_sync, now, tally)
    known = {key: told for key, told in by_sync.items() if key not in ids}
    if known:
        ids |= _update_syncs(connection, known, now, tally)
    owed = [ids[key] for key, told in by_sync.items() if _is_terminal(told)]
    owe(connection, owed, now)
    return bool(owed)


def _key(delivery: Delivery) -> SyncKey:
    return delivery.event.company_id or "", delivery.event.sync_id or ""


def _is_terminal(told: Iterable[Delivery]) -> bool:
    return any(tell(_blank(d), d.event, d.received_at).heard & TERMINAL for d in told)


def _blank(delivery: Delivery) -> Sync:
    company_id, sync_id = _key(delivery)
    return Sync(company_id=company_id, sync_id=sync_id)


def _fold(sync: Sync, told: Iterable[Delivery]) -> _Merged:
    merged = _Merged(sync)
    for delivery in told:
        event = delivery.event
        merged.sync = tell(merged.sync, event, delivery.received_at)
        key = inline_key(event, delivery.message_id)
        if event.transactions is not None and inline_wins(merged.sync, key):
            merged.items = event.transactions
            merged.sync = with_items(merged.sync, merged.items, source="webhook", key=key)
    return merged


def _insert_syncs(
    connection: Connection, by_sync: dict[SyncKey, list[Delivery]], now: datetime, tally: Tally
) -> dict[SyncKey, int]:
    """Insert the syncs heard of for the first time; returns their keys' ids."""
    merged = {key: _fold(_blank(told[0]), told) for key, told in sorted(by_sync.items())}
    rows = [to_row(each.sync, updated_at=now) for each in merged.values()]
    key = ("company_id", "sync_id")
    inserted = insert_new(connection, syncs, rows, unless=key, returning=("id", *key))
    ids: dict[SyncKey, int] = {(row.company_id, row.sync_id): row.id for row in inserted}
    for key, number in ids.items():
        tally.sync(number, None, merged[key].sync)
        _write_inline_items(connection, number, merged[key], tally)
    return ids


def _update_syncs(
    connection: Connection, by_sync: dict[SyncKey, list[Delivery]], now: datetime, tally: Tally
) -> dict[SyncKey, int]:
    """Merge the news into syncs that are already here; returns their keys' ids."""
    rows = connection.execute(
        select(syncs)
        .where(tuple_(syncs.c.company_id, syncs.c.sync_id).in_(list(by_sync)))
        .order_by(syncs.c.company_id, syncs.c.sync_id)
        .with_for_update(key_share=True)
    ).mappings()
    ids = {}
    changed = []
    for row in rows.all():
        key = (row["company_id"], row["sync_id"])
        ids[key] = row["id"]
        before = to_sync(row)
        merged = _fold(before, by_sync[key])
        if merged.sync != before:
            changed.append(to_row(merged.sync, updated_at=now) | {"row_id": row["id"]})
            tally.sync(row["id"], before, merged.sync)
            _write_inline_items(connection, row["id"], merged, tally)
    if changed:
        connection.execute(update(syncs).where(syncs.c.id == bindparam("row_id")), changed)
    return ids


def _write_inline_items(connection: Connection, number: int, merged: _Merged, tally: Tally) -> None:
    if merged.items is not None:
        replaced = replace_items(connection, number, merged.items)
        tally.items(merged.sync.company_id, *replaced)


def _merge_companies(connection: Connection, news: Sequence[Delivery]) -> None:
    """Know every company spoken of; its name is the one told last by Codat's clock."""
    named: dict[str, tuple[datetime, str]] = {}
    seen: set[str] = set()
    for delivery in news:
        event = delivery.event
        if event.company_id:
            seen.add(event.company_id)
        if event.company_id and event.company_name:
            told = (event.generated_at or delivery.received_at, event.company_name)
            named[event.company_id] = max(told, named.get(event.company_id, told))
    _insert_companies(connection, sorted(seen - named.keys()))
    _name_companies(connection, named)


def _insert_companies(connection: Connection, company_ids: Sequence[str]) -> None:
    if company_ids:
        rows = [{"company_id": company_id} for company_id in company_ids]
        put(connection, inserting(connection, companies, rows).on_conflict_do_nothing(), rows)


def _name_companies(connection: Connection, named: dict[str, tuple[datetime, str]]) -> None:
    if not named:
        return
    rows = [
        {
            "company_id": company_id,
            "name": name,
            "name_folded": name.casefold(),
            "name_as_of": as_of,
        }
        for company_id, (as_of, name) in sorted(named.items())
    ]
    statement = inserting(connection, companies, rows)
    told = statement.excluded
    later = or_(
        companies.c.name_as_of.is_(None),
        companies.c.name_as_of < told.name_as_of,
        (companies.c.name_as_of == told.name_as_of) & (companies.c.name < told.name),
    )
    set_ = {name: told[name] for name in ("name", "name_folded", "name_as_of")}
    named_later = statement.on_conflict_do_update(
        index_elements=["company_id"], set_=set_, where=later
    )
    put(connection, named_later, rows)


def _note_repeats(connection: Connection, again: Sequence[Delivery]) -> bool:
    """Note each redelivery, and start again what an earlier one left undone."""
    spoken = [delivery for delivery in again if delivery.event.speaks_of_a_sync]
    if not spoken:
        return False
    keys = sorted({_key(delivery) for delivery in spoken})
    found = connection.execute(
        select(syncs.c.id, syncs.c.company_id, syncs.c.sync_id).where(
            tuple_(syncs.c.company_id, syncs.c.sync_id).in_(keys)
        )
    ).all()
    ids = {(row.company_id, row.sync_id): row.id for row in found}
    now = max(delivery.received_at for delivery in spoken)
    rows = [_repeat_note(ids[_key(d)], d) for d in spoken if _key(d) in ids]
    if rows:
        connection.execute(notes.insert(), rows)
    return owe_again(connection, sorted(ids.values()), now)


def _repeat_note(sync: int, delivery: Delivery) -> dict[str, Any]:
    return {
        "sync": sync,
        "at": delivery.received_at,
        "kind": "duplicate",
        "reason": f"message {delivery.message_id} came again: known already, told nothing new",
    }
