"""Values that pages derive from stored ones, and checks that unknowns are not shown as facts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.db import event_store, jobs, rate_limit, workers
from app.db.engine import Database
from app.db.queries.syncs import SyncRecord
from app.db.queries.transactions import TransactionRecord
from app.domain.transactions import TransactionClass
from app.web.api import schemas
from app.web.api.serializers import Causes, serialize_sync
from app.web.health import STALE_AFTER
from app.web.pages.labels import EXPENSES, Tone

ALREADY_PROCESSED = "already_processed"
PENDING_NOTICE_AFTER = timedelta(seconds=5)
_TIME = re.compile(r"(\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)")


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Whether what a page shows is current.

    `codat_error` is the last error of a fetch that is being retried. `pending` is the number of
    webhooks that wait to be processed; 0 while processing keeps up.
    """

    last_webhook_at: datetime | None
    is_worker_running: bool
    worker_seen_at: datetime | None
    paused_until: datetime | None
    codat_error: str | None
    pending: int
    pending_since: datetime | None


def read_service_status(database: Database, now: datetime) -> ServiceStatus:
    """Read the latest webhook and heartbeat, the state of calls to Codat, and what waits."""
    with database.reading() as connection:
        seen_at = workers.last_seen(connection)
        stats = event_store.pending_stats(connection)
        last_webhook_at = event_store.last_received_at(connection)
        paused_until = rate_limit.paused_until(connection, now)
        codat_error = jobs.fetch_error(connection)
    oldest = stats.oldest_received_at
    return ServiceStatus(
        last_webhook_at=last_webhook_at,
        paused_until=paused_until,
        codat_error=codat_error,
        is_worker_running=seen_at is not None and now - seen_at <= STALE_AFTER,
        worker_seen_at=seen_at,
        pending=stats.count if oldest and now - oldest > PENDING_NOTICE_AFTER else 0,
        pending_since=oldest,
    )


def present_sync(record: SyncRecord, causes: Causes) -> schemas.Sync:
    """The sync as the API returns it, but with null counts where a zero is no fact.

    That is so if no item is listed and Codat's whole list was not fetched.
    """
    sync = serialize_sync(record, causes)
    if not record.is_list_unread:
        return sync
    counts = schemas.TransactionCounts(expected=sync.transactions.expected)
    return sync.model_copy(update={"transactions": counts})


def expense_status(status: TransactionClass, cause_key: str | None) -> tuple[str, Tone, str]:
    """Title, tone, and sentence for the current status of an expense.

    A failure because it was already recorded is a possible duplicate and no loss.
    """
    is_duplicate = status == "failed" and cause_key == ALREADY_PROCESSED
    return EXPENSES["duplicate" if is_duplicate else status]


def deciding_row(history: Sequence[TransactionRecord]) -> TransactionRecord:
    """The row of the newest sync that decides the current status of an expense.

    An expense may have several rows in one sync. A failure counts more than a possible duplicate.
    """
    newest = [row for row in history if row.sync_id == history[0].sync_id]
    failed = [row for row in newest if row.cause_key]
    others = [row for row in failed if row.cause_key != ALREADY_PROCESSED]
    return (others or failed or newest)[0]


def split_times(text: str) -> list[str | datetime]:
    """A text in its order, with the times in it as times."""
    return [_parse_time(part) for part in _TIME.split(text)]


def _parse_time(text: str) -> str | datetime:
    """The time, or the text if it only looks like one: reasons quote other systems."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return text
