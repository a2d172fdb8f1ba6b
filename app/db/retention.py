"""Retention of webhook events: removes raw bodies that have grown old, in small batches.

The event stays with its message id, so a redelivery is still recognized; so do the syncs and
transactions that it reported.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from app.db.tables import webhook_events


def _is_old(before: datetime) -> ColumnElement[bool]:
    """Events keep their body until it has been projected: pending ones, and those that failed."""
    return and_(
        webhook_events.c.body.is_not(None),
        webhook_events.c.received_at < before,
        webhook_events.c.processed_at.is_not(None),
        webhook_events.c.projection_error.is_(None),
    )


def count_bodies(connection: Connection, before: datetime) -> int:
    """Count the projected events received before a time that still have their body."""
    return connection.execute(select(func.count()).where(_is_old(before))).scalar_one()


def prune_bodies(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` bodies received before a time, the oldest first; returns how many.

    Rows that another transaction holds are passed over.
    """
    old = select(webhook_events.c.id).where(_is_old(before))
    oldest = old.order_by(webhook_events.c.received_at).limit(limit)
    ids = connection.execute(oldest.with_for_update(skip_locked=True)).scalars().all()
    connection.execute(update(webhook_events).where(webhook_events.c.id.in_(ids)).values(body=None))
    return len(ids)
