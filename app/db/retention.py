"""Retention: removes raw webhook bodies that have grown old, and the excess of long timelines.

An event stays with its message id, so a redelivery is still recognized; so do the syncs and
transactions that it reported. All in small batches.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from app.db.many_rows import is_any_of
from app.db.tables import sync_log, webhook_events

TIMELINE_ENTRIES = 1000
SYNCS_PER_STEP = 20


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


def prune_timelines(connection: Connection) -> int:
    """Leave a few syncs that have more than TIMELINE_ENTRIES the newest; returns how many went.

    A sync that is reconciled, refreshed or replayed again and again would have any number. Its
    events are not counted.
    """
    pk, newest = sync_log.c.sync_pk, (sync_log.c.at.desc(), sync_log.c.id.desc())
    long = select(pk).group_by(pk).having(func.count() > TIMELINE_ENTRIES).limit(SYNCS_PER_STEP)
    removed = 0
    for sync_pk in connection.execute(long).scalars().all():
        mine = select(sync_log.c.id).where(pk == sync_pk).order_by(*newest)
        excess = connection.execute(mine.offset(TIMELINE_ENTRIES)).scalars().all()
        connection.execute(delete(sync_log).where(is_any_of(connection, sync_log.c.id, excess)))
        removed += len(excess)
    return removed
