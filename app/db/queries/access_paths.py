"""How a list finds its rows: by looking up a rare condition, or in the order of the list.

A page of a list is found quickly in two ways. If few rows meet one condition, they are looked up
by its index and sorted. Otherwise rows are read in the order of the list, and those that meet the
conditions are soon enough for a page. The wrong way reads a whole table (measured at a million
syncs on PostgreSQL: 0.4 to 1 s instead of 5 to 50 ms). Neither planner can choose between them:
SQLite does not know how frequent a value is, and PostgreSQL does not know that syncs of one week
were also updated in one week. A short count can.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, UnaryExpression
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import CompoundSelect

from app.db.engine import count_up_to

FEW = 10_000
Rows = Select[Any] | CompoundSelect[Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that an index serves, in two forms.

    `lookup` finds rows by that index; `check` tests rows that are found otherwise. `rows` are those
    that meet it: up to `few` (by default FEW) are worth a lookup and a sort. `sorts` are the sort
    orders in which the index returns the rows; for these `lookup` is right for any number.
    """

    rows: Rows
    lookup: ColumnElement[bool]
    check: ColumnElement[bool]
    sorts: Collection[str] = ()
    few: int | None = None


def make_condition(
    connection: Connection,
    rows: Select[Any],
    build: Callable[..., ColumnElement[bool]],
    *columns: ColumnElement[Any],
    sorts: Collection[str] = (),
    few: int | None = None,
) -> Condition:
    """The condition that `build` makes of these columns, whose index finds it among `rows`."""
    lookup = build(*columns)
    check = build(*(without_index(connection, column) for column in columns))
    return Condition(rows.where(lookup), lookup, check, sorts, few)


def rare_condition(
    connection: Connection, conditions: Sequence[Condition], sort: str
) -> Condition | None:
    """The first condition that few rows meet; None if many rows meet each of them."""
    for condition in conditions:
        few = FEW if condition.few is None or sort in condition.sorts else condition.few
        if count_up_to(connection, few + 1, condition.rows) <= few:
            return condition
    return None


def clauses(
    conditions: Sequence[Condition], rare: Condition | None, sort: str
) -> list[ColumnElement[bool]]:
    """The conditions for WHERE: a rare one is looked up, else one in the order of the list."""
    return [
        condition.lookup
        if (condition is rare if rare else sort in condition.sorts)
        else condition.check
        for condition in conditions
    ]


def without_index(connection: Connection, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column in a form for which SQLite uses no index; PostgreSQL has statistics to decide."""
    if connection.dialect.name != "sqlite":
        return column
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)
