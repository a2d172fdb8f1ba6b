"""Keyset pagination: a page begins after the last row of the previous page, not at an offset.

Rows that are added or removed while a caller pages shift nothing. Rows without a value in the
column that a list is sorted by come last in both directions. They are read by a second query,
because the two databases sort NULL differently and could not use an index for one query.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    literal,
    tuple_,
)

from app.db.types import UtcTime
from app.errors import BadRequest

Item = TypeVar("Item", covariant=True)

MAX_CURSOR_LENGTH = 4000
_KEY_LABEL = "_key_{}"
_BACK = "<"  # before the name in a cursor of a previous page


@dataclass(frozen=True, slots=True)
class Order:
    """A total order of rows by `keys`, which together are unique.

    `nulls_last` is a column whose rows without a value come last, in the order of the keys after
    the first one; all keys of the other rows have a value. `name` ties a cursor to the list and
    the sort order for which it was made.
    """

    name: str
    keys: tuple[ColumnElement[Any], ...]
    descending: bool = False
    nulls_last: ColumnElement[Any] | None = None


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A page of a list, and the cursors of the pages after and before it (None: there is none)."""

    items: Sequence[Item]
    next: str | None
    previous: str | None = None


def read_page(
    connection: Connection,
    statement: Select[Any],
    order: Order,
    *,
    cursor: str | None,
    limit: int,
) -> Page[RowMapping]:
    """Read up to `limit` rows of the statement after the cursor, or before one of a previous page.

    Raises BadRequest naming `cursor` when it was not made for this list and sort order.
    """
    return read_pages(connection, [(statement, order)], cursor=cursor, limit=limit)


def read_pages(
    connection: Connection,
    parts: Sequence[tuple[Select[Any], Order]],
    *,
    cursor: str | None,
    limit: int,
) -> Page[RowMapping]:
    """Read a page of several lists, one after the other, each in its own order.

    Raises BadRequest naming `cursor` when it was made for none of them.
    """
    start, bound, is_backward = _find_part(parts, cursor)
    rows: list[tuple[Order, RowMapping]] = []
    for statement, order in parts[start::-1] if is_backward else parts[start:]:
        keys = (key.label(_KEY_LABEL.format(n)) for n, key in enumerate(order.keys))
        left = limit + 1 - len(rows)
        found = _read_rows(
            connection, statement.add_columns(*keys), order, bound, left, is_backward
        )
        rows += ((order, row) for row in found)
        bound = None
        if len(rows) > limit:
            break
    has_more, rows = len(rows) > limit, rows[:limit]
    if is_backward:
        rows.reverse()
    has_next, has_previous = (True, has_more) if is_backward else (has_more, cursor is not None)
    return Page(
        [row for _, row in rows],
        next=_encode(*rows[-1]) if rows and has_next else None,
        previous=_encode(*rows[0], _BACK) if rows and has_previous else None,
    )


def _find_part(
    parts: Sequence[tuple[Select[Any], Order]], cursor: str | None
) -> tuple[int, Sequence[Any] | None, bool]:
    """The list in which a page begins, the keys after which it does, and the direction."""
    if cursor is None:
        return 0, None, False
    for number, (_, order) in enumerate(parts[:-1]):
        with suppress(BadRequest):
            return number, *_decode(order, cursor)
    return len(parts) - 1, *_decode(parts[-1][1], cursor)


def _read_rows(
    connection: Connection,
    statement: Select[Any],
    order: Order,
    bound: Sequence[Any] | None,
    limit: int,
    is_backward: bool,
) -> list[RowMapping]:
    """The rows after the bound; backwards those before it, the nearest first."""
    descending = order.descending != is_backward
    parts = [(statement, order.keys)]
    column = order.nulls_last
    if column is not None:
        missing = statement.where(column.is_(None)).add_columns(column.label("_is_null"))
        parts = [(statement.where(column.is_not(None)), order.keys), (missing, order.keys[1:])]
    start = 0
    if column is not None and bound and bound[0] is None:
        start, bound = 1, bound[1:]
    rows: list[RowMapping] = []
    for found, keys in parts[start::-1] if is_backward else parts[start:]:
        if len(rows) == limit:
            break
        if bound is not None:
            found = found.where(_is_after(keys, bound, descending))
            bound = None
        directed = [key.desc() if descending else key.asc() for key in keys]
        ordered = found.order_by(*directed).limit(limit - len(rows))
        rows += connection.execute(ordered).mappings()
    return rows


def _is_after(
    keys: Sequence[ColumnElement[Any]], after: Sequence[Any], descending: bool
) -> ColumnElement[bool]:
    """The condition for rows after these values.

    The bound on the first key alone lets its index serve also where the keys are of two tables.
    """
    values = [literal(value, key.type) for key, value in zip(keys, after, strict=True)]
    if descending:
        return and_(keys[0] <= values[0], tuple_(*keys) < tuple_(*values))
    return and_(keys[0] >= values[0], tuple_(*keys) > tuple_(*values))


def _encode(order: Order, row: RowMapping, direction: str = "") -> str:
    values = [row[_KEY_LABEL.format(n)] for n in range(len(order.keys))]
    if "_is_null" in row:
        values[0] = None
    texts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return (
        urlsafe_b64encode(json.dumps([direction + order.name, *texts]).encode())
        .decode()
        .rstrip("=")
    )


def _decode(order: Order, cursor: str) -> tuple[list[Any], bool]:
    """The values of a cursor, and whether it is one of a previous page."""
    try:
        if len(cursor) > MAX_CURSOR_LENGTH:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        name, *values = json.loads(urlsafe_b64decode(padded.encode("ascii")))
        is_backward = name == _BACK + order.name
        if not (is_backward or name == order.name) or len(values) != len(order.keys):
            raise ValueError("made for another list")
        skipped = 1 if order.nulls_last is not None and values[0] is None else 0
        pairs = zip(order.keys[skipped:], values[skipped:], strict=True)
        bound = [None] * skipped + [_parse_value(key, value) for key, value in pairs]
        return bound, is_backward
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise BadRequest("cursor", "is not a cursor of this list with this sort order") from None


def _parse_value(key: ColumnElement[Any], value: Any) -> Any:
    """Convert to the key's type. Raises ValueError for what a row of the key cannot contain."""
    if isinstance(key.type, UtcTime):
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError("a time without a zone")
        return at.astimezone(UTC)
    if type(value) is not key.type.python_type:
        raise ValueError("wrong type")
    if isinstance(value, str):
        if b"\0" in value.encode():  # a lone surrogate raises too: both are no text to a database
            raise ValueError("not a text")
        return value
    bits = 63 if isinstance(key.type, BigInteger) else 31
    if not -(2**bits) <= value < 2**bits:
        raise ValueError("too large")
    return value
