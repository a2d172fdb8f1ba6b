"""Many rows in one statement, as fast as each database can take them.

All rows go as one JSON text, and the database takes it apart (`INSERT … SELECT FROM
json_to_recordset(…)`, on SQLite `json_each`). The statement is the same for any number of rows, so
neither we nor the database must read it anew for every batch; the text is made by one call into C,
without what is empty; and taking it apart happens beside our thread, not in it. Raw bytes go beside
it, one after the other in one value, of which each row knows its part: as JSON they would be hex.

To make a statement costs us more than to carry it out, and so does SQLAlchemy's way from one to the
driver: a statement is made once per kind of database, and its text goes to the driver's own cursor.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from typing import cast as cast_type

import orjson
from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Integer,
    LargeBinary,
    Select,
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
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import KeyedColumnElement

from app.db.types import as_text

Insert = postgresql.Insert | sqlite.Insert
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Write:
    """Rows of one table, the statement that takes them by kind of database, its other parameters.

    All rows must name the same columns. The table is the one whose columns the rows are `given` as.
    Parameters go to the driver as they are.
    """

    table: FromClause
    rows: Rows
    statement: Callable[[str], Any]
    more: Mapping[str, str | bytes] = field(default_factory=dict)


def insertion(table: Table, rows: Rows, **computed: ColumnElement[Any]) -> Write:
    """Insert the rows in their order.

    PostgreSQL computes the columns that are `computed`; SQLite takes those from the rows too.
    """
    names, more = _filled(rows), tuple(computed.items())
    return Write(
        table, rows, lambda kind: inserting(kind, table, names, () if kind == "sqlite" else more)
    )


def insert_new(
    connection: Connection,
    table: Table,
    rows: Rows,
    *besides: Write,
    unless: tuple[str, ...],
    returning: tuple[str, ...],
) -> list[tuple[Any, ...]]:
    """Insert the rows whose columns `unless` are not there yet.

    Returns the columns `returning` of those that were inserted, in any order. All rows must name
    the same columns. What is written `besides` comes after, together with them.
    """
    if not rows:
        write(connection, *besides)
        return []
    names = _filled(rows)
    new = Write(table, rows, lambda kind: _inserting_new(kind, table, names, unless, returning))
    return sent(connection, new, *besides)


def _filled(rows: Rows) -> tuple[str, ...]:
    """The columns that a row fills: to name one that none does costs both sides, for nothing."""
    names = tuple(rows[0]) if rows else ()
    return tuple(name for name in names if any(row[name] is not None for row in rows))


def changing(table: Table, rows: Rows) -> Write:
    """Update the rows with these ids."""
    names = tuple(rows[0]) if rows else ()
    return Write(table, rows, lambda kind: _updating(kind, table, names))


def write(connection: Connection, *writes: Write) -> None:
    """Carry out these writes, none of which builds on another: on PostgreSQL as one statement."""
    some = [each for each in writes if each.rows]
    if some:
        sent(connection, *some)


def sent(connection: Connection, first: Write, *besides: Write) -> list[tuple[Any, ...]]:
    """As `write`, and the result of the first, which must have rows, as the driver gives it."""
    some = [first, *(each for each in besides if each.rows)]
    if len({each.table for each in some}) < len(some):
        raise ValueError("two writes to one table build on each other")
    dialect = connection.dialect
    statements = tuple(each.statement(dialect.name) for each in some)
    told: dict[str, Any] = {}
    for each in some:
        told |= _parameters(dialect.name, each)
    if dialect.name != "sqlite":
        return _carry_out(connection, _spelled_out(dialect, statements), told)
    results = [_carry_out(connection, _spelled_out(dialect, (each,)), told) for each in statements]
    return results[0]


class _Spelled(NamedTuple):
    """A statement's text, the values it always has, and the order of values where it counts."""

    text: str
    constants: Mapping[str, Any]
    order: Sequence[str] | None


@lru_cache(maxsize=256)
def _spelled_out(dialect: Dialect, statements: tuple[Any, ...]) -> _Spelled:
    """PostgreSQL carries out what is said first, then the others, of which the last comes first."""
    first, *besides = statements
    if besides:
        first = first.add_cte(*(each.cte(f"part_{n}") for n, each in enumerate(besides)))
    compiled = first.compile(dialect=dialect)
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return _Spelled(str(compiled), constants, compiled.positiontup)


def _carry_out(
    connection: Connection, spelled: _Spelled, told: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """By the driver's own cursor; its errors are told as SQLAlchemy tells them."""
    values: Any = {**spelled.constants, **told}
    if spelled.order is not None:
        values = tuple(values[name] for name in spelled.order)
    cursor = connection.connection.cursor()
    try:
        cursor.execute(spelled.text, values)
        return [*cursor.fetchall()] if cursor.description else []
    except connection.dialect.loaded_dbapi.Error as error:
        raise _told(connection, error) from error
    finally:
        cursor.close()


def _told(connection: Connection, error: Exception) -> DBAPIError:
    if connection.dialect.is_disconnect(error, connection.connection, None):  # type: ignore[arg-type]
        connection.invalidate(error)
    base = connection.dialect.loaded_dbapi.Error
    return cast_type(DBAPIError, DBAPIError.instance(None, None, error, base, hide_parameters=True))


def _parameters(kind: str, write: Write) -> dict[str, Any]:
    """Half a character (a lone surrogate) fails here, and does not become bad text."""
    told = [{name: value for name, value in row.items() if value is not None} for row in write.rows]
    name = write.table.description
    heaps = {f"{name}_{column}": _heaped(told, column) for column in _raw(write.table)}
    # PostgreSQL reads times as orjson spells them; SQLite keeps them as text, in one spelling
    option = orjson.OPT_PASSTHROUGH_DATETIME if kind == "sqlite" else None
    return {f"{name}_rows": orjson.dumps(told, _spelled, option).decode(), **heaps, **write.more}


@lru_cache(maxsize=64)
def _raw(table: FromClause) -> tuple[str, ...]:
    """The columns whose values are bytes."""
    return tuple(each.name for each in table.c if isinstance(each.type, LargeBinary))


def _heaped(rows: Iterable[dict[str, Any]], name: str) -> bytes:
    """The bytes of all rows, one after the other; in each row stay their place and size."""
    heap, size = [], 0
    for row in rows:
        value = row.pop(name, None)
        if value is not None:
            heap.append(value)
            row |= {f"{name}_at": size + 1, f"{name}_size": len(value)}
            size += len(value)
    return b"".join(heap)


@lru_cache(maxsize=256)
def inserting(
    kind: str,
    table: Table,
    names: tuple[str, ...],
    computed: tuple[tuple[str, ColumnElement[Any]], ...] = (),
) -> Insert:
    """An INSERT for rows of these columns, to say ON CONFLICT of; a `Write` carries it.

    A computed column is taken from its expression and not from the rows.
    """
    statement = sqlite.insert(table) if kind == "sqlite" else postgresql.insert(table)
    # without a WHERE, SQLite would take the ON of ON CONFLICT for a join's
    instead = dict(computed)
    told = given(kind, table, names).c
    chosen = select(*(instead.get(name, told[name]) for name in names)).where(text("true"))
    return statement.from_select(list(names), chosen)


@lru_cache(maxsize=256)
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
    """The rows that a `Write` brings, with these columns of a table; an absent member is NULL."""
    rows = bindparam(f"{table.description}_rows", type_=Text)
    return _unpacked(kind, rows, None, table, names).subquery("given")


def unpacked(
    kind: str, packed: Column[str], table: FromClause, names: tuple[str, ...]
) -> Select[Any]:
    """The rows that a column holds as JSON, with these columns of another table."""
    return _unpacked(kind, packed, packed.table, table, names)


def _unpacked(
    kind: str,
    packed: ColumnElement[str],
    whose: FromClause | None,
    table: FromClause,
    names: tuple[str, ...],
) -> Select[Any]:
    wanted = [member for name in names for member in _members(table.c[name])]
    if kind == "sqlite":
        each: FromClause = func.json_each(packed).table_valued("value", name="each")
        told = {m.name: _member(each.c.value, m.name) for m in wanted}
    else:
        rows = func.json_to_recordset(cast(packed, JSON)).table_valued(*wanted, name="each")
        each = rows.render_derived(with_types=True)
        told = {m.name: each.c[m.name] for m in wanted}
    columns = [_read(table, name, told).label(name) for name in names]
    return select(*columns).select_from(each if whose is None else whose.join(each, true()))


def _members(wanted: KeyedColumnElement[Any]) -> list[KeyedColumnElement[Any]]:
    """How a column comes: as a member of its name, or as the place of its bytes in a heap."""
    if not isinstance(wanted.type, LargeBinary):
        return [column(wanted.name, wanted.type)]
    return [column(f"{wanted.name}_{part}", Integer) for part in ("at", "size")]


def _member(row: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return func.json_extract(row, literal_column(f"'$.{name}'"))


def _read(
    table: FromClause, name: str, told: Mapping[str, ColumnElement[Any]]
) -> ColumnElement[Any]:
    if name in told:
        return told[name]
    heap = bindparam(f"{table.description}_{name}", type_=LargeBinary)
    return func.substr(heap, told[f"{name}_at"], told[f"{name}_size"])


def _spelled(value: object) -> str:
    """What orjson leaves to us: of times only SQLite's."""
    if isinstance(value, datetime):
        return as_text(value)
    raise TypeError(f"a {type(value).__name__} cannot be kept")
