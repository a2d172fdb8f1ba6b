"""Starting syncs: one at a time per company over all replicas, stored from the first moment."""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, delete, select, update

from app.db.engine import insert
from app.db.sync_writer import LogEntry, SyncWrite, load_syncs, lock_companies, write_syncs
from app.db.tables import start_locks, syncs
from app.domain.sync_state import Sync

KEY_LIFETIME = timedelta(minutes=85)  # Codat remembers an idempotency key for 90 minutes


def acquire(
    connection: Connection, company_id: str, request_digest: str, *, now: datetime, until: datetime
) -> str | None:
    """Lock a company for one caller, at the longest until a time; None while another holds it.

    Returns the idempotency key for the start, which also identifies the lock. If the
    outcome of the last start is unknown, the next request of the same content gets its key again,
    for as long as Codat remembers keys.
    """
    statement = insert(connection, start_locks)
    new = statement.excluded
    is_same = (start_locks.c.request_digest == new.request_digest) & (
        start_locks.c.locked_until > now - KEY_LIFETIME
    )
    key = case((is_same, start_locks.c.idempotency_key), else_=new.idempotency_key)
    changed = {"request_digest": new.request_digest, "locked_until": new.locked_until}
    upsert = statement.on_conflict_do_update(
        index_elements=["company_id"],
        set_={"idempotency_key": key, **changed},
        where=start_locks.c.locked_until <= now,
    )
    row = {
        "company_id": company_id,
        "idempotency_key": str(uuid.uuid4()),
        "request_digest": request_digest,
        "locked_until": until,
    }
    return connection.execute(upsert.returning(start_locks.c.idempotency_key), row).scalar()


def release(
    connection: Connection,
    company_id: str,
    idempotency_key: str,
    *,
    now: datetime,
    is_outcome_known: bool,
) -> None:
    """Release the lock; its key can be used again unless the outcome of the start is known."""
    mine = (start_locks.c.company_id == company_id) & (
        start_locks.c.idempotency_key == idempotency_key
    )
    if is_outcome_known:
        connection.execute(delete(start_locks).where(mine))
    else:
        connection.execute(update(start_locks).where(mine).values(locked_until=now))


def syncs_in_progress(connection: Connection, company_id: str, since: datetime) -> list[str]:
    """The company's syncs in progress that were first seen since a time, newest first."""
    found = connection.execute(
        select(syncs.c.sync_id)
        .where(syncs.c.company_id == company_id, syncs.c.state == "started")
        .where(syncs.c.occurred_at >= since, syncs.c.first_seen_at >= since)
        .order_by(syncs.c.occurred_at.desc())
    )
    return list(found.scalars())


def record_started(
    connection: Connection, company_id: str, sync_id: str, reason: str, *, now: datetime
) -> None:
    """Store a sync that Codat has just started; a webhook may have reported it already."""
    key = (company_id, sync_id)
    lock_companies(connection, [company_id])
    stored = load_syncs(connection, {key}).get(key)
    before = stored.sync if stored else Sync(company_id, sync_id)
    after = before._replace(
        codat_started_at=min(now, before.codat_started_at or now),
        first_seen_at=min(now, before.first_seen_at or now),
    )
    write = SyncWrite(stored, after, log=[LogEntry(now, "initiated", reason)])
    write_syncs(connection, [write], now=now)
