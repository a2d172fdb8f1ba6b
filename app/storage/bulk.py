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
    ColumnElement,
    Connection,
    Row,
    Table,
    Text,
    bindparam,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql

from app.storage.database import insert


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
    if connection.dialect.name == "sqlite":
        statement = insert(connection, table).on_conflict_do_nothing(index_elements=list(unless))
        return connection.execute(statement.returning(*wanted), list(rows)).all()
    names = tuple(rows[0])
    columns = {name: [row[name] for row in rows] for name in names}
    statement = _from_arrays(table, names).on_conflict_do_nothing(index_elements=list(unless))
    return connection.execute(statement.returning(*wanted), columns).all()


def insert_all(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    lines: tuple[str, ...] = (),
    **computed: ColumnElement[Any],
) -> None:
    """Insert the rows in their order; PostgreSQL computes the columns that are `computed`.

    All rows must name the same columns. SQLite takes the computed ones from the rows too. `lines`
    are columns whose texts have no line break: they go as one text, because an array of JSON texts
    costs more to quote than all the rest of the statement.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(table.insert(), list(rows))
        return
    names = tuple(name for name in rows[0] if name not in computed)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in names}
    columns |= {name: "\n".join(columns[name]) for name in lines}
    connection.execute(_from_arrays(table, names, lines, tuple(computed.items())), columns)


@lru_cache(maxsize=32)
def _from_arrays(
    table: Table,
    names: tuple[str, ...],
    lines: tuple[str, ...] = (),
    computed: tuple[tuple[str, ColumnElement[Any]], ...] = (),
) -> postgresql.Insert:
    """An INSERT that takes one array (or text of lines) per column, and computes the others."""
    arrays = [
        func.string_to_array(bindparam(name, type_=Text), literal_column("chr(10)"))
        if name in lines
        else bindparam(name, type_=ARRAY(table.c[name].type))
        for name in names
    ]
    kinds = [column(name, table.c[name].type) for name in names]
    given = func.unnest(*arrays).table_valued(*kinds, name="given").render_derived()
    chosen = select(*(given.c[name] for name in names), *(value for _, value in computed))
    into = [*names, *(name for name, _ in computed)]
    return postgresql.insert(table).from_select(into, chosen)
