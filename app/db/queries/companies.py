"""Queries for companies: with their totals, newest sync and open failures."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, ScalarSelect, Select, func, or_, select

from app.db.alerts import CANNOT_SYNC
from app.db.pagination import Order, Page, read_pages
from app.db.queries.search import find_ids, has_name
from app.db.queries.syncs import SyncRecord, syncs_by_pk
from app.db.tables import companies, failed_transactions, syncs
from app.domain.causes.classifier import UNCLASSIFIED
from app.errors import NotFound

_CANNOT_SYNC_FIRST = Order(
    "companies:cannot-sync",
    (companies.c.cannot_sync_since, companies.c.company_id),
    descending=True,
)
_BY_NAME = Order(
    "companies",
    (companies.c.name_folded, companies.c.company_id),
    nulls_last=companies.c.name_folded,
)


_latest_failure = syncs.alias("latest_failure")


def _newest(column: str) -> ScalarSelect[Any]:
    """A column of the company's newest sync."""
    return (
        select(syncs.c[column])
        .where(syncs.c.company_id == companies.c.company_id)
        .order_by(syncs.c.occurred_at.desc(), syncs.c.id.desc())
        .limit(1)
        .correlate(companies)
        .scalar_subquery()
    )


_COMPANY: Select[Any] = select(
    companies.c.company_id,
    companies.c.name,
    companies.c.platform,
    companies.c.connection_state,
    companies.c.cannot_sync_since,
    _latest_failure.c.sync_id,
    _latest_failure.c.cause_key,
    _newest("id").label("newest_pk"),
).outerjoin_from(companies, _latest_failure, _latest_failure.c.id == companies.c.cannot_sync_pk)


@dataclass(frozen=True, slots=True)
class CannotSync:
    """Since when the syncs of a company fail as a whole; why, and which, is of the latest one."""

    since: datetime
    cause_key: str
    sync_id: str


@dataclass(frozen=True, slots=True)
class CompanyRecord:
    """A company, its syncs by outcome, its newest sync, and its open failed transactions.

    `cannot_sync` is None unless its syncs have failed as a whole since the last one that did not.
    """

    company_id: str
    company_name: str | None
    connection_state: str | None
    source_platform: str | None
    by_outcome: Counter[str]
    open_failures: int
    cannot_sync: CannotSync | None
    last_sync: SyncRecord | None


def list_companies(
    connection: Connection,
    *,
    q: str | None = None,
    cannot_sync: bool | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CompanyRecord]:
    """One page of companies: those that cannot sync, then the others by name, the unnamed last.

    `q` is an id, its beginning, or words of a name. Raises BadRequest naming `cursor`.
    """
    statement = _COMPANY
    if q is not None:
        ids = find_ids(connection, q, companies.c.company_id).get(companies.c.company_id, [])
        statement = statement.where(or_(companies.c.company_id.in_(ids), has_name(q)))
    since = companies.c.cannot_sync_since
    parts = {
        True: (statement.where(since.is_not(None)), _CANNOT_SYNC_FIRST),
        False: (statement.where(since.is_(None)), _BY_NAME),
    }
    chosen = list(parts.values()) if cannot_sync is None else [parts[cannot_sync]]
    page = read_pages(connection, chosen, cursor=cursor, limit=limit)
    return Page(_records(connection, page.items), page.next, page.previous)


def get_company(connection: Connection, company_id: str) -> CompanyRecord:
    """One company. Raises NotFound."""
    statement = _COMPANY.where(companies.c.company_id == company_id)
    rows = connection.execute(statement).mappings().all()
    if not rows:
        raise NotFound("Company not found")
    return _records(connection, rows)[0]


def count_that_cannot_sync(connection: Connection, company_id: str | None = None) -> Counter[str]:
    """How many companies, of all or of one, cannot sync, by the cause of their latest sync."""
    found = CANNOT_SYNC
    if company_id is not None:
        found = found.where(companies.c.company_id == company_id)
    return Counter(row.cause_key for row in connection.execute(found))


def company_names(connection: Connection, company_ids: Collection[str]) -> dict[str, str]:
    """The names of those companies that have one."""
    if not company_ids:
        return {}
    statement = select(companies.c.company_id, companies.c.name).where(
        companies.c.company_id.in_(sorted(company_ids)), companies.c.name.is_not(None)
    )
    return {row.company_id: row.name for row in connection.execute(statement)}


def require_company(connection: Connection, company_id: str) -> None:
    """Raise NotFound unless the company exists."""
    statement = select(companies.c.company_id).where(companies.c.company_id == company_id)
    if connection.execute(statement).first() is None:
        raise NotFound("Company not found")


def count_companies(connection: Connection) -> int:
    """The number of companies."""
    return connection.execute(select(func.count()).select_from(companies)).scalar_one()


def companies_from(
    connection: Connection, offset: int, limit: int
) -> list[tuple[str, str | None, datetime | None]]:
    """Companies by id as (id, name, time of the newest sync), after `offset` of them.

    For Codat's page numbers, which only an offset can serve.
    """
    rows = connection.execute(
        select(companies.c.company_id, companies.c.name, _newest("occurred_at"))
        .order_by(companies.c.company_id)
        .offset(offset)
        .limit(limit)
    )
    return [tuple(row) for row in rows]


def _records(connection: Connection, rows: Sequence[RowMapping]) -> list[CompanyRecord]:
    company_ids = [row["company_id"] for row in rows]
    totals = _totals(connection, company_ids)
    open_failures = _open_failures(connection, company_ids)
    newest = syncs_by_pk(connection, [row["newest_pk"] for row in rows if row["newest_pk"]])
    return [
        CompanyRecord(
            company_id=row["company_id"],
            company_name=row["name"],
            connection_state=row["connection_state"],
            source_platform=row["platform"],
            by_outcome=totals[row["company_id"]],
            open_failures=open_failures.get(row["company_id"], 0),
            cannot_sync=_cannot_sync(row),
            last_sync=newest.get(row["newest_pk"]),
        )
        for row in rows
    ]


def _cannot_sync(row: RowMapping) -> CannotSync | None:
    since, sync_id = row["cannot_sync_since"], row["sync_id"]
    return since and sync_id and CannotSync(since, row["cause_key"] or UNCLASSIFIED, sync_id)


def _totals(connection: Connection, company_ids: Sequence[str]) -> dict[str, Counter[str]]:
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    statement = (
        select(syncs.c.company_id, syncs.c.outcome, func.count())
        .where(syncs.c.company_id.in_(company_ids))
        .group_by(syncs.c.company_id, syncs.c.outcome)
    )
    for company_id, outcome, count in connection.execute(statement):
        totals[company_id][outcome] = count
    return totals


def _open_failures(connection: Connection, company_ids: Sequence[str]) -> dict[str, int]:
    table = failed_transactions.c
    is_open = (table.company_id.in_(company_ids), table.resolved_by.is_(None))
    statement = select(table.company_id, func.count()).where(*is_open).group_by(table.company_id)
    return dict(connection.execute(statement).all())
