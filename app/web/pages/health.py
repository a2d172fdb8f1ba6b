"""The first page: what failed today and is failing now, above the history of syncs."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from app.db.queries import alerts, causes, companies, stats
from app.web.api.query_params import SyncParams, first_day
from app.web.api.serializers import serialize_cause_totals, serialize_company
from app.web.pages.chart import MAX_BARS, draw
from app.web.pages.history import HistoryParams, find_answer, read_history
from app.web.pages.labels import PRESETS
from app.web.pages.query_params import page_address
from app.web.pages.rendering import Page, PageRoute, SignedInPage

MAX_ROWS = 5  # of what is failing now, and of companies that cannot sync
CHART_DAYS = 30
NARROWING = ("q", "state", "status_code", "company_id", "cause")
"""Filters of the list below that do not apply to the totals above it."""

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Period:
    """The syncs of a period by outcome; those that failed partly have failed too."""

    by_outcome: Counter[str]

    @property
    def total(self) -> int:
        """All syncs."""
        return self.by_outcome.total()

    @property
    def failed(self) -> int:
        """Those that failed as a whole or partly."""
        return self.by_outcome["failed"] + self.by_outcome["partly_failed"]

    @property
    def share(self) -> int:
        """The failed ones in percent. One of very many is not nothing: it is at least 1."""
        return max(1, round(100 * self.failed / self.total)) if self.failed else 0


@router.get("/")
def get_health(page: SignedInPage, params: Annotated[HistoryParams, Query()]) -> Response:
    """The syncs that match the filters; above the first page of them, what needs attention.

    A search that means one expense or sync leads to its page.
    """
    if answer := find_answer(page, params):
        return RedirectResponse(answer, 303)
    is_first_page = not (params.cursor or params.before or params.wrong_dates)
    is_overview = is_first_page and not page_address(page.request).has(*NARROWING, "outcome")
    with page.database.reading() as connection:
        overview = _overview(connection, page, params) if is_first_page else None
        failing_now = _failing_now(connection, page) if is_overview else None
        open_alerts = 0 if is_overview else alerts.count_open_causes(connection)
    return page.render(
        "health.html",
        422 if params.wrong_dates else 200,
        overview=overview,
        failing_now=failing_now,
        open_alerts=open_alerts,
        narrowing=NARROWING,
        **read_history(page, params),
    )


def _overview(connection: Any, page: Page, params: SyncParams) -> dict[str, Any]:
    """The totals of a period over all companies, by default of today, and the period before."""
    now = page.clock()
    starts = {first_day(now, days, page.zone): days for days in PRESETS}
    end = min(params.until, now) if params.until else now
    since = params.since or first_day(end, CHART_DAYS if params.until else 1, page.zone)
    days = None if params.until else starts.get(since)
    totals = stats.stats(connection, since, params.until)
    before = None
    if days:
        before = Period(stats.stats(connection, since - timedelta(days=days), since).by_outcome)
    # one bar says nothing
    chart_since = first_day(now, CHART_DAYS, page.zone) if days == 1 else since
    last = max(since, end - timedelta(microseconds=1))
    # The reader's days while each has a bar; the totals of longer periods are stored by UTC day.
    chart_zone = page.zone if end - chart_since <= timedelta(days=MAX_BARS) else UTC
    if chart_zone is not UTC:
        by_day = stats.by_local_day(connection, chart_since, end, chart_zone)
    elif days == 1:
        by_day = stats.stats(connection, chart_since, None).by_day
    else:
        by_day = totals.by_day
    return {
        "days": days,
        "since": since,
        "starts": {days: start.astimezone(page.zone).date() for start, days in starts.items()},
        "totals": Period(totals.by_outcome),
        "before": before,
        "chart": draw(by_day, last.astimezone(chart_zone).date()),
        "chart_zone": chart_zone,
    }


def _failing_now(connection: Any, page: Page) -> dict[str, Any]:
    """What is open by cause, which companies cannot sync, and the alerts about this service."""
    recent = causes.CauseFilter(since=first_day(page.clock()))
    is_open = [totals for totals in causes.list_causes(connection, recent) if totals.open]
    cannot_sync = companies.count_that_cannot_sync(connection)
    blocked = companies.list_companies(connection, cannot_sync=True, limit=MAX_ROWS)
    return {
        "alerts": alerts.alerts_about_service(connection),
        "causes": [
            serialize_cause_totals(totals, page.causes, cannot_sync[totals.cause_key])
            for totals in is_open[:MAX_ROWS]
        ],
        "cause_count": len(is_open),
        "companies": [serialize_company(record, page.causes) for record in blocked.items],
        "company_count": cannot_sync.total(),
    }
