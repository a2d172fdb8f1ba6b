"""Requests to retry the failed transactions of a sync, for the API and for the page of the sync."""

from datetime import datetime

from app.db import outgoing, sync_writer
from app.db.engine import Database
from app.db.outgoing import RetryRequest
from app.db.queries import syncs as queries
from app.db.sync_writer import LogEntry
from app.domain.outgoing import recipient_name
from app.errors import Conflict
from app.settings import Settings
from app.web.api import schemas


def is_enabled(settings: Settings) -> bool:
    """True when `RETRY_WEBHOOK_URL` is set."""
    return settings.retry_webhook_url is not None


def request_retry(
    database: Database, settings: Settings, sync_id: str, company_id: str | None, now: datetime
) -> schemas.RetryAccepted:
    """Queue a `retry.requested` message with the open failures of a sync, and log it.

    Wake the worker afterwards. Raises NotFound, and Conflict when nothing failed, the company is
    ambiguous, or `RETRY_WEBHOOK_URL` is not set.
    """
    if settings.retry_webhook_url is None:
        raise Conflict("Retry is not set up (RETRY_WEBHOOK_URL).")
    recipient = recipient_name("retry", settings.retry_webhook_url.get_secret_value())
    with database.writing() as connection:
        record = queries.get_sync(connection, sync_id, company_id)
        request = outgoing.request_retry(connection, record.pk, record.sync, now, to=recipient)
        sync_writer.add_log(connection, record.pk, LogEntry(now, "retry", _log_text(request)))
    return schemas.RetryAccepted(
        company_id=record.sync.company_id,
        sync_id=record.sync.sync_id,
        message_id=request.message_id,
        transactions=request.transactions,
        already_requested=request.already_requested,
    )


def _log_text(request: RetryRequest) -> str:
    if request.already_requested:
        return f"Retry already requested; not sent again ({request.message_id})"
    noun = "item" if request.transactions == 1 else "items"
    return f"{request.transactions} failed {noun} ({request.message_id})"
