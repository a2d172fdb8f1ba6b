"""The first page: alerts, totals and a chart of a period, and the searchable history of syncs."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError

from app.db import alerts
from app.db.queries import causes, companies, search, stats, syncs, transactions
from app.web.api import schemas
from app.web.api.csv_export import csv_response
from app.web.api.query_params import SyncParams, first_day
from app.web.api.serializers import serialize_cause
from app.web.api.syncs import read_syncs
from app.web.pages.chart import draw
from app.web.pages.presenters import deciding_row, expense_status, present_sync
from app.web.pages.query_params import describe_error, page_address, read_query
from app.web.pages.rendering import Page, PageRoute, SignedInPage

MAX_EXPENSES = 5
FILTERS = ("q", "from", "to", "outcome", "state", "status_code", "company_id", "cause")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
def get_health(page: SignedInPage) -> Response:
    """The syncs that match the filters; above the first page of them, alerts and totals."""
    query, wrong_dates = _read_filters(page.request)
    is_first_page = query.cursor is None and not wrong_dates
    is_filtered = page_address(page.request).has(*FILTERS)
    found = syncs.SyncPage([], None)
    with page.database.reading() as connection:
        if not wrong_dates:
            found = syncs.list_syncs(
                connection,
                query.to_filter(),
                sort=query.sort,
                cursor=query.cursor,
                limit=query.limit,
            )
        names = companies.company_names(connection, [query.company_id] if query.company_id else [])
    return page.render(
        "health.html",
        422 if wrong_dates else 200,
        query=query,
        wrong_dates=wrong_dates,
        is_filtered=is_filtered,
        syncs=[present_sync(record, page.causes) for record in found.items],
        next=found.next,
        names=names,
        cause_titles={key: cause.title for key, cause in page.causes.items()},
        endpoint=f"{page.request.base_url}webhooks/codat",
        overview=_overview(page, query) if is_first_page else None,
        expenses=_find_expenses(page, query.q) if query.q else [],
        **_open_alerts(page, with_numbers=is_first_page and not is_filtered),
    )


def _read_filters(request: Request) -> tuple[SyncParams, dict[str, str]]:
    """The filters, and what is wrong with the dates, which the form shows beside its fields.

    Raises RequestValidationError if any other parameter is wrong.
    """
    try:
        return read_query(request, SyncParams), {}
    except RequestValidationError as error:
        reasons = {str(detail["loc"][-1]): str(detail["msg"]) for detail in error.errors()}
        if not reasons.keys() <= {"from", "to"}:
            raise
    wrong = {name: describe_error(name, reason) for name, reason in reasons.items()}
    return read_query(request, SyncParams, without=("from", "to")), wrong


def _overview(page: Page, query: SyncParams) -> dict[str, Any]:
    """The totals of the given period over all companies, by default of the last 30 days."""
    end = min(query.to, page.now) if query.to else page.now
    since = query.from_ or first_day(end)
    with page.database.reading() as connection:
        totals = stats.stats(connection, since, query.to)
    last = max(since, end - timedelta(microseconds=1)).date()
    chart = draw(totals.by_day, since.date(), last)
    return {"since": since.date(), "by_outcome": totals.by_outcome, "chart": chart}


def _open_alerts(page: Page, *, with_numbers: bool) -> dict[str, Any]:
    """The alerts of the service, those of failures by cause, and how many expenses these have."""
    open_expenses: dict[str, int] = {}
    with page.database.reading() as connection:
        failing = alerts.open_by_cause(connection, alerts.FAILURE_PREFIX)
        if failing and with_numbers:
            recent = causes.CauseFilter(since=first_day(page.now))
            for totals in causes.list_causes(connection, recent):
                open_expenses[totals.cause_key] = totals.open
        service_alerts = alerts.open_except(connection, alerts.FAILURE_PREFIX)
    return {"alerts": service_alerts, "failing": failing, "open_expenses": open_expenses}


def _find_expenses(page: Page, q: str) -> list[tuple[search.TransactionMatch, str, Any]]:
    """The expenses with this ID or correlation ID, with their current status and its cause."""
    expenses = []
    with page.database.reading() as connection:
        for match in search.find_transactions(connection, q, MAX_EXPENSES):
            row = deciding_row(
                transactions.transaction_history(connection, match.company_id, match.transaction_id)
            )
            title, _, _ = expense_status(row.current_status, row.cause_key)
            expenses.append((match, title, serialize_cause(row.cause_key, page.causes)))
    return expenses


@router.get("/syncs.csv")
def get_csv(page: SignedInPage) -> Response:
    """All syncs that match the filters, in the columns of the API's CSV."""
    query = read_query(page.request, SyncParams)
    read = read_syncs(page.database, query)
    return csv_response(
        read, schemas.Sync, filename="syncs", cursor=query.cursor, limit=query.csv_limit
    )
