"""What SQLite cannot know: whether few syncs have what is asked for, or many.

It notes how many rows a value leads to on average, never how many this one does
(`app/db/statistics.py`). So it walks the whole table in the wanted order for a state that
hardly any sync is in, and sorts half of it for a name that every other company has. A short count
tells. PostgreSQL knows its most common values and needs none.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, func, select

from app.db.tables import syncs

FEW = 2_000


def plan(
    connection: Connection, conditions: Iterable[ColumnElement[bool]]
) -> tuple[Column[Any] | None, list[ColumnElement[bool]]]:
    """The key for `read_page` and a condition that leads to few syncs, where one of these does.

    Each of them must have an index. On PostgreSQL, nothing.
    """
    for each in conditions:
        theirs = select(syncs.c.id).where(each)
        if few(connection, theirs, FEW):
            # a list of syncs is looked up before SQLite thinks of the wanted order
            return syncs.c.id, [syncs.c.id.in_(theirs.correlate(None))]
    return None, []


def few(connection: Connection, rows: Select[Any], most: int) -> bool:
    """True when the statement gives at most so many rows, and this is SQLite."""
    return connection.dialect.name == "sqlite" and no_more(connection, most, rows)


def no_more(connection: Connection, most: int, *statements: Select[Any]) -> bool:
    """True when the statements give at most so many rows together; more are not counted."""
    some = (each.limit(most + 1).subquery() for each in statements)
    counts = [select(func.count()).select_from(each).scalar_subquery() for each in some]
    return sum(connection.execute(select(*counts)).one()) <= most
