"""Reads of transactions: in one sync, over all syncs of a company, and the failed ones.

Over syncs a transaction is known by company and transaction id. Its outcome in one sync is the
worst of its rows there (they repeat, one per integration type); its `current` outcome is that of
the newest sync that has it, by the sync's own time and not by arrival. A failed row is `cured_by`
the first later sync in which all of the transaction's rows are completed, and open until then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    RowMapping,
    ScalarSelect,
    Select,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    tuple_,
)

from app.db.caused import items_caused_by
from app.db.pagination import Order, read_page
from app.db.queries.search import items_found
from app.db.queries.syncs import OWN_TIME, own_time, within
from app.db.slices import chunked
from app.db.tables import syncs, transactions
from app.errors import NotKnown

ItemOutcome = Literal["completed", "failed", "pending", "other"]
# Worst first, as the database ranks them.
OUTCOMES: tuple[ItemOutcome, ...] = ("failed", "pending", "other", "completed")
COMPLETED = OUTCOMES.index("completed")
MOST_HISTORY = 1000

_IN_SYNC = Order("items", (transactions.c.position,))
_NEWEST_FAILURES = Order(
    "push-errors", (OWN_TIME, syncs.c.id, transactions.c.position), descending=True
)


def rank(table: FromClause) -> ColumnElement[int]:
    """The row's class as a number; the same classes that `rules.sync.count` tells apart."""
    status = func.lower(func.trim(table.c.status))
    return case(
        (table.c.failed, 0), (status == "pending", 1), (status == "completed", COMPLETED), else_=2
    )


_other, _its_sync = transactions.alias("other"), syncs.alias("other_sync")
_beside = transactions.alias("beside")
# From a transaction's id to its rows, and from those to their syncs: `+ 0` and `|| ''` leave no
# other way. PostgreSQL without statistics went through all rows of all the company's syncs.
_same = and_(
    _other.c.transaction_id == transactions.c.transaction_id,
    _its_sync.c.id == _other.c.sync + 0,
    _its_sync.c.company_id.concat("") == syncs.c.company_id,
)


def _current() -> ColumnElement[int]:
    newest: ScalarSelect[int] = (
        select(rank(_other))
        .where(_same)
        .order_by(own_time(_its_sync).desc(), _its_sync.c.id.desc(), rank(_other))
        .limit(1)
        .correlate(transactions, syncs)
        .scalar_subquery()
    )
    return func.coalesce(newest, rank(transactions))


def _cures() -> Select[tuple[str]]:
    """The later syncs of the company in which the transaction is completed as a whole."""
    unfinished = exists().where(
        _beside.c.sync + 0 == _other.c.sync,
        _beside.c.transaction_id == _other.c.transaction_id,
        rank(_beside) != COMPLETED,
    )
    later = tuple_(own_time(_its_sync), _its_sync.c.id) > tuple_(OWN_TIME, syncs.c.id)
    return (
        select(_its_sync.c.sync_id)
        .where(_same, later, rank(_other) == COMPLETED, ~unfinished.correlate(_other))
        .correlate(transactions, syncs)
    )


_first_cure = _cures().order_by(own_time(_its_sync), _its_sync.c.id).limit(1).scalar_subquery()
OPEN = ~_cures().exists()
"""Holds for a failed row of `transactions` joined to `syncs` that nothing has cured since."""

_ITEM = select(
    transactions,
    syncs.c.company_id,
    syncs.c.sync_id,
    OWN_TIME.label("at"),
    _current().label("current"),
    case((transactions.c.failed, _first_cure), else_=None).label("cured_by"),
).join_from(transactions, syncs, syncs.c.id == transactions.c.sync)


@dataclass(frozen=True, slots=True)
class KeptItem:
    """One row of a sync's transaction list, with what later syncs made of it."""

    company_id: str
    sync_id: str
    position: int
    transaction_id: str | None
    integration_type: str | None
    status: str | None
    message: str | None
    failed: bool
    correlation_id: str | None
    cause: str | None
    fingerprint: str | None
    at: datetime
    current: ItemOutcome
    cured_by: str | None


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Which rows of one sync are wanted; `q` is looked for in ids and messages."""

    statuses: Sequence[str] = ()
    failed: bool | None = None
    q: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorFilter:
    """Which failed rows over all syncs are wanted; `open` False means the cured ones."""

    company_id: str | None = None
    cause: str | None = None
    open: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Some rows, and the cursor of the page after them."""

    items: list[KeptItem]
    next: str | None


def list_items(
    connection: Connection,
    number: int,
    wanted: ItemFilter,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> ItemPage:
    """One page of a sync's rows, in Codat's order. Raises BadRequest for a wrong cursor."""
    statement = _ITEM.where(transactions.c.sync == number, *_in_sync(wanted))
    return _page(connection, statement, _IN_SYNC, cursor, limit)


def _in_sync(wanted: ItemFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.statuses:
        folded = [status.lower() for status in wanted.statuses]
        conditions.append(func.lower(transactions.c.status).in_(folded))
    if wanted.failed is not None:
        conditions.append(transactions.c.failed.is_(wanted.failed))
    if wanted.cause is not None:
        conditions.append(transactions.c.cause == wanted.cause)
    if wanted.q is not None:
        told = (
            transactions.c.transaction_id,
            transactions.c.message,
            transactions.c.correlation_id,
        )
        conditions.append(or_(*(text.icontains(wanted.q, autoescape=True) for text in told)))
    return conditions


def items_at(connection: Connection, number: int, first: int, most: int) -> list[KeptItem]:
    """A sync's rows from a position (0 is the first) on, at most so many."""
    statement = (
        _ITEM.where(transactions.c.sync == number, transactions.c.position >= first)
        .order_by(transactions.c.position)
        .limit(most)
    )
    return [_item(row) for row in connection.execute(statement).mappings()]


def items_of(connection: Connection, number: int, transaction_id: str) -> list[KeptItem]:
    """The rows of one transaction in one sync. Raises NotKnown when there is none."""
    statement = _ITEM.where(
        transactions.c.sync == number, transactions.c.transaction_id == transaction_id
    ).order_by(transactions.c.position)
    found = [_item(row) for row in connection.execute(statement).mappings()]
    if not found:
        raise NotKnown("no such transaction is known in this sync")
    return found


def history(connection: Connection, company_id: str, transaction_id: str) -> list[KeptItem]:
    """A transaction's rows over all syncs of its company, newest sync first, at most 1000.

    Raises NotKnown when no sync of the company has it.
    """
    statement = (
        _ITEM.where(
            transactions.c.transaction_id == transaction_id, syncs.c.company_id == company_id
        )
        .order_by(OWN_TIME.desc(), syncs.c.id.desc(), transactions.c.position)
        .limit(MOST_HISTORY)
    )
    found = [_item(row) for row in connection.execute(statement).mappings()]
    if not found:
        raise NotKnown("no such transaction of this company is known here")
    return found


def failed_items(connection: Connection, number: int) -> list[KeptItem]:
    """All failed rows of a sync, in Codat's order."""
    statement = _ITEM.where(transactions.c.sync == number, transactions.c.failed.is_(True))
    found = connection.execute(statement.order_by(transactions.c.position)).mappings()
    return [_item(row) for row in found]


def cured_by(
    connection: Connection, company_id: str, sync_id: str, transaction_ids: Sequence[str]
) -> list[KeptItem]:
    """The failed rows of these transactions that this sync of the company was first to complete."""
    found: list[KeptItem] = []
    for some in chunked(transaction_ids):
        statement = _ITEM.where(
            syncs.c.company_id == company_id,
            transactions.c.transaction_id.in_(some),
            transactions.c.failed.is_(True),
            _first_cure == sync_id,
        ).order_by(transactions.c.transaction_id, OWN_TIME, transactions.c.id)
        found += [_item(row) for row in connection.execute(statement).mappings()]
    return found


def list_errors(
    connection: Connection, wanted: ErrorFilter, *, cursor: str | None = None, limit: int = 50
) -> ItemPage:
    """One page of failed rows over all syncs, newest sync first, last row of a sync first.

    Raises BadRequest for a wrong cursor.
    """
    statement = _ITEM.where(
        syncs.c.failed > 0, transactions.c.failed.is_(True), *_failed(connection, wanted)
    )
    return _page(connection, statement, _NEWEST_FAILURES, cursor, limit)


def _failed(connection: Connection, wanted: ErrorFilter) -> list[ColumnElement[bool]]:
    conditions = within(OWN_TIME, wanted.since, wanted.until)
    if wanted.company_id is not None:
        conditions.append(syncs.c.company_id == wanted.company_id)
    if wanted.cause is not None:
        conditions += items_caused_by(connection, wanted.cause)
    if wanted.open is not None:
        conditions.append(OPEN if wanted.open else ~OPEN)
    if wanted.q is not None:
        conditions.append(items_found(connection, wanted.q))
    return conditions


def _page(
    connection: Connection, statement: Select[Any], order: Order, cursor: str | None, limit: int
) -> ItemPage:
    page = read_page(connection, statement, order, cursor=cursor, limit=limit)
    return ItemPage([_item(row) for row in page.rows], page.next)


_PLAIN = tuple(name for name in KeptItem.__slots__ if name != "current")


def _item(row: RowMapping) -> KeptItem:
    return KeptItem(**{name: row[name] for name in _PLAIN}, current=OUTCOMES[row["current"]])
