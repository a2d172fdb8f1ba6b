"""Reads and comparisons for `rebuild`, which recomputes all derived data."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, exists, func, select, tuple_, update

from app.db.engine import classifier_of
from app.db.pending_events import PARSED_COLUMNS, body_size, first_within
from app.db.sync_rows import ContentValues, StoredSync, sync_row, to_stored, transaction_rows
from app.db.sync_writer import SyncKey
from app.db.tables import failed_transactions, jobs, syncs, transactions, webhook_events
from app.domain.models import Transaction, WebhookPayload
from app.domain.sync_state import Sync

_IS_PROCESSED = webhook_events.c.parse_status.is_not(None)
_EVENT_KEY = tuple_(webhook_events.c.company_id, webhook_events.c.sync_id)
_SYNC_KEY = tuple_(syncs.c.company_id, syncs.c.sync_id)
_HAS_JOB = exists().where(jobs.c.kind == "fetch", jobs.c.key == syncs.c.id).label("has_job")


class StoredEvent(NamedTuple):
    """A processed event. `body` is None once retention has removed it."""

    id: int
    message_id: str
    received_at: datetime
    body: bytes | None
    parsed: Mapping[str, Any]


class LoadedSync(NamedTuple):
    """A sync, the columns of its row and of its transactions' rows, which may be wrong.

    The row has one column more: `has_job`, whether it has a fetch job in whatever state.
    """

    stored: StoredSync
    row: RowMapping
    transaction_rows: Sequence[RowMapping]

    @property
    def transactions(self) -> list[Transaction]:
        """Its transaction list."""
        names = Transaction._fields
        return [Transaction(*(row[name] for name in names)) for row in self.transaction_rows]


def mark_failed_pending(connection: Connection, limit: int) -> int:
    """Let the projector apply again up to `limit` events that it could not apply; how many."""
    failed = select(webhook_events.c.id).where(
        webhook_events.c.projection_error.is_not(None),
        webhook_events.c.processed_at.is_not(None),
        webhook_events.c.body.is_not(None),
    )
    ids = connection.execute(failed.limit(limit).with_for_update(skip_locked=True)).scalars().all()
    if ids:
        pending = update(webhook_events).where(webhook_events.c.id.in_(ids))
        connection.execute(pending.values(processed_at=None))
    return len(ids)


def events_after(
    connection: Connection, last_id: int, limit: int, max_bytes: int
) -> list[StoredEvent]:
    """Processed events by id. Those that the projector has yet to apply are left to it.

    At most `limit`, whose bodies together have at most `max_bytes`; at least one.
    """
    sizes = connection.execute(
        select(webhook_events.c.id, body_size())
        .where(webhook_events.c.id > last_id, _IS_PROCESSED)
        .order_by(webhook_events.c.id)
        .limit(limit)
    )
    ids: list[int] = first_within(map(tuple, sizes), max_bytes)
    return _events(connection, webhook_events.c.id.in_(ids)) if ids else []


def events_of(
    connection: Connection, keys: Collection[SyncKey]
) -> dict[SyncKey, list[StoredEvent]]:
    """The processed events of these syncs, by id."""
    found: dict[SyncKey, list[StoredEvent]] = {key: [] for key in keys}
    for event in _events(connection, _EVENT_KEY.in_(sorted(keys))):
        found[event.parsed["company_id"], event.parsed["sync_id"]].append(event)
    return found


def _events(connection: Connection, condition: ColumnElement[bool]) -> list[StoredEvent]:
    rows = connection.execute(
        select(webhook_events).where(condition, _IS_PROCESSED).order_by(webhook_events.c.id)
    )
    return [
        StoredEvent(
            *(row.id, row.message_id, row.received_at, row.body),
            parsed={name: getattr(row, name) for name in PARSED_COLUMNS},
        )
        for row in rows
    ]


def lock_events(connection: Connection, ids: Collection[int]) -> set[int]:
    """Lock these events until the transaction ends; returns those that are not erased."""
    rows = select(webhook_events.c.id).where(webhook_events.c.id.in_(ids))
    locked = rows.order_by(webhook_events.c.id).with_for_update()
    return set(connection.execute(locked).scalars())


def store_payload(connection: Connection, event_id: int, payload: WebhookPayload) -> None:
    """Store what an event's body says by the present parser."""
    values = {name: getattr(payload, name) for name in PARSED_COLUMNS}
    connection.execute(update(webhook_events).where(webhook_events.c.id == event_id).values(values))


def sync_keys_after(
    connection: Connection, last_id: int, limit: int, max_rows: int, max_bytes: int
) -> list[tuple[int, SyncKey]]:
    """Syncs by id, with company id and sync id.

    At most `limit`, with together at most `max_rows` transactions, and `max_bytes` of events'
    bodies; at least one.
    """
    rows = connection.execute(
        select(syncs.c.id, syncs.c.company_id, syncs.c.sync_id, func.coalesce(syncs.c.total, 0))
        .where(syncs.c.id > last_id)
        .order_by(syncs.c.id)
        .limit(limit)
    )
    totals = {(pk, (company_id, sync_id)): total for pk, company_id, sync_id, total in rows}
    if not totals:
        return []
    sizes = connection.execute(
        select(webhook_events.c.company_id, webhook_events.c.sync_id, func.sum(body_size()))
        .where(_EVENT_KEY.in_([key for _, key in totals]))
        .group_by(webhook_events.c.company_id, webhook_events.c.sync_id)
    )
    size_of = {(company_id, sync_id): size for company_id, sync_id, size in sizes}
    fitting = first_within(totals.items(), max_rows)
    return first_within(((sync, size_of.get(sync[1], 0)) for sync in fitting), max_bytes)


def missing_keys(connection: Connection, keys: Collection[SyncKey]) -> set[SyncKey]:
    """Those of these syncs that have no row. At most 500 keys."""
    stored = select(syncs.c.company_id, syncs.c.sync_id).where(_SYNC_KEY.in_(sorted(keys)))
    return set(keys) - {(row.company_id, row.sync_id) for row in connection.execute(stored)}


def load_syncs(
    connection: Connection, keys: Collection[SyncKey], *, lock: bool
) -> dict[SyncKey, LoadedSync]:
    """These syncs with all columns; `lock` them until the transaction ends. At most 500 keys."""
    these = select(syncs, _HAS_JOB).where(_SYNC_KEY.in_(sorted(keys))).order_by(syncs.c.id)
    if lock:
        these = these.with_for_update(key_share=True)
    found = connection.execute(these).mappings().all()
    rows = connection.execute(
        select(transactions)
        .where(transactions.c.sync_pk.in_([row["id"] for row in found]))
        .order_by(transactions.c.sync_pk, transactions.c.position)
    )
    lists: defaultdict[int, list[RowMapping]] = defaultdict(list)
    for row in rows.mappings():
        lists[row["sync_pk"]].append(row)
    return {
        (row["company_id"], row["sync_id"]): LoadedSync(to_stored(row), row, lists[row["id"]])
        for row in found
    }


def row_differs(connection: Connection, loaded: LoadedSync, after: Sync) -> bool:
    """True when a column of the sync's row is not what it should be."""
    expected = sync_row(
        after, updated_at=loaded.stored.updated_at, classifier=classifier_of(connection)
    )
    return any(loaded.row[name] != value for name, value in expected.items())


def list_differs(
    connection: Connection, loaded: LoadedSync, after: Sync, listed: Sequence[Transaction]
) -> bool:
    """True when the sync's transaction rows are not what this list makes of them."""
    if len(loaded.transaction_rows) != len(listed):
        return True
    values = ContentValues(after.status_code, classifier_of(connection))
    expected = transaction_rows(loaded.stored.pk, listed, values)
    return any(
        row[name] != value
        for row, columns in zip(loaded.transaction_rows, expected, strict=True)
        for name, value in columns.items()
    )


def companies_after(connection: Connection, last: str, limit: int) -> list[str]:
    """Companies with syncs or failed transactions, by id."""
    stored, failed = syncs.c.company_id, failed_transactions.c.company_id
    both = select(stored).where(stored > last).union(select(failed).where(failed > last))
    return list(connection.execute(both.order_by("company_id").limit(limit)).scalars())


def failed_ids_after(connection: Connection, company_id: str, last: str, limit: int) -> list[str]:
    """Transactions of a company that failed, or that `failed_transactions` says did, by id."""
    failed = (
        select(transactions.c.transaction_id)
        .join_from(transactions, syncs, syncs.c.id == transactions.c.sync_pk)
        .where(
            syncs.c.company_id == company_id,
            transactions.c.failed.is_(True),
            transactions.c.transaction_id > last,
        )
    )
    stored = select(failed_transactions.c.transaction_id).where(
        failed_transactions.c.company_id == company_id,
        failed_transactions.c.transaction_id > last,
    )
    found = failed.union(stored).order_by("transaction_id").limit(limit)
    return list(connection.execute(found).scalars())
