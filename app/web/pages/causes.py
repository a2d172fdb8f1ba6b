"""The causes of failures, most open failures first, and the page of one cause with its messages."""

from fastapi import APIRouter, Response

from app.db.queries import causes, companies
from app.db.queries.transactions import PushErrorFilter
from app.errors import NotFound
from app.web.api import schemas
from app.web.api.csv_export import csv_response
from app.web.api.push_errors import read_push_errors
from app.web.api.query_params import CauseParams
from app.web.api.serializers import serialize_cause_details, serialize_cause_totals
from app.web.pages.query_params import read_query
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.path_params import Id

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/causes")
def list_causes(page: SignedInPage) -> Response:
    """The causes of a period, by default of the last 30 days."""
    query = read_query(page.request, CauseParams)
    with page.database.reading() as connection:
        totals = causes.list_causes(connection, query.to_filter(page.now))
        names = companies.company_names(connection, [query.company_id] if query.company_id else [])
    rows = [serialize_cause_totals(row, page.causes) for row in totals]
    return page.render("causes.html", query=query, names=names, causes=rows)


@router.get("/causes/{key}")
def get_cause(page: SignedInPage, key: Id) -> Response:
    """One cause: what to do about it, and its failures grouped by message."""
    query = read_query(page.request, CauseParams)
    with page.database.reading() as connection:
        details = causes.get_cause(connection, key, query.to_filter(page.now))
        names = companies.company_names(connection, [query.company_id] if query.company_id else [])
    if key not in page.causes and not details.groups:
        raise NotFound("Cause not found")
    cause = serialize_cause_details(details, page.causes)
    return page.render("cause.html", query=query, names=names, cause=cause)


@router.get("/causes/{key}/open.csv")
def get_open_items(page: SignedInPage, key: Id) -> Response:
    """The open items of a cause, in the columns of the API's CSV."""
    query = read_query(page.request, CauseParams)
    criteria = PushErrorFilter(
        company_id=query.company_id, cause=key, open=True, since=query.from_, until=query.to
    )
    read = read_push_errors(page.database, criteria)
    return csv_response(read, schemas.Transaction, filename="open-items")
