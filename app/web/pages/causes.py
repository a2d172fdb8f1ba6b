"""The causes of failures as a table, and the page of one cause: what to do, companies, messages."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from app.db import alerts
from app.db.queries.transactions import PushErrorFilter
from app.errors import BadRequest
from app.web.api import causes as api
from app.web.api import schemas
from app.web.api.csv_export import csv_response
from app.web.api.query_params import CauseCompanyParams, CauseParams, CsvParams
from app.web.api.transactions import read_push_errors
from app.web.dependencies import ClockDep, DatabaseDep
from app.web.pages.query_params import path
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.pages.sessions import OwnForm, SignedIn, local_address
from app.web.path_params import Id

SORTS = ("open", "title", "owner", "companies", "last_7_days", "last_failed_at")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class OpenItemsParams(CauseParams, CsvParams):
    """Which open items, in which form."""


class CauseListParams(CauseParams):
    """The filters of the table, and its order: a column, after `-` for descending."""

    owner: schemas.Owner | None = None
    sort: str = "-open"

    def arrange(self, causes: list[schemas.CauseTotals]) -> list[schemas.CauseTotals]:
        """The causes of the owner in this order. Raises BadRequest naming `sort`."""
        column = self.sort.removeprefix("-")
        if column not in SORTS:
            raise BadRequest("sort", "is not a column")
        of_owner = [cause for cause in causes if self.owner in (None, cause.owner)]

        def value(cause: schemas.CauseTotals) -> Any:
            found = getattr(cause, column)
            return str(found or "").casefold() if column in ("title", "owner") else found

        return sorted(of_owner, key=value, reverse=self.sort.startswith("-"))


@router.get("/causes")
def list_causes(page: SignedInPage, params: Annotated[CauseListParams, Query()]) -> Response:
    """The causes of a period, by default of the last 30 days."""
    found = api.list_causes(page.database, page.clock, params)
    names = page.company_names(params.company_id)
    causes = params.arrange(found.items)
    return page.render("causes.html", query=params, names=names, causes=causes)


@router.get("/causes/{key}")
def get_cause(
    page: SignedInPage, key: Id, params: Annotated[CauseCompanyParams, Query()]
) -> Response:
    """One cause: what to do about it, its companies, and its failures grouped by message."""
    cause = api.get_cause(page.database, page.clock, key, params)
    companies = api.list_cause_companies(page.database, page.clock, key, params)
    names = page.company_names(params.company_id)
    since = params.to_filter(page.clock()).since
    return page.render(
        "cause.html",
        query=params,
        names=names,
        cause=cause,
        companies=companies.items,
        next=companies.next,
        retry_from=f"{since:%Y-%m-%dT%H:%M:%SZ}" if since else None,
    )


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


@router.post("/causes/{key}/companies/{company_id}/note")
def post_cause_note(
    database: DatabaseDep,
    clock: ClockDep,
    session: SignedIn,
    key: Id,
    company_id: Id,
    form: OwnForm,
) -> Response:
    """Store the note about a cause at a company, and show the page again."""
    note = read_note(form, session.actor)
    with database.writing() as connection:
        alerts.annotate(connection, key, company_id, note, clock())
    return RedirectResponse(local_address(form.get("next", path("causes", key))), 303)


@router.post("/alerts/{alert_id}/note")
def post_alert_note(
    database: DatabaseDep, clock: ClockDep, session: SignedIn, alert_id: int, form: OwnForm
) -> Response:
    """Store the note about an alert, and show the page again."""
    with database.writing() as connection:
        alerts.annotate_alert(connection, alert_id, read_note(form, session.actor), clock())
    return RedirectResponse(local_address(form.get("next", "/")), 303)


def read_note(form: dict[str, str], actor: str | None) -> alerts.NewNote:
    """The note in a form."""
    text = form.get("text", "").replace("\0", "").strip()[: schemas.MAX_NOTE]
    return alerts.NewNote(text or None, "is_handled" in form, actor)
