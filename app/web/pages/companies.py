"""The pages of companies, of their expenses, and of their configuration."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db.queries import companies, syncs, transactions
from app.db.queries.transactions import PushErrorFilter
from app.web.api import companies as api
from app.web.api.query_params import CompanyParams, ConfigParams, NoQuery, PageParams
from app.web.api.serializers import (
    serialize_company,
    serialize_transaction,
)
from app.web.dependencies import CodatDep, InteractiveCallsDep
from app.web.pages.presenters import present_sync
from app.web.pages.rendering import PageRoute, SignedInPage, render_page
from app.web.pages.sessions import SignedIn
from app.web.path_params import Id

LATEST_SYNCS = 10
OPEN_ITEMS_LIMIT = 25

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/companies")
def list_companies(page: SignedInPage, params: Annotated[CompanyParams, Query()]) -> Response:
    """The companies by name, with their totals."""
    found = api.list_companies(page.database, params)
    return page.render("companies.html", query=params, companies=found.items, next=found.next)


@router.get("/companies/{company_id}")
def get_company(
    page: SignedInPage, company_id: Id, params: Annotated[PageParams, Query()]
) -> Response:
    """One company: totals, open items, latest syncs."""
    limit = params.limit if "limit" in params.model_fields_set else OPEN_ITEMS_LIMIT
    open_items = PushErrorFilter(company_id=company_id, open=True)
    with page.database.reading() as connection:
        company = companies.get_company(connection, company_id)
        latest = syncs.newest_syncs(connection, company_id, LATEST_SYNCS)
        whole_failure = syncs.open_whole_failure(connection, company_id)
        failures = transactions.list_push_errors(
            connection, open_items, cursor=params.cursor, limit=limit
        )
    return page.render(
        "company.html",
        query=params,
        company=serialize_company(company, page.causes),
        syncs=[present_sync(record, page.causes) for record in latest],
        whole_failure=whole_failure and present_sync(whole_failure, page.causes),
        failures=[(serialize_transaction(row, page.causes), row.at) for row in failures.items],
        next=failures.next,
    )


@router.get("/companies/{company_id}/config")
async def get_config(
    request: Request,
    codat: CodatDep,
    calls: InteractiveCallsDep,
    company_id: Id,
    _user: SignedIn,
    _params: NoQuery,
) -> Response:
    """The configuration, read from Codat while the user waits."""
    response = await api.get_config(codat, calls, company_id, ConfigParams())
    config = bytes(response.body).decode()
    return render_page(request, "config.html", company_id=company_id, config=config)


@router.get("/companies/{company_id}/config.json")
async def download_config(
    codat: CodatDep, calls: InteractiveCallsDep, company_id: Id, _user: SignedIn, _params: NoQuery
) -> Response:
    """The configuration as a file."""
    return await api.get_config(codat, calls, company_id, ConfigParams(download=True))
