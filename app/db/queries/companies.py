"""Reads over many syncs: companies with their totals, and the statistics of a time range."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, Select, func, or_, select

from app.db import counted
from app.db.pagination import Order, read_page
from app.db.queries.search import companies_named
from app.db.queries.syncs import OWN_TIME, KeptSync, syncs_by_number, within
from app.db.tables import companies, syncs
from app.db.tables_counted import NO_CODE, OPEN_FAILURES
from app.domain.days import split
from app.errors import NotKnown

_BY_NAME = Order("companies", (companies.c.name_folded, companies.c.company_id), nullable=True)


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


def names_of(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """The names of these companies, of those that have one."""
    found = select(companies.c.company_id, companies.c.name).where(
        companies.c.company_id.in_(sorted(ids)), companies.c.name.is_not(None)
    )
    return {row.company_id: row.name for row in connection.execute(found)} if ids else {}


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
    totals = counted.of_companies(connection, ids)
    newest = syncs_by_number(connection, [row["newest"] for row in rows if row["newest"]])
    return [
        _company(row, totals.get(row["company_id"], Counter()), newest.get(row["newest"]))
        for row in rows
    ]


def _company(row: RowMapping, totals: Counter[str], last_sync: KeptSync | None) -> KeptCompany:
    return KeptCompany(
        company_id=row["company_id"],
        name=row["name"],
        by_outcome=Counter({what: n for what, n in totals.items() if what != OPEN_FAILURES}),
        open_failures=totals[OPEN_FAILURES],
        last_sync=last_sync,
        connection_state=row["connection_state"],
    )


def stats(connection: Connection, since: datetime | None, until: datetime | None) -> Stats:
    """Syncs by outcome, status code and day, by their own time from `since` to before `until`.

    Whole days are counted ahead; only what a range has of its first and last day is counted here.
    """
    days, edges = split(since, until)
    rows: list[Row[str, str, int, int]] = []
    if days is not None:
        rows += counted.of_days(connection, *days)
    for edge in edges:
        rows += _counted_now(connection, *edge)
    told = Stats()
    for on, outcome, status_code, count in sorted(rows, key=lambda row: str(row[0])):
        told.by_outcome[outcome] += count
        told.by_status_code[None if status_code == NO_CODE else status_code] += count
        told.by_day.setdefault(on, Counter())[outcome] += count
    return told


def _counted_now(
    connection: Connection, since: datetime, until: datetime
) -> Sequence[Row[str, str, int, int]]:
    statement: Select[str, str, int, int] = (
        select(counted.DAY, syncs.c.outcome, counted.CODE, func.count())
        .where(*within(OWN_TIME, since, until))
        .group_by(counted.DAY, syncs.c.outcome, counted.CODE)
    )
    return connection.execute(statement).all()
