"""Queries for causes: how many failures have which cause, and for how many companies.

A transaction counts once, under the cause of its latest failure and at the time of that failure.
Syncs that failed as a whole, without a failed transaction, are counted beside the transactions.
Failures of one cause with the same fingerprint form a group: the same message over all companies.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    select,
    tuple_,
    union_all,
)

from app.db.alerts import CANNOT_SYNC
from app.db.engine import count_up_to
from app.db.many_rows import is_any_of
from app.db.pagination import Order, Page, read_page
from app.db.queries.alerts import Note, notes_about
from app.db.queries.companies import company_names
from app.db.queries.open_rows import IS_OPEN, OF_TRANSACTION
from app.db.queries.syncs import in_range
from app.db.tables import companies, failed_transactions, syncs, transactions
from app.db.types import UtcTime

MAX_GROUPS = 200
WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class CauseFilter:
    """Conditions on failures; an empty one is always met.

    `since` (inclusive) and `until` (exclusive) are compared with the time of the latest failure.
    `week` is when the last seven days began, for the trend.
    """

    company_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    week: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class FailureTotals:
    """Numbers of failures: transactions, those still open, and syncs that failed as a whole.

    `last_7_days` and `previous_7_days` count transactions and syncs that failed in the last seven
    days, and in the seven days before. `open_companies` have open transactions, and `open_since` is
    the first failure of these.
    """

    transactions: int = 0
    open: int = 0
    syncs: int = 0
    last_7_days: int = 0
    previous_7_days: int = 0
    companies: int = 0
    open_companies: int = 0
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    open_since: datetime | None = None


_TOTALS = tuple(field.name for field in fields(FailureTotals))
_COUNTS = ("transactions", "open", "syncs", "last_7_days", "previous_7_days")
_WEIGHTS = ("open", "transactions", "syncs")


@dataclass(frozen=True, kw_only=True)
class CauseTotals(FailureTotals):
    """The failures of one cause."""

    cause_key: str


@dataclass(frozen=True, kw_only=True)
class CompanyTotals(FailureTotals):
    """The failures of one cause at one company; `cannot_sync` because of it."""

    company_id: str
    company_name: str | None
    cannot_sync: bool
    note: Note | None


@dataclass(frozen=True, kw_only=True)
class Group(FailureTotals):
    """The failures of one cause with one fingerprint; `example` is the newest of the messages."""

    fingerprint: str
    example: str | None


@dataclass(frozen=True, slots=True)
class CauseDetails:
    """The failures of one cause, and its largest groups out of `group_count`."""

    totals: CauseTotals
    group_count: int
    groups: Sequence[Group]


def list_causes(connection: Connection, criteria: CauseFilter) -> list[CauseTotals]:
    """The causes of these failures, those with the most open transactions first."""
    totals = _add_up(
        connection,
        _failed_transactions(criteria, failed_transactions.c.cause_key),
        _failed_syncs(criteria, syncs.c.cause_key),
    )
    return [CauseTotals(cause_key=key, **numbers) for key, numbers in totals]


def get_cause(
    connection: Connection, cause_key: str, criteria: CauseFilter, *, max_groups: int = MAX_GROUPS
) -> CauseDetails:
    """One cause with its groups, those with the most open transactions first."""
    of_transactions = failed_transactions.c.cause_key == cause_key
    of_syncs = syncs.c.cause_key == cause_key
    totals = _add_up(
        connection,
        _failed_transactions(criteria, failed_transactions.c.cause_key).where(of_transactions),
        _failed_syncs(criteria, syncs.c.cause_key).where(of_syncs),
    )
    groups = _add_up(
        connection,
        _failed_transactions(criteria, failed_transactions.c.fingerprint).where(of_transactions),
        _failed_syncs(criteria, syncs.c.fingerprint).where(of_syncs),
    )
    shown = groups[:max_groups]
    examples = _examples(connection, cause_key, shown)
    return CauseDetails(
        totals=CauseTotals(cause_key=cause_key, **(totals[0][1] if totals else {})),
        group_count=len(groups),
        groups=[
            Group(fingerprint=key, example=examples.get(key), **numbers) for key, numbers in shown
        ],
    )


def list_companies(
    connection: Connection,
    cause_key: str,
    criteria: CauseFilter,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CompanyTotals]:
    """One page of the companies with failures of a cause, those with the most open ones first.

    Raises BadRequest naming `cursor`.
    """
    of_transactions = _failed_transactions(criteria, failed_transactions.c.cause_key)
    of_syncs = _failed_syncs(criteria, syncs.c.cause_key)
    parts = union_all(
        of_transactions.where(failed_transactions.c.cause_key == cause_key),
        of_syncs.where(syncs.c.cause_key == cause_key),
    ).subquery()
    totals = (
        select(
            parts.c.company_id,
            *(cast(func.sum(parts.c[name]), BigInteger).label(name) for name in _COUNTS),
            literal(1).label("companies"),
            case((func.sum(parts.c.open) > 0, 1), else_=0).label("open_companies"),
            func.min(parts.c.first_failed_at).label("first_failed_at"),
            func.max(parts.c.last_failed_at).label("last_failed_at"),
            func.min(parts.c.open_since).label("open_since"),
        )
        .group_by(parts.c.company_id)
        .subquery()
    )
    order = Order("cause-companies", (totals.c.open, totals.c.company_id), descending=True)
    page = read_page(connection, select(totals), order, cursor=cursor, limit=limit)
    company_ids = [row["company_id"] for row in page.items]
    names = company_names(connection, company_ids)
    notes = notes_about(connection, cause_key, company_ids)
    these = is_any_of(connection, companies.c.company_id, company_ids)
    cannot = {
        row.company_id
        for row in connection.execute(CANNOT_SYNC.where(these))
        if row.cause_key == cause_key
    }
    records = [
        CompanyTotals(
            company_id=row["company_id"],
            company_name=names.get(row["company_id"]),
            cannot_sync=row["company_id"] in cannot,
            note=notes.get(row["company_id"]),
            **{name: row[name] for name in _TOTALS},
        )
        for row in page.items
    ]
    return Page(records, page.next, page.previous)


def cause_counts(
    connection: Connection, sync_pks: Collection[int]
) -> dict[int, list[tuple[str | None, int, int]]]:
    """The causes of these syncs' failed rows, each with its rows and how many of them are open."""
    count, is_open = func.count(), func.sum(case((IS_OPEN, 1), else_=0))
    rows = connection.execute(
        select(syncs.c.id, transactions.c.cause_key, count, is_open)
        .join_from(transactions, syncs, syncs.c.id == transactions.c.sync_pk)
        .outerjoin(failed_transactions, OF_TRANSACTION)
        .where(syncs.c.id.in_(sync_pks), transactions.c.failed.is_(True))
        .group_by(syncs.c.id, transactions.c.cause_key)
        .order_by(is_open.desc(), count.desc(), transactions.c.cause_key)
    )
    found: dict[int, list[tuple[str | None, int, int]]] = {pk: [] for pk in sync_pks}
    for pk, key, number, number_open in rows:
        found[pk].append((key, number, int(number_open)))
    return found


def other_companies(connection: Connection, key: str, company_id: str, limit: int) -> int:
    """How many other companies have open failures of this cause, at most `limit`."""
    table = failed_transactions.c
    is_open = (table.cause_key == key, table.resolved_by.is_(None), table.company_id != company_id)
    return count_up_to(connection, limit, select(table.company_id).where(*is_open).distinct())


def _failed_transactions(criteria: CauseFilter, key: Column[Any]) -> Select[Any]:
    """The failed transactions of each key and company."""
    table = failed_transactions.c
    is_open = case((table.resolved_by.is_(None), 1), else_=0)
    counts = (func.count(), func.sum(is_open), literal(0))
    open_since = case((table.resolved_by.is_(None), table.first_failed_at))
    times = (table.first_failed_at, table.last_failed_at, open_since)
    return _totals(criteria, key, table.company_id, counts, times)


def _failed_syncs(criteria: CauseFilter, key: Column[Any]) -> Select[Any]:
    """The syncs that failed as a whole, of each key and company."""
    counts = (literal(0), literal(0), func.count())
    times = (syncs.c.occurred_at, syncs.c.occurred_at, cast(null(), UtcTime))
    totals = _totals(criteria, key, syncs.c.company_id, counts, times)
    return totals.where(syncs.c.cause_key.is_not(None))


def _totals(
    criteria: CauseFilter,
    key: Column[Any],
    company_id: Column[Any],
    counts: tuple[ColumnElement[int], ...],
    times: tuple[Column[Any], Column[Any], ColumnElement[Any]],
) -> Select[Any]:
    """The columns that `_add_up` expects.

    `times` are of the first and the last failure, and of the first failure of what is open.
    """
    first, last, open_since = times
    conditions = in_range(last, criteria.since, criteria.until)
    if criteria.company_id is not None:
        conditions.append(company_id == criteria.company_id)
    recent: ColumnElement[int] = literal(0)
    previous: ColumnElement[int] = literal(0)
    if week := criteria.week:
        recent = case((last >= week, 1), else_=0)
        previous = case((and_(last >= week - WEEK, last < week), 1), else_=0)
    counts = (*counts, func.sum(recent), func.sum(previous))
    return (
        select(
            key.label("key"),
            company_id.label("company_id"),
            *(count.label(name) for name, count in zip(_COUNTS, counts, strict=True)),
            func.min(first).label("first_failed_at"),
            func.max(last).label("last_failed_at"),
            func.min(open_since).label("open_since"),
        )
        .where(*conditions)
        .group_by(key, company_id)
    )


def _add_up(
    connection: Connection, of_transactions: Select[Any], of_syncs: Select[Any]
) -> list[tuple[str, dict[str, Any]]]:
    """The fields of FailureTotals for each key, over all companies, most open ones first."""
    parts = union_all(of_transactions, of_syncs).subquery()
    rows = connection.execute(
        select(
            parts.c.key,
            *(func.sum(parts.c[name]).label(name) for name in _COUNTS),
            func.count(parts.c.company_id.distinct()).label("companies"),
            func.count(case((parts.c.open > 0, parts.c.company_id)).distinct()).label(
                "open_companies"
            ),
            func.min(parts.c.first_failed_at).label("first_failed_at"),
            func.max(parts.c.last_failed_at).label("last_failed_at"),
            func.min(parts.c.open_since).label("open_since"),
        ).group_by(parts.c.key)
    ).mappings()
    totals = [(row["key"], {name: row[name] for name in _TOTALS}) for row in rows]
    return sorted(
        totals,
        key=lambda total: (*(-int(total[1][name]) for name in _WEIGHTS), total[0]),
    )


def _examples(
    connection: Connection, cause_key: str, groups: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, str | None]:
    """The newest message of each group: of a transaction, or of a sync that failed as a whole."""
    newest = [(key, numbers["last_failed_at"]) for key, numbers in groups]
    if not newest:
        return {}
    whole = select(
        syncs.c.fingerprint, func.coalesce(syncs.c.error_message, syncs.c.exception_message)
    ).where(
        syncs.c.cause_key == cause_key,
        syncs.c.occurred_at.in_({at for _, at in newest}),
        tuple_(syncs.c.fingerprint, syncs.c.occurred_at).in_(newest),
    )
    table = failed_transactions.c
    single = (
        select(table.fingerprint, transactions.c.message)
        .join_from(
            failed_transactions,
            transactions,
            (transactions.c.sync_pk == table.sync_pk) & (transactions.c.position == table.position),
        )
        .where(
            table.cause_key == cause_key,
            table.last_failed_at.in_({at for _, at in newest}),
            tuple_(table.fingerprint, table.last_failed_at).in_(newest),
        )
    )
    return {
        fingerprint: message
        for statement in (whole, single)
        for fingerprint, message in connection.execute(statement)
    }
