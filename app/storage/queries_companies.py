"""Reads over many syncs: companies with their totals, and the statistics of a time range."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    Text,
    cast,
    distinct,
    func,
    or_,
    select,
)

from app.errors import NotKnown
from app.storage.cursors import Order, read_page
from app.storage.queries import OWN_TIME, KeptSync, syncs_by_number, within
from app.storage.queries_items import OPEN
from app.storage.search import companies_named
from app.storage.tables import companies, syncs, transactions

_BY_NAME = Order("companies", (companies.c.name, companies.c.company_id), nullable=True)
_DAY = func.substr(cast(OWN_TIME, Text), 1, 10)  # both databases write a UTC time as 2026-01-31 …


def _newest_number() -> Any:
    return (
        select(syncs.c.id)
        .where(syncs.c.company_id == companies.c.company_id)
        .order_by(OWN_TIME.desc(), syncs.c.id.desc())
        .limit(1)
        .correlate(companies)
        .scalar_subquery()
    )


_COMPANY: Select[Any] = select(
    companies.c.company_id,
    companies.c.name,
    _newest_number().label("newest"),
    companies.c.connection_state,
)


@dataclass(frozen=True, slots=True)
class KeptCompany:
    """A company, its syncs by outcome, its newest sync, and how many transactions stay failed."""

    company_id: str
    name: str | None
    by_outcome: Counter[str]
    open_failures: int
    last_sync: KeptSync | None
    connection_state: str | None = None


@dataclass(frozen=True, slots=True)
class CompanyPage:
    """Some companies, and the cursor of the page after them."""

    items: list[KeptCompany]
    next: str | None


@dataclass(frozen=True, slots=True)
class Stats:
    """How many syncs there were, told three ways. Days are UTC, `YYYY-MM-DD`."""

    by_outcome: Counter[str] = field(default_factory=Counter)
    by_status_code: Counter[int | None] = field(default_factory=Counter)
    by_day: dict[str, Counter[str]] = field(default_factory=dict)


def list_companies(
    connection: Connection, *, q: str | None = None, cursor: str | None = None, limit: int = 50
) -> CompanyPage:
    """One page of companies by name, the unnamed last; `q` is an id or a name's beginning."""
    statement = _COMPANY
    if q is not None:
        statement = statement.where(or_(companies.c.company_id == q, companies_named(q)))
    page = read_page(connection, statement, _BY_NAME, cursor=cursor, limit=limit)
    return CompanyPage(_with_totals(connection, page.rows), page.next)


def get_company(connection: Connection, company_id: str) -> KeptCompany:
    """One company. Raises NotKnown when no event ever spoke of it."""
    rows = connection.execute(_COMPANY.where(companies.c.company_id == company_id)).mappings().all()
    if not rows:
        raise NotKnown("no such company is known here")
    return _with_totals(connection, rows)[0]


def require_company(connection: Connection, company_id: str) -> None:
    """Raise NotKnown when no event ever spoke of this company."""
    known = select(companies.c.company_id).where(companies.c.company_id == company_id)
    if connection.execute(known).first() is None:
        raise NotKnown("no such company is known here")


def count_companies(connection: Connection) -> int:
    """How many companies are known."""
    return connection.execute(select(func.count()).select_from(companies)).scalar_one()


def companies_by_page(
    connection: Connection, first: int, most: int
) -> list[tuple[str, str | None, datetime | None]]:
    """Companies by id with their name and newest sync's time, from a row number (0-based) on.

    For Codat's own paging by numbers, which nothing but counting rows can serve.
    """
    newest = (
        select(OWN_TIME)
        .where(syncs.c.company_id == companies.c.company_id)
        .order_by(OWN_TIME.desc())
        .limit(1)
        .correlate(companies)
        .scalar_subquery()
    )
    rows = connection.execute(
        select(companies.c.company_id, companies.c.name, newest.label("newest"))
        .order_by(companies.c.company_id)
        .offset(first)
        .limit(most)
    )
    return [(row.company_id, row.name, row.newest) for row in rows]


def _with_totals(connection: Connection, rows: Sequence[RowMapping]) -> list[KeptCompany]:
    ids = [row["company_id"] for row in rows]
    totals = _by_outcome(connection, ids)
    failures = _open_failures(connection, ids)
    newest = syncs_by_number(connection, [row["newest"] for row in rows if row["newest"]])
    return [
        KeptCompany(
            company_id=row["company_id"],
            name=row["name"],
            by_outcome=totals.get(row["company_id"], Counter()),
            open_failures=failures.get(row["company_id"], 0),
            last_sync=newest.get(row["newest"]),
            connection_state=row["connection_state"],
        )
        for row in rows
    ]


def _by_outcome(connection: Connection, ids: Sequence[str]) -> dict[str, Counter[str]]:
    totals: dict[str, Counter[str]] = {}
    statement = (
        select(syncs.c.company_id, syncs.c.outcome, func.count())
        .where(syncs.c.company_id.in_(ids))
        .group_by(syncs.c.company_id, syncs.c.outcome)
    )
    for company_id, outcome, count in connection.execute(statement):
        totals.setdefault(company_id, Counter())[outcome] = count
    return totals


def _open_failures(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Failed transactions that nothing cured since; one without an id counts for itself."""
    each = func.coalesce(transactions.c.transaction_id, cast(transactions.c.id, Text))
    statement = (
        select(syncs.c.company_id, func.count(distinct(each)))
        .join_from(syncs, transactions, transactions.c.sync == syncs.c.id)
        .where(syncs.c.company_id.in_(ids), syncs.c.failed > 0, transactions.c.failed.is_(True))
        .where(OPEN)
        .group_by(syncs.c.company_id)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def stats(connection: Connection, since: datetime | None, until: datetime | None) -> Stats:
    """Syncs by outcome, status code and day, by their own time from `since` to before `until`."""
    day = _DAY.label("day")
    statement = (
        select(day, syncs.c.outcome, syncs.c.status_code, func.count())
        .where(*within(OWN_TIME, since, until))
        .group_by(day, syncs.c.outcome, syncs.c.status_code)
        .order_by(day)
    )
    told = Stats()
    for on, outcome, status_code, count in connection.execute(statement):
        told.by_outcome[outcome] += count
        told.by_status_code[status_code] += count
        told.by_day.setdefault(on, Counter())[outcome] += count
    return told
