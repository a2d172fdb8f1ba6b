"""Reads of causes: how many failures of which cause there are, and for whom.

Failures of one cause and one fingerprint are a group: the same sentence, over all companies. Only
failed transactions, and syncs that failed as a whole, are looked at; never the whole history.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    String,
    Text,
    case,
    cast,
    distinct,
    exists,
    func,
    null,
    or_,
    select,
    union_all,
)

from app.storage.columns import Key
from app.storage.queries import OWN_TIME, within
from app.storage.queries_items import OPEN
from app.storage.tables import open_failures, syncs, transactions

# Asked first, because most failures are cured and it is ten times as quick to see.
_MAY_BE_OPEN = or_(
    transactions.c.transaction_id.is_(None),
    exists().where(
        open_failures.c.company_id == syncs.c.company_id,
        open_failures.c.transaction_id == transactions.c.transaction_id,
    ),
)


@dataclass(frozen=True, slots=True)
class CauseFilter:
    """Which failures are wanted. Empty means all; times are those of their syncs."""

    company_id: str | None = None
    cause: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failing:
    """How many failures there are of something, and since when.

    `transactions` counts each of a company once, however often it was tried; `open` those that
    nothing has cured since; `syncs` those that failed as a whole.
    """

    companies: int
    transactions: int
    open: int
    syncs: int
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """The failures of one cause with one fingerprint, and one of their messages as it came."""

    fingerprint: str
    failing: Failing
    example: str | None = None


@dataclass(frozen=True, slots=True)
class KeptCause:
    """The failures of one cause; its groups with the most transactions first."""

    cause: str
    failing: Failing
    group_count: int
    groups: Sequence[KeptGroup]


@dataclass(frozen=True, slots=True)
class _Group:
    """A group while its example is only known by number."""

    group: KeptGroup
    item: int | None
    sync: int | None


def list_causes(
    connection: Connection, wanted: CauseFilter, *, most_groups: int = 10
) -> list[KeptCause]:
    """The causes of the wanted failures, those with the most open transactions first.

    On a connection of `journal.caught_up`, for which are open is partly written down.
    """
    failing = _failures(wanted)
    whole = _counted(failing, [failing.c.cause, cast(null(), Text).label("fingerprint")])
    parts = _counted(failing, [failing.c.cause, failing.c.fingerprint])
    causes: dict[str, Failing] = {}
    groups: dict[str, list[_Group]] = {}
    for row in connection.execute(union_all(whole, parts)):
        counts = Failing(*row[2:8])
        if row.fingerprint is None:
            causes[row.cause] = counts
        else:
            found = _Group(KeptGroup(row.fingerprint, counts), row.item, row.sync)
            groups.setdefault(row.cause, []).append(found)
    kept = [
        KeptCause(key, counts, len(groups[key]), _shown(connection, groups[key], most_groups))
        for key, counts in causes.items()
    ]
    return sorted(kept, key=lambda each: (*_by_weight(each.failing), each.cause))


def causes_in(connection: Connection, number: int) -> list[tuple[str | None, int]]:
    """Why items of one sync failed, and how many each time; the most frequent cause first."""
    count = func.count()
    found = connection.execute(
        select(transactions.c.cause, count)
        .where(transactions.c.sync == number, transactions.c.failed.is_(True))
        .group_by(transactions.c.cause)
        .order_by(count.desc(), transactions.c.cause)
    )
    return [(row[0], row[1]) for row in found]


def _by_weight(failing: Failing) -> tuple[int, int, int]:
    return (-failing.open, -failing.transactions, -failing.syncs)


def _counted(failing: CTE, by: list[ColumnElement[Any]]) -> Select[Any]:
    """The counts of Failing in its order, and the newest row and sync of each."""
    each, is_open = failing.c.whose, failing.c.open == 1
    return select(
        *by,
        func.count(distinct(failing.c.company_id)),
        func.count(distinct(each)),
        func.count(distinct(case((is_open, each)))),
        func.count(distinct(failing.c.sync)),
        func.min(failing.c.at),
        func.max(failing.c.at),
        func.max(failing.c.item).label("item"),
        func.max(failing.c.sync).label("sync"),
    ).group_by(
        failing.c.cause, *([failing.c.fingerprint] if by[1] is failing.c.fingerprint else [])
    )


def _failures(wanted: CauseFilter) -> CTE:
    """Every wanted failure as one row: of a transaction, or of a sync as a whole."""
    whose = func.coalesce(transactions.c.transaction_id, cast(transactions.c.id, String))
    items = (
        select(
            transactions.c.cause,
            transactions.c.fingerprint,
            syncs.c.company_id,
            (syncs.c.company_id + " " + whose).label("whose"),
            OWN_TIME.label("at"),
            case((_MAY_BE_OPEN, case((OPEN, 1), else_=0)), else_=0).label("open"),
            transactions.c.id.label("item"),
            cast(null(), Key).label("sync"),
        )
        .join_from(syncs, transactions, transactions.c.sync == syncs.c.id)
        .where(syncs.c.failed > 0, transactions.c.cause.is_not(None))
    )
    wholes = select(
        syncs.c.cause,
        syncs.c.fingerprint,
        syncs.c.company_id,
        cast(null(), Text),
        OWN_TIME,
        cast(null(), Key),
        cast(null(), Key),
        syncs.c.id,
    ).where(syncs.c.cause.is_not(None))
    items = items.where(*_conditions(wanted, transactions.c.cause))
    wholes = wholes.where(*_conditions(wanted, syncs.c.cause))
    return union_all(items, wholes).cte("failing")


def _conditions(wanted: CauseFilter, cause: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    conditions = within(OWN_TIME, wanted.since, wanted.until)
    if wanted.company_id is not None:
        conditions.append(syncs.c.company_id == wanted.company_id)
    if wanted.cause is not None:
        conditions.append(cause == wanted.cause)
    return conditions


def _shown(connection: Connection, groups: list[_Group], most: int) -> list[KeptGroup]:
    """The groups that weigh most, each with its example."""
    order = sorted(groups, key=lambda g: (*_by_weight(g.group.failing), g.group.fingerprint))
    return [replace(each.group, example=_example(connection, each)) for each in order[:most]]


def _example(connection: Connection, group: _Group) -> str | None:
    if group.item is not None:
        said = select(transactions.c.message).where(transactions.c.id == group.item)
    else:
        # as in rows.why_as_a_whole: the text that the fingerprint was made of
        told = func.coalesce(func.nullif(syncs.c.error_message, ""), syncs.c.exception_message)
        said = select(told).where(syncs.c.id == group.sync)
    message: str | None = connection.execute(said).scalar()
    return message
