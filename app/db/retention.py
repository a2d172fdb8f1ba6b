"""What is forgotten: raw bodies, changes and messages that have grown old.

Of an event only the body goes. The event stays with its message id, so that a redelivery is still
known, and so do the syncs, transactions and errors it told of.
"""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from app.db.change_feed import forget_changes
from app.db.outgoing import forget_messages
from app.db.tables import events


def _old(before: datetime) -> ColumnElement[bool]:
    return and_(events.c.body.is_not(None), events.c.received_at < before)


def count_bodies(connection: Connection, before: datetime) -> int:
    """How many events received before a time still have their body."""
    old = select(func.count()).select_from(events).where(_old(before))
    return connection.execute(old).scalar_one()


def forget_bodies(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` bodies received before a time, the oldest first; returns how many.

    Rows that another transaction holds are left to it.
    """
    some = (
        select(events.c.id)
        .where(_old(before))
        .order_by(events.c.received_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    gone = connection.execute(
        update(events)
        .where(events.c.id.in_(select(some.c.id)))
        .values(body=None)
        .returning(events.c.id)
    )
    return len(gone.scalars().all())


def forget_told(connection: Connection, before: datetime) -> tuple[int, int]:
    """Forget some changes and some ended messages from before a time; returns how many of each."""
    return forget_changes(connection, before), forget_messages(connection, before)
