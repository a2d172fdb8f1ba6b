"""Sync health: how the syncs went, by outcome and day, and the history to search."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from app.db import alerts
from app.db.engine import Database
from app.db.queries import companies as queries_companies
from app.db.queries import search
from app.db.queries import syncs as queries
from app.web.api.query_params import SyncQuery
from app.web.api.responses import as_csv
from app.web.api.schemas import SyncAnswer
from app.web.api.serializers import sync_answer
from app.web.api.syncs import SYNC_COLUMNS
from app.web.auth import TheDatabase
from app.web.pages.chart import Chart, draw
from app.web.pages.query_params import USUAL_DAYS, asked
from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import SignedIn
from app.worker.tasks.failure_alerts import PREFIX

MOST_NAMED = 5

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Overview:
    """How the syncs of a range went, all companies together."""

    since: datetime
    usual: bool
    stats: queries_companies.Stats
    chart: Chart


@dataclass(frozen=True, slots=True)
class Attention:
    """What somebody must look at: what is wrong here, each by itself, and causes of failures."""

    faults: list[alerts.OpenAlert]
    causes: list[alerts.OpenCause]

    @property
    def count(self) -> int:
        """How many things there are to look at."""
        return len(self.faults) + len(self.causes)


@router.get("/")
def get_health(request: Request, database: TheDatabase, _session: SignedIn) -> Response:
    """The newest syncs that fit the filters, and above the first page of them the overview."""
    query = asked(request, SyncQuery)
    now: datetime = request.app.state.clock()
    with database.reading() as connection:
        found = queries.list_syncs(
            connection, query.wanted(), sort=query.sort, cursor=query.cursor, limit=query.limit
        )
        named = search.transactions_named(connection, query.q, MOST_NAMED) if query.q else []
    told: dict[str, Any] = {
        "overview": _overview(database, query, now) if query.cursor is None else None,
        "attention": _attention(database),
        "named": named,
    }
    syncs = [sync_answer(kept) for kept in found.items]
    return page(request, "health.html", query=query, syncs=syncs, next=found.next, **told)


def _attention(database: Database) -> Attention:
    """The open alerts; those of failures by cause, for they come one per company."""
    with database.reading() as connection:
        return Attention(
            alerts.open_besides(connection, PREFIX), alerts.open_by_cause(connection, PREFIX)
        )


def _overview(database: Database, query: SyncQuery, now: datetime) -> Overview:
    """Of the range that is asked for, else of the last thirty days."""
    end = min(query.to, now) if query.to else now
    since = query.from_ or _midnight(end) - timedelta(days=USUAL_DAYS - 1)
    with database.reading() as connection:
        stats = queries_companies.stats(connection, since, query.to)
    last = max(since, end - timedelta(microseconds=1)).date()
    chart = draw(stats.by_day, since.date(), last)
    return Overview(since, not query.from_ and not query.to, stats, chart)


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


@router.get("/syncs.csv")
def get_csv(request: Request, database: TheDatabase, _session: SignedIn) -> Response:
    """Every sync that fits the filters, as the API writes them."""
    query = asked(request, SyncQuery)
    wanted = query.wanted()

    def read(cursor: str | None, limit: int) -> tuple[list[SyncAnswer], str | None]:
        with database.reading() as connection:
            found = queries.list_syncs(
                connection, wanted, sort=query.sort, cursor=cursor, limit=limit
            )
        return [sync_answer(kept) for kept in found.items], found.next

    return as_csv(read, SYNC_COLUMNS, name="syncs", cursor=query.cursor, most=query.most)
