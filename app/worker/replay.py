"""Reads a kept webhook again: what an earlier version could not understand may be clear now."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.codat.webhooks import payloads as events
from app.db import jobs as owed
from app.db import keep
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.queries import events as queries_events
from app.db.queries import syncs as queries
from app.db.queries.events import KeptEvent
from app.db.queries.syncs import KeptSync
from app.domain.models import Delivery, Event
from app.errors import NoLongerKept, NotKnown


@dataclass(frozen=True, slots=True)
class Replayed:
    """The event as it is kept now, whether its meaning has changed, and the sync it speaks of."""

    event: KeptEvent
    changed: bool
    sync: KeptSync | None


@dataclass(frozen=True, slots=True)
class Replayer:
    """Replays. `on_owed` is called when a fetch is owed now."""

    database: Database
    clock: Callable[[], datetime]
    on_owed: Callable[[], None]

    def replay(self, message_id: str) -> Replayed:
        """Apply what the event means now, once; what it was known to mean is not applied again.

        Raises NotKnown, or NoLongerKept when its body has been removed.
        """
        with self.database.writing() as connection:
            kept = queries_events.hold_event(connection, message_id)
            if kept.body is None:
                raise NoLongerKept("the body of this event has been removed by retention")
            meaning = events.read(kept.body)
            changed = _says(kept) != _says(meaning)
            if changed:
                delivery = Delivery(message_id, kept.received_at, kept.body, meaning)
                owes = keep.keep_again(connection, delivery)
            else:
                owes = self._start_again(connection, kept)
            now_kept = queries_events.get_event(connection, message_id, with_body=False)
            sync = _sync(connection, now_kept)
            if sync and (changed or owes):
                reason = f"message {message_id} was read again: {_told(kept, meaning)}"
                store.note(connection, sync.number, "replay", reason, self.clock())
        if owes:
            self.on_owed()
        return Replayed(now_kept, changed, sync)

    def _start_again(self, connection: Connection, kept: KeptEvent) -> bool:
        """As a redelivery does: work that waits or was given up starts again."""
        sync = _sync(connection, kept)
        return sync is not None and owed.owe_again(connection, [sync.number], self.clock())


def _says(told: KeptEvent | Event) -> tuple[object, ...]:
    return (told.event, told.reading, told.company_id, told.sync_id, told.generated_at)


def _told(kept: KeptEvent, meaning: Event) -> str:
    before = kept.event if kept.reading == "ok" else kept.reading
    return f"it is {meaning.event}, it was {before}"


def _sync(connection: Connection, kept: KeptEvent) -> KeptSync | None:
    if not kept.sync_id or not kept.company_id:
        return None
    try:
        return queries.get_sync(connection, kept.sync_id, kept.company_id)
    except NotKnown:
        return None
