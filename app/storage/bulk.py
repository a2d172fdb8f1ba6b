"""Many rows in one statement, as fast as each database can take them.

All rows go as one JSON text, and the database takes it apart (`INSERT … SELECT FROM
json_to_recordset(…)`, on SQLite `json_each`). The statement is the same for any number of rows, so
neither we nor the database must read it anew for every batch; the text is made by one call into C,
without what is empty; and taking it apart happens beside our thread, not in it.

Making a statement costs us more than carrying it out: whoever is called for every batch makes it
once per kind of database.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    CursorResult,
    FromClause,
    LargeBinary,
    Row,
    Table,
    Text,
    Update,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import KeyedColumnElement

Insert = postgresql.Insert | sqlite.Insert
Rows = Sequence[Mapping[str, Any]]


def insert_new(
    connection: Connection,
    table: Table,
    rows: Rows,
    *,
    unless: tuple[str, ...],
    returning: tuple[str, ...],
) -> Sequence[Row[Any]]:
    """Insert the rows whose columns `unless` are not there yet, and return those, in any order.

    All rows must name the same columns.
    """
    if not rows:
        return []
    statement = _inserting_new(connection.dialect.name, table, tuple(rows[0]), unless, returning)
    return put(connection, statement, rows).all()


def insert_all(
    connection: Connection, table: Table, rows: Rows, **computed: ColumnElement[Any]
) -> None:
    """Insert the rows in their order; all must name the same columns.

    PostgreSQL computes the columns that are `computed`; SQLite takes those from the rows too.
    """
    if rows:
        kind = connection.dialect.name
        more = () if kind == "sqlite" else tuple(computed.items())
        put(connection, inserting(kind, table, tuple(rows[0]), more), rows)


def update_all(connection: Connection, table: Table, rows: Rows) -> None:
    """Update the rows with these ids; all must name the same columns."""
    if rows:
        put(connection, _updating(connection.dialect.name, table, tuple(rows[0])), rows)


def put(connection: Connection, statement: Any, rows: Rows, **more: Any) -> CursorResult[Any]:
    """Carry out a statement made for rows like these; `more` are its other parameters."""
    told = [{name: value for name, value in row.items() if value is not None} for row in rows]
    spelled = partial(_spelled, connection.dialect.name)
    # not in ASCII: half a character (a lone surrogate) must fail here, and not become bad text
    as_json = json.dumps(told, ensure_ascii=False, check_circular=False, default=spelled)
    return connection.execute(statement, {"rows": as_json, **more})


@lru_cache(maxsize=64)
def inserting(
    kind: str,
    table: Table,
    names: tuple[str, ...],
    computed: tuple[tuple[str, ColumnElement[Any]], ...] = (),
) -> Insert:
    """An INSERT for rows of these columns, to say ON CONFLICT of; `put` carries it out.

    A computed column is taken from its expression and not from the rows.
    """
    statement = sqlite.insert(table) if kind == "sqlite" else postgresql.insert(table)
    # without a WHERE, SQLite would take the ON of ON CONFLICT for a join's
    instead = dict(computed)
    told = given(kind, table, names).c
    chosen = select(*(instead.get(name, told[name]) for name in names)).where(text("true"))
    return statement.from_select(list(names), chosen)


@lru_cache(maxsize=64)
def _inserting_new(
    kind: str,
    table: Table,
    names: tuple[str, ...],
    unless: tuple[str, ...],
    returning: tuple[str, ...],
) -> Any:
    statement = inserting(kind, table, names).on_conflict_do_nothing(index_elements=list(unless))
    return statement.returning(*(table.c[name] for name in returning))


@lru_cache(maxsize=64)
def _updating(kind: str, table: Table, names: tuple[str, ...]) -> Update:
    told = given(kind, table, names)
    new = {name: told.c[name] for name in names if name != "id"}
    return update(table).where(table.c.id == told.c.id).values(new)


def given(kind: str, table: FromClause, names: tuple[str, ...]) -> FromClause:
    """The rows that `put` brings, with these columns of a table; an absent member is NULL."""
    rows = bindparam("rows", type_=Text)
    if kind == "sqlite":
        each = func.json_each(rows).table_valued("value", name="each")
        return select(*(_member(each.c.value, table.c[name]) for name in names)).subquery("given")
    kinds = [column(name, table.c[name].type) for name in names]
    told = func.json_to_recordset(cast(rows, JSON)).table_valued(*kinds, name="given")
    return told.render_derived(with_types=True)


def _member(row: ColumnElement[Any], wanted: KeyedColumnElement[Any]) -> ColumnElement[Any]:
    value = func.json_extract(row, literal_column(f"'$.{wanted.name}'"))
    is_bytes = isinstance(wanted.type, LargeBinary)
    return (func.from_hex(value) if is_bytes else value).label(wanted.name)


def _spelled(kind: str, value: object) -> str:
    """What JSON has no word for, as the database spells it."""
    if isinstance(value, bytes):
        return value.hex() if kind == "sqlite" else "\\x" + value.hex()
    if isinstance(value, datetime):
        return _spelled_time(kind, value)
    raise TypeError(f"a {type(value).__name__} cannot be kept")


@lru_cache(maxsize=1024)
def _spelled_time(kind: str, value: datetime) -> str:
    """Kept, because one moment stands in many columns."""
    told = value.astimezone(UTC).isoformat(" ", "microseconds")
    return told.removesuffix("+00:00") if kind == "sqlite" else told
