"""Many rows in one statement, as fast as each database can take them.

PostgreSQL gets one array per column (`INSERT … SELECT FROM unnest(…)`): the statement is the same
for any number of rows, so neither we nor it must read it anew for every batch. SQLite gets one row
of values per row, as SQLAlchemy batches them.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    CursorResult,
    Row,
    Table,
    bindparam,
    column,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

Insert = postgresql.Insert | sqlite.Insert


def insert_new(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    unless: tuple[str, ...],
    returning: tuple[str, ...],
) -> Sequence[Row[Any]]:
    """Insert the rows whose columns `unless` are not there yet, and return those, in any order.

    All rows must name the same columns.
    """
    if not rows:
        return []
    wanted = [table.c[name] for name in returning]
    statement = inserting(connection, table, rows).on_conflict_do_nothing(
        index_elements=list(unless)
    )
    return put(connection, statement.returning(*wanted), rows).all()


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows, which all name the same columns."""
    if rows:
        put(connection, inserting(connection, table, rows), rows)


def inserting(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insert:
    """An INSERT for rows like these, to say ON CONFLICT of; `put` carries it out."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return _from_arrays(table, tuple(rows[0]))


def put(
    connection: Connection, statement: Any, rows: Sequence[Mapping[str, Any]]
) -> CursorResult[Any]:
    """Carry out a statement made by `inserting`, with rows that name the same columns."""
    if connection.dialect.name == "sqlite":
        return connection.execute(statement, list(rows))
    return connection.execute(statement, {name: [row[name] for row in rows] for name in rows[0]})


@lru_cache(maxsize=32)
def _from_arrays(table: Table, names: tuple[str, ...]) -> postgresql.Insert:
    """An INSERT that takes one array per column."""
    arrays = [bindparam(name, type_=ARRAY(table.c[name].type)) for name in names]
    kinds = [column(name, table.c[name].type) for name in names]
    given = func.unnest(*arrays).table_valued(*kinds, name="given").render_derived()
    chosen = select(*(given.c[name] for name in names))
    return postgresql.insert(table).from_select(list(names), chosen)
