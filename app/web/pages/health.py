"""The first page: alerts, totals and a chart of a period, above the history of syncs."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from app.db import alerts
from app.db.queries import causes, stats
from app.web.api.query_params import SyncParams, first_day
from app.web.pages.chart import draw
from app.web.pages.history import HistoryParams, find_answer, read_history
from app.web.pages.rendering import Page, PageRoute, SignedInPage

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
def get_health(page: SignedInPage, params: Annotated[HistoryParams, Query()]) -> Response:
    """The syncs that match the filters; above the first page of them, alerts and totals.

    A search that means one expense or sync leads to its page.
    """
    if answer := find_answer(page, params):
        return RedirectResponse(answer, 303)
    is_first_page = not (params.cursor or params.before or params.wrong_dates)
    history = read_history(page, params)
    return page.render(
        "health.html",
        422 if params.wrong_dates else 200,
        overview=_overview(page, params) if is_first_page else None,
        **history,
        **_open_alerts(page, with_numbers=is_first_page and not history["is_filtered"]),
    )


def _overview(page: Page, params: SyncParams) -> dict[str, Any]:
    """The totals of the given period over all companies, by default of the last 30 days."""
    end = min(params.until, page.clock()) if params.until else page.clock()
    since = params.since or first_day(end)
    with page.database.reading() as connection:
        totals = stats.stats(connection, since, params.until)
    last = max(since, end - timedelta(microseconds=1)).date()
    chart = draw(totals.by_day, since.date(), last)
    return {"since": since.date(), "by_outcome": totals.by_outcome, "chart": chart}


def _open_alerts(page: Page, *, with_numbers: bool) -> dict[str, Any]:
    """The alerts of the service, those of failures by cause, and how many expenses these have."""
    open_expenses: dict[str, int] = {}
    with page.database.reading() as connection:
        failing = alerts.open_by_cause(connection, alerts.FAILURE_PREFIX)
        if failing and with_numbers:
            recent = causes.CauseFilter(since=first_day(page.clock()))
            for totals in causes.list_causes(connection, recent):
                open_expenses[totals.cause_key] = totals.open
        service_alerts = alerts.open_except(connection, alerts.FAILURE_PREFIX)
    return {"alerts": service_alerts, "failing": failing, "open_expenses": open_expenses}
