"""Reads for those who look after the service: what is owed and makes no progress."""

from datetime import datetime

from sqlalchemy import Connection, func, or_, select

from app.db.tables import fetches


def count_given_up(connection: Connection) -> int:
    """How many fetches were given up."""
    dead = select(func.count()).select_from(fetches).where(fetches.c.state == "dead")
    return connection.execute(dead).scalar_one()


def count_stalled(connection: Connection, *, due_before: datetime, attempts: int) -> int:
    """How many fetches are owed that nobody took since a time, or that failed so many times."""
    late = or_(fetches.c.due < due_before, fetches.c.attempts >= attempts)
    owed = select(func.count()).select_from(fetches).where(fetches.c.due.is_not(None), late)
    return connection.execute(owed).scalar_one()
