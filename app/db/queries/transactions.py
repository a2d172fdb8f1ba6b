"""Queries for transactions: in one sync, over all syncs of a company, and those that failed.

Over syncs a transaction is identified by company and transaction id. Its status in one sync is the
worst of its rows there, because rows repeat (one per integration type). Its `current_status` is
that of the newest sync that lists it, by Codat's time and not by arrival. A failed row is resolved
by the first later sync in which all rows of the transaction are completed, and open until then.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    or_,
    select,
    true,
    union_all,
)

from app.db.failed_transactions import histories
from app.db.many_rows import is_any_of
from app.db.pagination import Order, Page, read_page
from app.db.queries.access_paths import (
    Condition,
    clauses,
    make_condition,
    rare_condition,
    without_index,
)
from app.db.queries.search import find
from app.db.queries.syncs import company_and_time
from app.db.tables import companies, failed_transactions, syncs, transactions
from app.domain.transactions import Attempt, TransactionClass, classify, worst
from app.errors import NotFound

MAX_HISTORY = 1000
FEW_OPEN = 4_000  # open transactions whose rows are looked up and then sorted

_SORT = "occurred_at"
_IN_SYNC = Order("transactions", (transactions.c.position,))
_NEWEST_FIRST = Order(
    "push-errors", (syncs.c.occurred_at, syncs.c.id, transactions.c.position), descending=True
)
_ROW: Select[Any] = select(
    transactions,
    syncs.c.company_id,
    syncs.c.sync_id,
    syncs.c.occurred_at.label("at"),
    companies.c.name.label("company_name"),
).select_from(
    transactions.join(syncs, syncs.c.id == transactions.c.sync_pk).outerjoin(
        companies, companies.c.company_id == syncs.c.company_id
    )
)


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """One row of a sync's transaction list, and what later syncs made of the transaction.

    `at` is the time of its sync; `resolved_by` the id of the sync that completed a failed row.
    """

    transaction_id: str | None
    integration_type: str | None
    status: str | None
    message: str | None
    failed: bool
    correlation_id: str | None
    cause_key: str | None
    fingerprint: str | None
    company_id: str
    company_name: str | None
    sync_id: str
    position: int
    at: datetime
    current_status: TransactionClass
    resolved_by: str | None


_STORED = tuple(
    name for name in TransactionRecord.__slots__ if name not in ("current_status", "resolved_by")
)


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Conditions on the rows of one sync; `q` is part of an id or a message."""

    statuses: Sequence[str] = ()
    failed: bool | None = None
    q: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class PushErrorFilter:
    """Conditions on failed rows over all syncs; `open` False selects the resolved ones."""

    company_id: str | None = None
    cause: str | None = None
    open: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    q: str | None = None


def list_transactions(
    connection: Connection,
    sync_pk: int,
    criteria: TransactionFilter,
    *,
    cursor: str | None = None,
    limit: int = 50,
    causes_first: Sequence[str] = (),
) -> Page[TransactionRecord]:
    """One page of a sync's rows, in Codat's order. Raises BadRequest naming `cursor`.

    The rows with these causes come first, cause by cause.
    """
    conditions: list[ColumnElement[bool]] = [transactions.c.sync_pk == sync_pk]
    if criteria.statuses:
        lower = [status.lower() for status in criteria.statuses]
        conditions.append(func.lower(transactions.c.status).in_(lower))
    if criteria.failed is not None:
        conditions.append(transactions.c.failed.is_(criteria.failed))
    if criteria.cause is not None:
        conditions.append(transactions.c.cause_key == criteria.cause)
    if criteria.q is not None:
        q = criteria.q.strip()
        texts = (
            transactions.c.transaction_id,
            transactions.c.message,
            transactions.c.correlation_id,
        )
        conditions.append(or_(*(text.icontains(q, autoescape=True) for text in texts)))
    order = _IN_SYNC
    if causes_first:
        ranks = {key: rank for rank, key in enumerate(causes_first)}
        rank = case(ranks, value=transactions.c.cause_key, else_=len(ranks))
        order = Order("transactions:cause", (rank, transactions.c.position))
    page = read_page(connection, _ROW.where(*conditions), order, cursor=cursor, limit=limit)
    return Page(_records(connection, page.items), page.next, page.previous)


def transactions_from(
    connection: Connection, sync_pk: int, position: int, limit: int
) -> list[TransactionRecord]:
    """A sync's rows from a position on (0 is the first)."""
    statement = _ROW.where(transactions.c.sync_pk == sync_pk, transactions.c.position >= position)
    ordered = statement.order_by(transactions.c.position).limit(limit)
    return _records(connection, connection.execute(ordered).mappings().all())


def transaction_rows(
    connection: Connection, sync_pk: int, transaction_id: str
) -> list[TransactionRecord]:
    """The rows of one transaction in one sync. Raises NotFound when there is none."""
    statement = _ROW.where(
        transactions.c.sync_pk == sync_pk, transactions.c.transaction_id == transaction_id
    )
    rows = connection.execute(statement.order_by(transactions.c.position)).mappings().all()
    if not rows:
        raise NotFound("Transaction not found")
    return _records(connection, rows)


def transaction_history(
    connection: Connection, company_id: str, transaction_id: str
) -> list[TransactionRecord]:
    """A transaction's rows over all syncs of its company, newest sync first, at most MAX_HISTORY.

    Raises NotFound when no sync of the company has it.
    """
    statement = (
        _ROW.where(
            transactions.c.transaction_id == transaction_id, syncs.c.company_id == company_id
        )
        .order_by(syncs.c.occurred_at.desc(), syncs.c.id.desc(), transactions.c.position)
        .limit(MAX_HISTORY)
    )
    rows = connection.execute(statement).mappings().all()
    if not rows:
        raise NotFound("Transaction not found")
    return _records(connection, rows)


def failed_rows(
    connection: Connection, company_id: str, transaction_ids: Sequence[str]
) -> list[TransactionRecord]:
    """The failed rows of these transactions over all syncs of their company, oldest sync first."""
    statement = _ROW.where(
        is_any_of(connection, transactions.c.transaction_id, transaction_ids),
        transactions.c.failed.is_(True),
        without_index(connection, syncs.c.company_id) == company_id,
    )
    rows = connection.execute(
        statement.order_by(syncs.c.occurred_at, syncs.c.id, transactions.c.position)
    )
    return _records(connection, rows.mappings().all())


def open_rows(
    connection: Connection, sync_pks: Collection[int], *, cause: str | None = None
) -> list[tuple[int, TransactionRecord]]:
    """The failed rows of these syncs that no later sync has completed, each with its sync's key.

    They are in Codat's order.
    """
    statement = _ROW.where(
        is_any_of(connection, transactions.c.sync_pk, sync_pks), transactions.c.failed.is_(True)
    )
    if cause is not None:
        statement = statement.where(transactions.c.cause_key == cause)
    ordered = statement.order_by(transactions.c.sync_pk, transactions.c.position)
    rows = connection.execute(ordered).mappings().all()
    records = zip(rows, _records(connection, rows), strict=True)
    return [(row["sync_pk"], record) for row, record in records if record.resolved_by is None]


def list_push_errors(
    connection: Connection,
    criteria: PushErrorFilter,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TransactionRecord]:
    """One page of failed rows over all syncs, newest sync first, last row of a sync first.

    Raises BadRequest naming `cursor`.
    """
    ids = _failed_ids(connection, criteria)
    records: list[TransactionRecord] = []
    while True:
        page = read_page(connection, ids, _NEWEST_FIRST, cursor=cursor, limit=limit - len(records))
        cursor = page.next
        records += [
            record
            for record in _records_by_id(connection, page.items)
            if criteria.open is None or criteria.open == (record.resolved_by is None)
        ]
        if cursor is None or len(records) == limit:
            return Page(records, cursor)


def _failed_ids(connection: Connection, criteria: PushErrorFilter) -> Select[Any]:
    """The ids of the failed rows that meet the filter; `open` is decided for each transaction."""
    conditions = _conditions(connection, criteria)
    rare = rare_condition(connection, conditions, _SORT)
    # Without a rare condition, read syncs in the order of the list, and then their transactions.
    sync_pk = syncs.c.id if rare else without_index(connection, syncs.c.id)
    ids = (
        select(transactions.c.id)
        .join_from(syncs, transactions, transactions.c.sync_pk == sync_pk)
        .where(syncs.c.failed > 0, transactions.c.failed.is_(True))
        .where(*clauses(conditions, rare, _SORT))
    )
    if criteria.open is None:
        return ids
    failure = failed_transactions.c
    ids = ids.outerjoin(
        failed_transactions,
        and_(
            failure.company_id == syncs.c.company_id,
            failure.transaction_key == transactions.c.transaction_id,
        ),
    )
    if criteria.open:
        return ids.where(failure.resolved_by.is_(None))
    # A row before the latest failure may be resolved although that one is open.
    return ids.where(
        or_(failure.resolved_by.is_not(None), failure.sync_pk != transactions.c.sync_pk)
    )


def _conditions(connection: Connection, criteria: PushErrorFilter) -> list[Condition]:
    """The conditions of the filter that have an index."""

    def add(
        rows: Select[Any], build: Callable[..., Any], *columns: Column[Any], **more: Any
    ) -> None:
        conditions.append(make_condition(connection, rows, build, *columns, **more))

    conditions: list[Condition] = []
    if criteria.q is not None:
        is_of_sync = transactions.c.sync_pk == syncs.c.id
        rows = select(transactions.c.id).join_from(syncs, transactions, is_of_sync)
        add(rows, find(connection, criteria.q), syncs.c.company_id)
    if criteria.cause is not None:
        rows = select(transactions.c.sync_pk)
        add(rows, partial(operator.eq, criteria.cause), transactions.c.cause_key)
    if criteria.open:
        conditions.append(_open_condition(criteria.company_id))
    if criteria.company_id is not None or criteria.since or criteria.until:
        within = partial(company_and_time, criteria.company_id, criteria.since, criteria.until)
        columns = (syncs.c.company_id, syncs.c.occurred_at)
        add(select(syncs.c.id), within, *columns, sorts={_SORT})
    return conditions


def _open_condition(company_id: str | None) -> Condition:
    """Holds for the rows of open transactions; where these are rare, they are looked up."""
    failure = failed_transactions.c
    is_open: list[ColumnElement[bool]] = [failure.resolved_by.is_(None)]
    if company_id is not None:
        is_open.append(failure.company_id == company_id)
    named = select(transactions.c.id).where(
        transactions.c.transaction_id.in_(select(failure.transaction_id).where(*is_open))
    )
    unnamed = (
        select(transactions.c.id)
        .join_from(
            failed_transactions,
            transactions,
            and_(
                transactions.c.sync_pk == failure.sync_pk,
                transactions.c.position == failure.position,
            ),
        )
        .where(failure.transaction_id.is_(None), *is_open)
    )
    return Condition(
        rows=select(failure.sync_pk).where(*is_open),
        lookup=transactions.c.id.in_(union_all(named, unnamed)),
        check=true(),
        few=FEW_OPEN,
    )


def _records_by_id(connection: Connection, rows: Sequence[RowMapping]) -> list[TransactionRecord]:
    """The rows with these ids, in the same order."""
    if not rows:
        return []
    ids = [row["id"] for row in rows]
    found = connection.execute(_ROW.where(transactions.c.id.in_(ids))).mappings()
    by_id = {row["id"]: row for row in found}
    return _records(connection, [by_id[row_id] for row_id in ids if row_id in by_id])


def _records(connection: Connection, rows: Sequence[RowMapping]) -> list[TransactionRecord]:
    """The rows, with what the other syncs that list the same transactions made of them."""
    keys = {
        (row["company_id"], row["transaction_id"])
        for row in rows
        if row["transaction_id"] is not None
    }
    found = {key: _by_sync(attempts) for key, attempts in histories(connection, keys)}
    return [_record(row, found.get((row["company_id"], row["transaction_id"]), [])) for row in rows]


class _InSync(NamedTuple):
    """What one sync did to a transaction. They sort as the syncs happened."""

    occurred_at: datetime
    sync_pk: int
    sync_id: str
    status: TransactionClass


def _by_sync(attempts: Sequence[Attempt]) -> list[_InSync]:
    statuses: defaultdict[tuple[datetime, int, str], list[str | None]] = defaultdict(list)
    for attempt in attempts:
        statuses[attempt.at, attempt.sync_pk, attempt.sync_id].append(attempt.status)
    return sorted(_InSync(*sync, worst(in_sync)) for sync, in_sync in statuses.items())


def _record(row: RowMapping, history: Sequence[_InSync]) -> TransactionRecord:
    later = [in_sync for in_sync in history if in_sync[:2] > (row["at"], row["sync_pk"])]
    completed = [in_sync.sync_id for in_sync in later if in_sync.status == "completed"]
    return TransactionRecord(
        **{name: row[name] for name in _STORED},
        current_status=history[-1].status if history else classify(row["status"]),
        resolved_by=completed[0] if row["failed"] and completed else None,
    )
