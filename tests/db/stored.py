"""Writes syncs as the projector and the fetcher do, for tests of what is stored beside them."""

from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.db import sync_writer
from app.db.engine import Database
from app.db.sync_writer import SyncWrite, lock_companies
from app.db.tables import syncs
from app.domain.models import SYNC_FAILED, SyncStatus, Transaction, WebhookEvent, WebhookPayload
from app.domain.sync_state import Sync, apply_event, apply_status, with_transactions
from tests.factories import T0

FAILED_ROW = Transaction("t1", "PushError", "The account is closed", "expense")
COMPLETED_ROW = Transaction("t1", "Completed", None, "expense")


def write(database: Database, after: Sync, *transactions: Transaction, now: datetime = T0) -> int:
    """Write one sync over what is stored of it; returns its key."""
    key = (after.company_id, after.sync_id)
    with database.writing() as connection:
        lock_companies(connection, [after.company_id])
        before = sync_writer.load_syncs(connection, {key}).get(key)
        rows = transactions if after.counts else None
        change = SyncWrite(before, after, rows, fetch="enqueue")
        (pk,) = sync_writer.write_syncs(connection, [change], now=now)
        return pk


def reported(
    sync_id: str = "s1",
    event_type: str = SYNC_FAILED,
    *,
    company_id: str = "c1",
    at: datetime = T0,
    **more: Any,
) -> Sync:
    """A sync of which one webhook event was received."""
    payload = WebhookPayload(
        event_type=event_type, parse_status="ok", company_id=company_id, sync_id=sync_id, **more
    )
    return apply_event(Sync(company_id, sync_id), WebhookEvent(f"m-{sync_id}", at, payload))


def answered(
    sync: Sync, *transactions: Transaction, code: int = 5130, at: datetime = T0, **more: Any
) -> Sync:
    """The sync once Codat has given its status and transactions."""
    status = SyncStatus(sync.company_id, sync.sync_id, code, sync_utc=at, **more)
    after = apply_status(sync, status, requested_at=at, has_newer_events=False)
    expected = len(transactions)
    return with_transactions(after, transactions, source="codat", expected=expected, at=at)


def pk_of(database: Database, sync_id: str) -> int:
    """The key of a stored sync."""
    with database.reading() as connection:
        found = connection.execute(select(syncs.c.id).where(syncs.c.sync_id == sync_id))
        pk: int = found.scalar_one()
        return pk
