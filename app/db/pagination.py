"""Keyset pagination: a page begins after the last row of the previous page, not at an offset.

Rows that are added or removed while a caller pages shift nothing. Rows without a value in the
column that a list is sorted by come last in both directions. They are read by a second query,
because the two databases sort NULL differently and could not use an index for one query.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
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
    """A page of a list, and the cursor of the next one (None on the last page)."""

    items: Sequence[Item]
    next: str | None


def read_page(
    connection: Connection,
    statement: Select[Any],
    order: Order,
    *,
    cursor: str | None,
    limit: int,
) -> Page[RowMapping]:
    """Read up to `limit` rows of the statement after the cursor.

    Raises BadRequest naming `cursor` when it was not made for this list and sort order.
    """
    after = _decode(order, cursor) if cursor is not None else None
    statement = statement.add_columns(
        *(key.label(_KEY_LABEL.format(n)) for n, key in enumerate(order.keys))
    )
    rows = _read_rows(connection, statement, order, after, limit + 1)
    has_more = len(rows) > limit
    return Page(rows[:limit], _encode(order, rows[limit - 1]) if has_more else None)


def _read_rows(
    connection: Connection,
    statement: Select[Any],
    order: Order,
    after: Sequence[Any] | None,
    limit: int,
) -> list[RowMapping]:
    def read(
        found: Select[Any],
        keys: Sequence[ColumnElement[Any]],
        after: Sequence[Any] | None,
        limit: int,
    ) -> list[RowMapping]:
        if after is not None:
            found = found.where(_is_after(keys, after, order.descending))
        directed = [key.desc() if order.descending else key.asc() for key in keys]
        return list(connection.execute(found.order_by(*directed).limit(limit)).mappings())

    column = order.nulls_last
    if column is None:
        return read(statement, order.keys, after, limit)
    rows: list[RowMapping] = []
    in_nulls = after is not None and after[0] is None
    if not in_nulls:
        rows = read(statement.where(column.is_not(None)), order.keys, after, limit)
    if len(rows) < limit:
        missing = statement.where(column.is_(None)).add_columns(column.label("_is_null"))
        rest = after[1:] if after and in_nulls else None
        rows += read(missing, order.keys[1:], rest, limit - len(rows))
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


def _encode(order: Order, row: RowMapping) -> str:
    values = [row[_KEY_LABEL.format(n)] for n in range(len(order.keys))]
    if "_is_null" in row:
        values[0] = None
    texts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return urlsafe_b64encode(json.dumps([order.name, *texts]).encode()).decode().rstrip("=")


def _decode(order: Order, cursor: str) -> list[Any]:
    try:
        if len(cursor) > MAX_CURSOR_LENGTH:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        name, *values = json.loads(urlsafe_b64decode(padded.encode("ascii")))
        if name != order.name or len(values) != len(order.keys):
            raise ValueError("made for another list")
        skipped = 1 if order.nulls_last is not None and values[0] is None else 0
        pairs = zip(order.keys[skipped:], values[skipped:], strict=True)
        return [None] * skipped + [_parse_value(key, value) for key, value in pairs]
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
