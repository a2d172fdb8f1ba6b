"""The first page: alerts, totals and a chart of a period, and the searchable history of syncs."""

from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from pydantic import ModelWrapValidatorHandler, PrivateAttr, ValidationError, model_validator

from app.db import alerts
from app.db.queries import causes, search, stats, syncs, transactions
from app.web.api import schemas
from app.web.api.csv_export import csv_response
from app.web.api.query_params import SyncParams, first_day
from app.web.api.serializers import serialize_cause
from app.web.api.syncs import read_syncs
from app.web.pages.chart import draw
from app.web.pages.presenters import deciding_row, expense_status, present_sync
from app.web.pages.query_params import describe_error, page_address
from app.web.pages.rendering import Page, PageRoute, SignedInPage

MAX_EXPENSES = 5
FILTERS = ("q", "from", "to", "outcome", "state", "status_code", "company_id", "cause")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class HealthParams(SyncParams):
    """The filters. Wrong dates are no error: the form shows beside its fields what is wrong."""

    _wrong_dates: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _accept_wrong_dates(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            reasons = {str(detail["loc"][-1]): detail["msg"] for detail in error.errors()}
            if not reasons.keys() <= {"from", "to"}:
                raise
        params = handler({name: data[name] for name in data if name not in ("from", "to")})
        params._wrong_dates = {name: describe_error(name, text) for name, text in reasons.items()}
        return params


@router.get("/")
def get_health(page: SignedInPage, params: Annotated[HealthParams, Query()]) -> Response:
    """The syncs that match the filters; above the first page of them, alerts and totals."""
    wrong_dates = params._wrong_dates
    is_first_page = params.cursor is None and not wrong_dates
    is_filtered = page_address(page.request).has(*FILTERS)
    found = None
    if not wrong_dates:
        with page.database.reading() as connection:
            found = syncs.list_syncs(
                connection,
                params.to(syncs.SyncFilter),
                sort=params.sort,
                cursor=params.cursor,
                limit=params.limit,
            )
    return page.render(
        "health.html",
        422 if wrong_dates else 200,
        query=params,
        wrong_dates=wrong_dates,
        is_filtered=is_filtered,
        syncs=[present_sync(record, page.causes) for record in found.items] if found else [],
        next=found.next if found else None,
        names=page.company_names(params.company_id),
        cause_titles={key: cause.title for key, cause in page.causes.items()},
        endpoint=f"{page.request.base_url}webhooks/codat",
        overview=_overview(page, params) if is_first_page else None,
        expenses=_find_expenses(page, params.q) if params.q else [],
        **_open_alerts(page, with_numbers=is_first_page and not is_filtered),
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
def get_csv(page: SignedInPage, params: Annotated[SyncParams, Query()]) -> Response:
    """All syncs that match the filters, in the columns of the API's CSV."""
    read = partial(read_syncs, page.database, params)
    return csv_response(read, schemas.Sync, filename="syncs", params=params)
