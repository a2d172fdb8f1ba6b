"""Keeps what Codat delivers: many events in one commit, each exactly once.

One transaction holds the raw events, the syncs they speak of, the fetches those owe, and what is
to be told and counted of all that. A known
message id is no news; it only starts again what was left undone. Rows are always locked in the
same order (events, companies, connections, syncs, fetches, the gate; by key within each), so that
two replicas that write at once wait for each other and never deadlock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, tuple_, update

from app.db import change_feed as changes
from app.db import jobs as owed
from app.db import rate_limit as gate
from app.db.bulk import Write, changing, insert_new, insertion, write
from app.db.companies import spoken_of
from app.db.connections import merge_told
from app.db.engine import insert, rules_of
from app.db.journal import Entry
from app.db.sync_rows import to_row, to_sync
from app.db.tables import events, notes, syncs
from app.db.transaction_rows import listed, replace_items
from app.domain.models import Delivery, Item
from app.domain.sync_state import ENDINGS, Sync, inline_key, inline_wins, tell, with_items

SyncKey = tuple[str, str]
NEVER = datetime.min.replace(tzinfo=UTC)


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


@dataclass(slots=True)
class _Effects:
    """What this commit writes when it knows all: rows, and what others must be told of them."""

    entry: Entry = field(default_factory=Entry)
    changed: list[dict[str, Any]] = field(default_factory=list)
    fresh: dict[int, _Merged] = field(default_factory=dict)

    def first_items(self, number: int, merged: _Merged, now: datetime) -> None:
        """A sync that had no items has those of the news."""
        self.entry.items(merged.sync, [], merged.items or (), now)
        self.fresh[number] = merged

    def writes(self, connection: Connection) -> tuple[Write, ...]:
        """The rows of syncs, of their first items, and of the journal."""
        items = {number: each.items or () for number, each in self.fresh.items()}
        codes = {number: each.sync.status_code for number, each in self.fresh.items()}
        return (
            changing(syncs, self.changed),
            listed(connection, items, codes),
            self.entry.written(),
        )


def keep_all(connection: Connection, deliveries: Sequence[Delivery]) -> Kept:
    """Keep these deliveries and all they cause, inside the caller's transaction."""
    by_id: dict[str, Delivery] = {}
    again = [each for each in deliveries if by_id.setdefault(each.message_id, each) is not each]
    new = _insert_events(connection, by_id.values(), spoken_of(by_id.values()))
    news = [by_id[message_id] for message_id in sorted(new)]
    again += [delivery for message_id, delivery in by_id.items() if message_id not in new]
    effects = _Effects()
    ended = _merge_news(connection, news, effects)
    repeated = _note_repeats(connection, again)
    if ended and repeated:
        owed.lock(connection, ended | repeated)
    write(connection, *effects.writes(connection), owed.owing(sorted(ended), _latest(news)))
    restarted = owed.owe_again(connection, sorted(repeated), _latest(again))
    for delivery in news:
        gate.heed(connection, delivery)
    return Kept(new=new, owes=bool(ended) or restarted)


def _latest(deliveries: Sequence[Delivery]) -> datetime:
    return max((each.received_at for each in deliveries), default=NEVER)


def keep_raw(connection: Connection, delivery: Delivery, reason: str) -> None:
    """Keep one event whose meaning the database refused, so that nothing is lost."""
    row = _event_row(delivery) | {"reading": "unreadable", "reason": reason}
    row |= dict.fromkeys(("event_type", "event_id", "company_id", "sync_id", "generated_at"))
    connection.execute(insert(connection, events).on_conflict_do_nothing(), row)


def keep_again(connection: Connection, delivery: Delivery) -> bool:
    """Give a kept event the meaning it has now, and let it cause what it would have caused.

    True when that makes a fetch owed. The caller holds the event's row.
    """
    row = _event_row(delivery)
    del row["body"]
    known = events.c.message_id == delivery.message_id
    connection.execute(update(events).where(known).values(row))
    write(connection, spoken_of([delivery]))
    effects = _Effects()
    ended = _merge_news(connection, [delivery], effects)
    owing = owed.owing(sorted(ended), delivery.received_at)
    write(connection, *effects.writes(connection), owing)
    gate.heed(connection, delivery)
    return bool(ended)


def _insert_events(
    connection: Connection, deliveries: Iterable[Delivery], besides: Write
) -> set[str]:
    rows = [_event_row(delivery) for delivery in sorted(deliveries, key=lambda d: d.message_id)]
    key = ("message_id",)
    new = insert_new(connection, events, rows, besides, unless=key, returning=key)
    return {message_id for (message_id,) in new}


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


def _merge_news(connection: Connection, news: Sequence[Delivery], effects: _Effects) -> set[int]:
    """Fold the news into connections and syncs; returns the syncs that it says have ended."""
    merge_told(connection, news)
    by_sync: dict[SyncKey, list[Delivery]] = {}
    for delivery in news:
        if delivery.event.speaks_of_a_sync:
            by_sync.setdefault(_key(delivery), []).append(delivery)
    if not by_sync:
        return set()
    now = _latest(news)
    ids = _insert_syncs(connection, by_sync, now, effects)
    known = {key: told for key, told in by_sync.items() if key not in ids}
    if known:
        ids |= _update_syncs(connection, known, now, effects)
    return {ids[key] for key, told in by_sync.items() if _is_terminal(told)}


def _key(delivery: Delivery) -> SyncKey:
    return delivery.event.company_id or "", delivery.event.sync_id or ""


def _is_terminal(told: Iterable[Delivery]) -> bool:
    return any(delivery.event.event in ENDINGS for delivery in told)


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
    connection: Connection, by_sync: dict[SyncKey, list[Delivery]], now: datetime, effects: _Effects
) -> dict[SyncKey, int]:
    """Insert the syncs heard of for the first time; returns their keys' ids."""
    merged = {key: _fold(_blank(told[0]), told) for key, told in sorted(by_sync.items())}
    rules = rules_of(connection)
    rows = [to_row(each.sync, updated_at=now, rules=rules) for each in merged.values()]
    key = ("company_id", "sync_id")
    inserted = insert_new(connection, syncs, rows, unless=key, returning=("id", *key))
    ids: dict[SyncKey, int] = {
        (company_id, sync_id): number for number, company_id, sync_id in inserted
    }
    told = dict(zip(merged, rows, strict=True))
    for key, number in ids.items():
        effects.entry.sync(number, None, None, told[key], now)
        if merged[key].items:
            effects.first_items(number, merged[key], now)
    return ids


def _update_syncs(
    connection: Connection, by_sync: dict[SyncKey, list[Delivery]], now: datetime, effects: _Effects
) -> dict[SyncKey, int]:
    """Merge the news into syncs that are already here; returns their keys' ids."""
    rows = connection.execute(
        select(syncs)
        .where(tuple_(syncs.c.company_id, syncs.c.sync_id).in_(list(by_sync)))
        .order_by(syncs.c.company_id, syncs.c.sync_id)
        .with_for_update(key_share=True)
    ).mappings()
    ids = {}
    for row in rows.all():
        key = (row["company_id"], row["sync_id"])
        ids[key] = row["id"]
        before = to_sync(row)
        merged = _fold(before, by_sync[key])
        if merged.sync == before:
            continue
        values = to_row(merged.sync, updated_at=now, rules=rules_of(connection))
        effects.changed.append(values | {"id": row["id"]})
        effects.entry.sync(row["id"], before, row, values, now)
        if merged.items and before.items_from is None:
            effects.first_items(row["id"], merged, now)
        elif merged.items is not None:
            had = changes.kept_items(connection, row["id"])
            code = merged.sync.status_code
            replace_items(connection, row["id"], merged.items, status_code=code)
            effects.entry.items(merged.sync, had, merged.items, now)
    return ids


def _note_repeats(connection: Connection, again: Sequence[Delivery]) -> set[int]:
    """Note each redelivery; returns the syncs spoken of, whose unfinished work starts again."""
    spoken = [delivery for delivery in again if delivery.event.speaks_of_a_sync]
    if not spoken:
        return set()
    keys = sorted({_key(delivery) for delivery in spoken})
    found = connection.execute(
        select(syncs.c.id, syncs.c.company_id, syncs.c.sync_id).where(
            tuple_(syncs.c.company_id, syncs.c.sync_id).in_(keys)
        )
    ).all()
    ids = {(row.company_id, row.sync_id): row.id for row in found}
    rows = [_repeat_note(ids[_key(d)], d) for d in spoken if _key(d) in ids]
    write(connection, insertion(notes, rows))
    return set(ids.values())


def _repeat_note(sync: int, delivery: Delivery) -> dict[str, Any]:
    return {
        "sync": sync,
        "at": delivery.received_at,
        "kind": "duplicate",
        "reason": f"message {delivery.message_id} came again: known already, told nothing new",
    }
