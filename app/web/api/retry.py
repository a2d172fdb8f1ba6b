"""Handing a sync's failed transactions on, for the API and for the page."""

from datetime import datetime

from app.db import announcements as announce
from app.db import sync_writer as store
from app.db.announcements import Requested
from app.db.engine import Database
from app.db.queries import syncs as queries
from app.db.queries.syncs import KeptSync
from app.domain.outgoing import name_of
from app.errors import Conflicting
from app.settings import Settings


def is_possible(settings: Settings) -> bool:
    """True where somebody is there to be handed anything."""
    return settings.retry_webhook_url is not None


def hand_on(
    database: Database, settings: Settings, sync_id: str, company_id: str | None, now: datetime
) -> tuple[KeptSync, Requested]:
    """Owe a signed `retry.requested` with what failed and is not yet cured, and note it.

    Raises NotKnown, and Conflicting when nothing failed or no address is set.
    """
    if settings.retry_webhook_url is None:
        raise Conflicting("RETRY_WEBHOOK_URL is not set: nobody is there to retry anything")
    to = name_of("retry", settings.retry_webhook_url.get_secret_value())
    with database.writing() as connection:
        kept = queries.get_sync(connection, sync_id, company_id)
        asked = announce.request_retry(connection, kept.number, kept.sync, now, to=to)
        store.note(connection, kept.number, "retry", _noted(asked), now)
    return kept, asked


def _noted(asked: Requested) -> str:
    if asked.again:
        return f"somebody asked again for a retry that is on its way ({asked.message_id})"
    items = "item" if asked.transactions == 1 else "items"
    return f"somebody asked to retry {asked.transactions} failed {items} ({asked.message_id})"
