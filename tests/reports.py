"""Short ways to say what Codat told, for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, select

from app.db.engine import Database
from app.db.tables import fetches, syncs, transactions
from app.domain.models import SYNC_COMPLETED, SYNC_FAILED, SYNC_STARTED, Delivery, Event, Item

T0 = datetime(2026, 1, 1, 9, tzinfo=UTC)
STARTED, FAILED, COMPLETED = SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED


def after(**passed: float) -> datetime:
    """T0 and some more."""
    return T0 + timedelta(**passed)


def delivery(
    message_id: str,
    event: str = FAILED,
    *,
    sync_id: str = "s1",
    company_id: str = "c1",
    at: datetime = T0,
    items: tuple[Item, ...] | None = None,
    **more: Any,
) -> Delivery:
    """One authentic delivery of a sync event."""
    told = Event(
        event=event,
        reading="ok",
        company_id=company_id,
        sync_id=sync_id,
        transactions=items,
        **more,
    )
    return Delivery(message_id, at, b"{}", told)


def sync_row(database: Database, sync_id: str = "s1", company_id: str = "c1") -> RowMapping:
    """The kept sync, as it stands in the database."""
    with database.reading() as connection:
        found = connection.execute(
            select(syncs).where(syncs.c.sync_id == sync_id, syncs.c.company_id == company_id)
        )
        return found.mappings().one()


def fetch_row(database: Database, sync_id: str = "s1") -> RowMapping | None:
    """The fetch a sync owes, if it ever owed one."""
    with database.reading() as connection:
        found = connection.execute(
            select(fetches)
            .join(syncs, syncs.c.id == fetches.c.sync)
            .where(syncs.c.sync_id == sync_id)
        )
        return found.mappings().first()


def item_rows(database: Database, sync_id: str = "s1") -> list[RowMapping]:
    """The kept transactions of a sync, in order."""
    with database.reading() as connection:
        found = connection.execute(
            select(transactions)
            .join(syncs, syncs.c.id == transactions.c.sync)
            .where(syncs.c.sync_id == sync_id)
            .order_by(transactions.c.position)
        )
        return list(found.mappings())
