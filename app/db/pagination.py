"""Paging by key: a page begins after the last row of the page before, never at a count of rows.

A row that is added or taken away while somebody pages moves nothing else. Unknown values come last
in both directions; they are read as a part of their own, so that both databases can use the same
index although they sort NULL differently.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    func,
    literal,
    null,
    select,
    tuple_,
)

from app.db.types import UtcTime
from app.errors import BadRequest

LONGEST = 4000
_KEY = "_key_{}"


@dataclass(frozen=True, slots=True)
class Order:
    """A total order of rows by `keys`, which together are unique.

    Only the first key may be unknown, and only where `nullable` says so. `name` ties a cursor to
    the list and sort it was made for. `known` holds for all rows whose first key is known, and
    helps to find them. `alike` are other keys that are the same for these rows, where an index of
    theirs serves better.
    """

    name: str
    keys: tuple[ColumnElement[Any], ...]
    descending: bool = False
    nullable: bool = False
    known: Sequence[ColumnElement[bool]] = ()
    alike: tuple[ColumnElement[Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the cursor of the page after them (None on the last page)."""

    rows: list[RowMapping]
    next: str | None


def read_page(
    connection: Connection,
    statement: Select[Any],
    order: Order,
    *,
    cursor: str | None,
    limit: int,
    few: Column[Any] | None = None,
) -> Page:
    """Up to `limit` rows of the statement, in order, after the cursor.

    `few` names the rows' own key where few enough fit that it is best to find them all and then
    sort, whatever the planner would guess. Raises BadRequest naming `cursor` when it was not made
    for this list and sort.
    """
    after = _decoded(order, cursor) if cursor is not None else None
    read = partial(_read, connection, descending=order.descending, few=few)
    statement = statement.add_columns(
        *(key.label(_KEY.format(n)) for n, key in enumerate(order.keys))
    )
    rows: list[RowMapping] = []
    if after is None or after[0] is not None:
        rows = read(_known(statement, order), order.alike or order.keys, after, limit + 1)
    if order.nullable and len(rows) <= limit:
        missing = statement.where(_unknown(order.keys[0], apart=few is not None))
        rest = after[1:] if after and after[0] is None else None
        rows += read(missing, order.keys[1:], rest, limit + 1 - len(rows))
    more = len(rows) > limit
    return Page(rows[:limit], _encoded(order, rows[limit - 1]) if more else None)


def cursor_at(order: Order, row: RowMapping) -> str:
    """The cursor after this row of a page."""
    return _encoded(order, row)


def _known(statement: Select[Any], order: Order) -> Select[Any]:
    if not order.nullable:
        return statement
    return statement.where(order.keys[0].is_not(None), *order.known)


def _unknown(key: ColumnElement[Any], *, apart: bool) -> ColumnElement[bool]:
    """SQLite thinks that few rows are unknown where most are. Where rows are to be found by their
    conditions alone, `coalesce` leaves it no index of the key.
    """
    return func.coalesce(key, null()).is_(None) if apart else key.is_(None)


def _read(
    connection: Connection,
    statement: Select[Any],
    keys: Sequence[ColumnElement[Any]],
    after: Sequence[Any] | None,
    limit: int,
    *,
    descending: bool,
    few: Column[Any] | None,
) -> list[RowMapping]:
    if after is not None:
        statement = statement.where(_beyond(keys, after, descending))
    if few is not None:
        statement = _sorted_apart(statement, keys, few, limit, descending)
    statement = statement.order_by(*directed(keys, descending)).limit(limit)
    return list(connection.execute(statement).mappings())


def directed(keys: Sequence[Any], descending: bool) -> list[ColumnElement[Any]]:
    """The keys as an ORDER BY wants them."""
    return [key.desc() if descending else key.asc() for key in keys]


def _sorted_apart(
    statement: Select[Any],
    keys: Sequence[ColumnElement[Any]],
    few: Column[Any],
    limit: int,
    descending: bool,
) -> Select[Any]:
    """Only the rows of this page, found by their conditions alone and sorted afterwards."""
    named = [key.label(_KEY.format(n)) for n, key in enumerate(keys)]
    found = statement.with_only_columns(few.label("few"), *named).cte("found")
    found = found.prefix_with("MATERIALIZED")
    sort = directed([found.c[label.name] for label in named], descending)
    return statement.where(few.in_(select(found.c.few).order_by(*sort).limit(limit)))


def beyond(order: Order, cursor: str | None) -> list[ColumnElement[bool]]:
    """The condition of the page after a cursor, for an order whose keys are always known."""
    return [_beyond(order.keys, _decoded(order, cursor), order.descending)] if cursor else []


def _beyond(
    keys: Sequence[ColumnElement[Any]], after: Sequence[Any], descending: bool
) -> ColumnElement[bool]:
    """After these values in the order. The first key's own bound lets an index of it serve where
    the keys are of two tables.
    """
    told = [literal(value, key.type) for key, value in zip(keys, after, strict=True)]
    left, right = tuple_(*keys), tuple_(*told)
    if descending:
        return and_(keys[0] <= told[0], left < right)
    return and_(keys[0] >= told[0], left > right)


def _encoded(order: Order, row: RowMapping) -> str:
    values = [row[_KEY.format(n)] for n in range(len(order.keys))]
    told = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return urlsafe_b64encode(json.dumps([order.name, *told]).encode()).decode().rstrip("=")


def _decoded(order: Order, cursor: str) -> list[Any]:
    try:
        return _values(order, _list(cursor))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise BadRequest("cursor", "is not a cursor of this list with this sort") from None


def _list(cursor: str) -> Any:
    if len(cursor) > LONGEST:
        raise ValueError("too long")
    padded = cursor + "=" * (-len(cursor) % 4)
    return json.loads(urlsafe_b64decode(padded.encode("ascii")))


def _values(order: Order, told: Any) -> list[Any]:
    name, *values = told
    if name != order.name or len(values) != len(order.keys):
        raise ValueError("made for another list")
    skipped = 1 if order.nullable and values[0] is None else 0
    pairs = zip(order.keys[skipped:], values[skipped:], strict=True)
    return [None] * skipped + [_value(key, value) for key, value in pairs]


def _value(key: ColumnElement[Any], told: Any) -> Any:
    """The told value as the key's own type; raises ValueError for anything the key cannot be."""
    if isinstance(key.type, UtcTime):
        return _time(told)
    if type(told) is not key.type.python_type:
        raise ValueError("of another type")
    return _text(told) if isinstance(told, str) else _number(told, key)


def _time(told: Any) -> datetime:
    at = datetime.fromisoformat(told)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC)


def _text(told: str) -> str:
    """Text both databases can compare: no NUL, no lone surrogate (which does not encode)."""
    if b"\0" in told.encode():
        raise ValueError("no text")
    return told


def _number(told: int, key: ColumnElement[Any]) -> int:
    bits = 63 if isinstance(key.type, BigInteger) else 31
    if not -(2**bits) <= told < 2**bits:
        raise ValueError("too large")
    return told
