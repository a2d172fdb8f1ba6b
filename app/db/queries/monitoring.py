"""What `/metrics` shows of the database. The cost of these queries does not grow with the rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from sqlalchemy import ColumnElement, Connection, Table, func, select

from app.db import event_store, jobs, rate_limit, workers
from app.db.alerts import (
    CANNOT_SYNC_PREFIX,
    FAILURE_PREFIX,
    OUTDATED,
    RETRIES_UNDELIVERED,
    UNDELIVERED,
)
from app.db.engine import count_up_to
from app.db.event_store import PendingStats
from app.db.jobs import JobStats
from app.db.outgoing import IS_UNADDRESSED
from app.db.tables import alerts, outgoing_messages, webhook_events
from app.db.tables import jobs as job_table
from app.domain.webhook_loss import AlertCause

MAX_COUNTED = 10_000
ALIVE_WITHIN = timedelta(seconds=60)
WITH_KEY = tuple(prefix.rstrip(":") for prefix in (FAILURE_PREFIX, CANNOT_SYNC_PREFIX))
"""What precedes the key of a cause in an alert about failures."""

CAUSES = (
    *get_args(AlertCause),
    UNDELIVERED,
    RETRIES_UNDELIVERED,
    OUTDATED,
    *WITH_KEY,
)
"""The causes of all alerts, without keys."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Numbers at one moment. Numbers of rows are capped.

    `open_alerts` has a number for each cause; those about failures are counted without their key.
    """

    pending_events: PendingStats
    projection_errors: int
    fetch_jobs: JobStats
    message_jobs: JobStats
    unaddressed_messages: int
    pending_messages: int
    paused_until: datetime | None
    open_alerts: Mapping[str, int]
    worker_seen_at: datetime | None
    workers_alive: int


def take_snapshot(connection: Connection, now: datetime) -> Snapshot:
    """Read all numbers."""
    return Snapshot(
        pending_events=event_store.pending_stats(connection),
        projection_errors=_count(
            connection, webhook_events, webhook_events.c.projection_error.is_not(None)
        ),
        fetch_jobs=jobs.stats(connection, "fetch", now),
        message_jobs=jobs.stats(connection, "message", now),
        unaddressed_messages=_count(connection, outgoing_messages, IS_UNADDRESSED),
        pending_messages=_count(
            connection, job_table, job_table.c.kind == "message", jobs.IS_PENDING
        ),
        paused_until=rate_limit.paused_until(connection, now),
        open_alerts=_count_alerts(connection),
        worker_seen_at=workers.last_seen(connection),
        workers_alive=workers.alive(connection, now - ALIVE_WITHIN),
    )


def _count(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> int:
    return count_up_to(connection, MAX_COUNTED, select(table.c.id).where(*conditions))


def _count_alerts(connection: Connection) -> dict[str, int]:
    opened = select(alerts.c.cause).where(alerts.c.resolved_at.is_(None)).limit(MAX_COUNTED)
    first = opened.subquery("opened")
    counted = select(first.c.cause, func.count()).group_by(first.c.cause)
    counts = dict.fromkeys(CAUSES, 0)
    for cause, count in connection.execute(counted):
        prefix = cause.partition(":")[0]
        key = prefix if prefix in WITH_KEY else cause
        counts[key] = counts.get(key, 0) + count
    return counts
