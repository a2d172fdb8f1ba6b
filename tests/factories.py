"""Webhook events and stored syncs, for tests."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, func, select, update

from app.db.engine import Database, insert
from app.db.queries import events
from app.db.tables import jobs, metadata, syncs, transactions, webhook_events
from app.domain.models import SYNC_COMPLETED, SYNC_FAILED, SYNC_STARTED
from app.worker.projector import Projector

T0 = datetime(2026, 1, 1, 9, tzinfo=UTC)
STARTED, FAILED, COMPLETED = SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED
_TYPES = {STARTED: "SyncStarted", FAILED: "SyncFailed", COMPLETED: "SyncCompleted"}


def after(**passed: float) -> datetime:
    """T0 plus this much."""
    return T0 + timedelta(**passed)


def sync_body(
    event_type: str = FAILED,
    *,
    sync_id: str = "s1",
    company_id: str = "c1",
    generated_at: datetime | None = None,
    transactions: Sequence[dict[str, Any]] | None = None,
    failure_stage: str | None = None,
    company_name: str | None = None,
) -> bytes:
    """The body of a sync event; transactions are dicts of `id`, `status`, `errorMessage`."""
    payload: dict[str, Any] = {"syncId": sync_id}
    if transactions is not None:
        payload["transactions"] = list(transactions)
    if failure_stage is not None:
        payload["failureStage"] = failure_stage
    if company_name is not None:
        payload["referenceCompany"] = {"id": company_id, "name": company_name}
    body: dict[str, Any] = {
        "eventType": _TYPES[event_type],
        "companyId": company_id,
        "payload": payload,
    }
    if generated_at is not None:
        body["generatedDate"] = generated_at.isoformat()
    return json.dumps(body).encode()


def add_event(
    database: Database,
    message_id: str,
    body: bytes | None = None,
    *,
    at: datetime = T0,
    **fields: Any,
) -> None:
    """Store a delivery as the endpoint does: a new event, or a redelivery of a stored one."""
    content = sync_body(**fields) if body is None else body
    with database.writing() as connection:
        row = {"message_id": message_id, "received_at": at, "body": content}
        new = insert(connection, webhook_events).on_conflict_do_nothing().inline()
        new = new.execution_options(preserve_rowcount=True)
        if connection.execute(new, row).rowcount == 0:
            connection.execute(
                update(webhook_events)
                .where(webhook_events.c.message_id == message_id)
                .values(
                    deliveries=webhook_events.c.deliveries + 1,
                    last_received_at=at,
                    processed_at=None,
                )
            )


def project(database: Database, *, now: datetime = T0) -> int:
    """Apply all pending events; returns how many."""
    projector = Projector(database, lambda: now)
    total = 0
    while handled := projector.project_pending():
        total += handled
    return total


def deliver(
    database: Database,
    message_id: str,
    body: bytes | None = None,
    *,
    at: datetime = T0,
    **fields: Any,
) -> None:
    """Store a delivery and project it."""
    add_event(database, message_id, body, at=at, **fields)
    project(database, now=at)


def sync_row(database: Database, sync_id: str = "s1", company_id: str = "c1") -> RowMapping:
    """The row of a sync."""
    with database.reading() as connection:
        found = connection.execute(
            select(syncs).where(syncs.c.sync_id == sync_id, syncs.c.company_id == company_id)
        )
        return found.mappings().one()


def fetch_job(database: Database, sync_id: str = "s1") -> RowMapping | None:
    """The fetch job of a sync, if there ever was one."""
    with database.reading() as connection:
        found = connection.execute(
            select(jobs)
            .join(syncs, syncs.c.id == jobs.c.key)
            .where(jobs.c.kind == "fetch", syncs.c.sync_id == sync_id)
        )
        return found.mappings().first()


def transaction_rows(database: Database, sync_id: str = "s1") -> list[RowMapping]:
    """The transactions of a sync, in Codat's order."""
    with database.reading() as connection:
        found = connection.execute(
            select(transactions)
            .join(syncs, syncs.c.id == transactions.c.sync_pk)
            .where(syncs.c.sync_id == sync_id)
            .order_by(transactions.c.position)
        )
        return list(found.mappings())


def event_row(database: Database, message_id: str) -> RowMapping:
    """The row of a webhook event."""
    with database.reading() as connection:
        found = connection.execute(
            select(webhook_events).where(webhook_events.c.message_id == message_id)
        )
        return found.mappings().one()


def timeline(database: Database, sync_id: str = "s1") -> list[tuple[str, str]]:
    """Kind and reason of each entry of a sync's timeline, oldest first."""
    with database.reading() as connection:
        pk = connection.execute(select(syncs.c.id).where(syncs.c.sync_id == sync_id)).scalar_one()
        return [(entry.kind, entry.reason) for entry in events.timeline(connection, pk).items]


def count_rows(database: Database, table: str) -> int:
    """How many rows a table has."""
    with database.reading() as connection:
        found = connection.execute(select(func.count()).select_from(metadata.tables[table]))
        return found.scalar_one()


def delete_all(database: Database) -> None:
    """Empty every table."""
    with database.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
