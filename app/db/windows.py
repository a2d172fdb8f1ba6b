"""Lists of syncs inside a range of time, sorted by something else than time.

The planner cannot know that syncs of one week were also updated in one week: it would walk an
index in the wanted order past everything that is newer. How many syncs a range has is counted
ahead, so we know better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, Connection, Text, bindparam, func, select, true

from app.db import counted
from app.db.pagination import Order, beyond, directed
from app.db.tables import syncs
from app.domain.days import touched

FEW = 10_000
MOST_DAYS = 1000
NO_DAY = ""  # as an old version of this code leaves it until the next recount


@dataclass(frozen=True, slots=True)
class Range:
    """Syncs whose own time lies in it, and that as conditions on `syncs`."""

    since: datetime | None
    until: datetime | None
    conditions: Sequence[ColumnElement[bool]]


def plan(
    connection: Connection,
    order: Order,
    cursor: str | None,
    limit: int,
    wanted: Range,
    *,
    alone: bool,
) -> tuple[Column[Any] | None, list[ColumnElement[bool]]]:
    """How to read a page of a range: the key for `read_page` where the range holds few syncs; else,
    where nothing else is wanted and the sort is by update (`alone`), a condition that leaves only
    the first rows of each day.
    """
    by_day = counted.syncs_by_day(connection, *touched(wanted.since, wanted.until))
    if sum(by_day.values()) <= FEW:
        return syncs.c.id, []
    if not alone or connection.dialect.name == "sqlite" or len(by_day) > MOST_DAYS:
        return None, []
    return None, [_first_of_each(sorted(by_day), order, cursor, limit, wanted)]


def _first_of_each(
    days: Sequence[str], order: Order, cursor: str | None, limit: int, wanted: Range
) -> ColumnElement[bool]:
    """One short walk per day."""
    given = func.unnest(bindparam("days", [*days, NO_DAY], ARRAY(Text)))
    day = given.table_valued("given_day", name="given_days").render_derived()
    first = (
        select(syncs.c.id, *(key.label(f"key_{n}") for n, key in enumerate(order.keys)))
        .where(syncs.c.day == day.c.given_day)
        .where(*wanted.conditions, *beyond(order, cursor))
        .order_by(*directed(order.keys, order.descending))
        .limit(limit + 1)
        .lateral("first")
    )
    keys = [first.c[f"key_{n}"] for n in range(len(order.keys))]
    page = select(first.c.id).select_from(day.join(first, true()))
    return syncs.c.id.in_(page.order_by(*directed(keys, order.descending)).limit(limit + 1))
