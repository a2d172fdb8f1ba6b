"""Many rows in one statement, as fast as each database can take them.

All rows go as one JSON text, and the database takes it apart (`INSERT … SELECT FROM
json_to_recordset(…)`, on SQLite `json_each`). The statement is the same for any number of rows, so
neither we nor the database must read it anew for every batch; the text is made by one call into C,
without what is empty; and taking it apart happens beside our thread, not in it.

Making a statement costs us more than carrying it out: whoever is called for every batch makes it
once per kind of database.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, reduce
from operator import or_
from typing import Any

import orjson
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


@dataclass(frozen=True, slots=True)
class Write:
    """Rows of one table, the statement that takes them by kind of database, its other parameters.

    All rows must name the same columns. The table is the one whose columns the rows are `given` as.
    """

    table: FromClause
    rows: Rows
    statement: Callable[[str], Any]
    more: Mapping[str, Any] = field(default_factory=dict)


def insertion(table: Table, rows: Rows, **computed: ColumnElement[Any]) -> Write:
    """Insert the rows in their order.

    PostgreSQL computes the columns that are `computed`; SQLite takes those from the rows too.
    """
    names = tuple(rows[0]) if rows else ()
    more = tuple(computed.items())
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
) -> Sequence[Row[Any]]:
    """Insert the rows whose columns `unless` are not there yet, and return those, in any order.

    All rows must name the same columns. What is written `besides` comes after, together with them.
    """
    if not rows:
        write(connection, *besides)
        return []
    names = tuple(rows[0])
    new = Write(table, rows, lambda kind: _inserting_new(kind, table, names, unless, returning))
    return sent(connection, new, *besides).all()


def changing(table: Table, rows: Rows) -> Write:
    """Update the rows with these ids."""
    names = tuple(rows[0]) if rows else ()
    return Write(table, rows, lambda kind: _updating(kind, table, names))


def write(connection: Connection, *writes: Write) -> None:
    """Carry out these writes, none of which builds on another: on PostgreSQL as one statement."""
    some = [each for each in writes if each.rows]
    if some:
        sent(connection, *some)


def sent(connection: Connection, first: Write, *besides: Write) -> CursorResult[Any]:
    """As `write`, and the result of the first, which must have rows."""
    some = [first, *(each for each in besides if each.rows)]
    if len({each.table for each in some}) < len(some):
        raise ValueError("two writes to one table build on each other")
    kind = connection.dialect.name
    statements = tuple(each.statement(kind) for each in some)
    told = [{**_parameters(kind, each.table, each.rows), **each.more} for each in some]
    if kind != "sqlite":
        as_one = _together(statements) if len(some) > 1 else statements[0]
        return connection.execute(as_one, reduce(or_, told))
    results = [connection.execute(*each) for each in zip(statements, told, strict=True)]
    return results[0]


@lru_cache(maxsize=64)
def _together(statements: tuple[Any, ...]) -> Any:
    """PostgreSQL carries out what is said first, then the others in their order."""
    first, *besides = statements
    return first.add_cte(*(each.cte(f"part_{n}") for n, each in enumerate(besides)))


def _parameters(kind: str, table: FromClause, rows: Rows) -> dict[str, Any]:
    """Half a character (a lone surrogate) fails here, and does not become bad text."""
    told = [{name: value for name, value in row.items() if value is not None} for row in rows]
    # PostgreSQL reads times as orjson spells them; SQLite keeps them as text, in one spelling
    option = orjson.OPT_PASSTHROUGH_DATETIME if kind == "sqlite" else None
    return {f"{table.description}_rows": orjson.dumps(told, _spelled, option).decode()}


@lru_cache(maxsize=64)
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
    """The rows that `write` brings, with these columns of a table; an absent member is NULL."""
    rows = bindparam(f"{table.description}_rows", type_=Text)
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


def _spelled(value: object) -> str:
    """What orjson leaves to us, as PostgreSQL spells it; of times only SQLite's."""
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime):
        return _spelled_time(value)
    raise TypeError(f"a {type(value).__name__} cannot be kept")


@lru_cache(maxsize=1024)
def _spelled_time(value: datetime) -> str:
    """Kept, because one moment stands in many columns."""
    return value.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")
