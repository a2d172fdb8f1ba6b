"""The causes of failures, most open failures first, and the page of one cause with its messages."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.db.queries.transactions import PushErrorFilter
from app.web.api import causes, schemas
from app.web.api.causes import CauseQuery
from app.web.api.csv_export import csv_response
from app.web.api.query_params import CauseParams, CsvParams
from app.web.api.transactions import read_push_errors
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.path_params import Id


class OpenItemsParams(CauseParams, CsvParams):
    """Which open items, in which form."""


router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/causes")
def list_causes(page: SignedInPage, params: CauseQuery) -> Response:
    """The causes of a period, by default of the last 30 days."""
    found = causes.list_causes(page.database, page.clock, params)
    names = page.company_names(params.company_id)
    return page.render("causes.html", query=params, names=names, causes=found.items)


@router.get("/causes/{key}")
def get_cause(page: SignedInPage, key: Id, params: CauseQuery) -> Response:
    """One cause: what to do about it, and its failures grouped by message."""
    cause = causes.get_cause(page.database, page.clock, key, params)
    names = page.company_names(params.company_id)
    return page.render("cause.html", query=params, names=names, cause=cause)


@router.get("/causes/{key}/open.csv")
def get_open_items(
    page: SignedInPage, key: Id, params: Annotated[OpenItemsParams, Query()]
) -> Response:
    """The open items of a cause, in the columns of the API's CSV, for spreadsheets."""
    criteria = PushErrorFilter(
        company_id=params.company_id, cause=key, open=True, since=params.since, until=params.until
    )
    read = partial(read_push_errors, page.database, criteria)
    style = params.model_copy(update={"spreadsheet": True})
    return csv_response(read, schemas.Transaction, filename="open-items", params=style)
