"""The change feed: every change of a sync or a transaction once, in one order, resumable.

It is an outbox: a change is inserted in the transaction that makes it. On PostgreSQL writers take
an advisory lock right before they insert, as the last statement of their transaction, so ids become
visible in ascending order and a cursor is just the id of the change before it. SQLite has one
writer at a time anyway. Retention moves the horizon; a cursor before it gets `Gone`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import Connection, delete, func, select, text

from app.db.engine import insert
from app.db.many_rows import insert_many
from app.db.pagination import Page
from app.db.tables import change_feed_horizon, changes
from app.domain.status_codes import status_text, visible_failure_stage
from app.domain.sync_state import STATUS_FIELDS
from app.errors import BadRequest, Gone

ChangeKind = Literal["sync", "transaction"]

LOCK = 0x0C0DA8  # any number that only the change feed uses
_MAX_ID = 2**63 - 1
_MOST_LOST = 1_000_000_000  # changes between a backup and its restore
_SYNC_FIELDS = (
    *("state", "outcome", "started_at", "finished_at", "first_seen_at", "cause_key"),
    *(name for name in STATUS_FIELDS if name not in ("status", "sync_utc")),
)
_TRANSACTION_FIELDS = ("integration_type", "status", "message", "failed", "correlation_id")
_COUNTS = ("total", "completed", "failed", "pending", "other", "expected")


class Change(NamedTuple):
    """The new state of a sync, or of a transaction in it; `payload` is JSON."""

    kind: ChangeKind
    company_id: str
    sync_id: str
    transaction_id: str | None
    at: datetime
    payload: str


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A change as it is read: `payload` is JSON, parsed; older ones lack newer fields."""

    cursor: str
    kind: ChangeKind
    company_id: str
    sync_id: str
    transaction_id: str | None
    at: datetime
    payload: dict[str, Any]


def sync_payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """What consumers see of a row of `syncs`. Equal payloads mean that nothing visible changed."""
    return {
        **{name: row[name] for name in _SYNC_FIELDS},
        "failure_stage": visible_failure_stage(row["state"], row["failure_stage"]),
        "status_text": status_text(row["status_code"]),
        "transactions": {name: row[name] for name in _COUNTS},
    }


def sync_change(row: Mapping[str, Any], at: datetime) -> Change:
    """The change to the state in this row of `syncs`."""
    payload = to_json(sync_payload(row))
    return Change("sync", row["company_id"], row["sync_id"], None, at, payload)


def transaction_payload(rows: Iterable[Mapping[str, Any]]) -> str:
    """What a consumer sees of a transaction: all its rows in the sync, none once it is gone."""
    return to_json({"rows": [{name: row[name] for name in _TRANSACTION_FIELDS} for row in rows]})


def to_json(payload: Mapping[str, Any]) -> str:
    """A payload, which may contain times, as it is stored."""
    return orjson.dumps(payload, option=orjson.OPT_UTC_Z).decode()


def append(connection: Connection, new: Sequence[Change]) -> None:
    """Insert changes in their order. Must be the last statement of the transaction."""
    if new and connection.dialect.name != "sqlite":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    insert_many(connection, changes, (change._asdict() for change in new))


def read(connection: Connection, after: str | None, limit: int) -> Page[StoredChange]:
    """Up to `limit` changes after a cursor; from the oldest stored one without a cursor.

    `next` is the cursor to read on from, also when there are no changes. Raises BadRequest naming
    `after` for a value that is no cursor of this feed, and Gone when retention has removed changes
    after it.
    """
    if after is not None and not (after.isascii() and after.isdigit() and len(after) <= 19):
        raise BadRequest("after", "is not a cursor of this feed")
    start = int(after or 0)
    if start > _MAX_ID:
        raise BadRequest("after", "is not a cursor of this feed")
    later = select(changes.c.id, *(changes.c[name] for name in Change._fields))
    later = later.where(changes.c.id > start).order_by(changes.c.id).limit(limit)
    items = [
        StoredChange(str(pk), kind, company_id, sync_id, transaction_id, at, orjson.loads(payload))
        for pk, kind, company_id, sync_id, transaction_id, at, payload in connection.execute(later)
    ]
    if after is not None:
        # Read after the changes: if they are pruned in between, the horizon shows it.
        _check_cursor(connection, start, is_last=not items)
    return Page(items, items[-1].cursor if items else after)


def _check_cursor(connection: Connection, start: int, *, is_last: bool) -> None:
    horizon = connection.execute(select(change_feed_horizon.c.pruned_through)).scalar()
    if start < (horizon or 0):
        raise Gone("Retention has removed changes after this cursor. Read the feed without it.")
    if not is_last:
        return
    # The highest id ever assigned, also of a change that has been removed.
    if connection.dialect.name == "sqlite":
        last_id = text("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
    else:
        last_id = text("SELECT last_value FROM changes_id_seq")
    if start > (connection.execute(last_id).scalar() or 0):
        # As after a restore from a backup: waiting for this id would skip all changes before it.
        raise BadRequest("after", "is later than every change of this feed")


def skip_lost_ids(connection: Connection) -> None:
    """Continue with ids that no change had which a restore has lost.

    Else another change would get the id that a consumer holds as its cursor, and the consumer would
    miss the changes before it. A cursor of a lost change then stays valid: what it has not seen has
    a higher id.
    """
    skipped = {"most": _MOST_LOST}
    if connection.dialect.name != "sqlite":
        last = "(SELECT last_value FROM changes_id_seq)"
        connection.execute(text(f"SELECT setval('changes_id_seq', {last} + :most)"), skipped)
        return
    moved = text("UPDATE sqlite_sequence SET seq = seq + :most WHERE name = 'changes'")
    if not connection.execute(moved, skipped).rowcount:
        first = text("INSERT INTO sqlite_sequence (name, seq) VALUES ('changes', :most)")
        connection.execute(first, skipped)


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` changes made before a time, the oldest first; returns how many."""
    oldest = select(changes.c.id, changes.c.at).order_by(changes.c.id).limit(limit)
    old = takewhile(lambda row: row.at < before, connection.execute(oldest).all())
    through = max((row.id for row in old), default=0)
    if not through:
        return 0
    horizon = change_feed_horizon.c.pruned_through
    upsert = insert(connection, change_feed_horizon).values(id=1, pruned_through=through)
    moved = {"pruned_through": through}
    connection.execute(
        upsert.on_conflict_do_update(index_elements=["id"], set_=moved, where=horizon < through)
    )
    return connection.execute(delete(changes).where(changes.c.id <= through)).rowcount
