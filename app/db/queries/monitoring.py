"""What `/metrics` shows of the database. The cost of these queries does not grow with the rows."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, select

from app.db import event_store, jobs, rate_limit, workers
from app.db.engine import count_up_to
from app.db.event_store import PendingStats
from app.db.jobs import JobStats
from app.db.tables import alerts, webhook_events
from app.db.tables import jobs as job_table

MAX_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Numbers at one moment. Numbers of rows are capped."""

    pending_events: PendingStats
    projection_errors: int
    fetch_jobs: JobStats
    message_jobs: JobStats
    pending_messages: int
    paused_until: datetime | None
    open_alerts: int
    worker_seen_at: datetime | None


def take_snapshot(connection: Connection, now: datetime) -> Snapshot:
    """Read all numbers."""
    return Snapshot(
        pending_events=event_store.pending_stats(connection),
        projection_errors=_count(
            connection, webhook_events, webhook_events.c.projection_error.is_not(None)
        ),
        fetch_jobs=jobs.stats(connection, "fetch", now),
        message_jobs=jobs.stats(connection, "message", now),
        pending_messages=_count(
            connection, job_table, job_table.c.kind == "message", jobs.IS_PENDING
        ),
        paused_until=rate_limit.paused_until(connection, now),
        open_alerts=_count(connection, alerts, alerts.c.resolved_at.is_(None)),
        worker_seen_at=workers.last_seen(connection),
    )


def _count(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> int:
    return count_up_to(connection, MAX_COUNTED, select(table.c.id).where(*conditions))
