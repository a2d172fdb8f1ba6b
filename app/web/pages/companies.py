"""The pages of companies, of their expenses, and of their configuration."""

import json
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.db.queries import companies, syncs, transactions
from app.db.queries.transactions import PushErrorFilter
from app.web.api.query_params import CompanyParams, NoParams, PageParams
from app.web.api.serializers import (
    serialize_cause,
    serialize_company,
    serialize_history,
    serialize_transaction,
)
from app.web.dependencies import CodatDep, InteractiveCallsDep
from app.web.pages.presenters import deciding_row, expense_status, present_sync
from app.web.pages.query_params import read_query
from app.web.pages.rendering import PageRoute, SignedInPage, render_page
from app.web.pages.sessions import SignedIn
from app.web.path_params import Id

LATEST_SYNCS = 10
OPEN_ITEMS_LIMIT = 25
MAX_NAME_LENGTH = 100

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/companies")
def list_companies(page: SignedInPage) -> Response:
    """The companies by name, with their totals."""
    query = read_query(page.request, CompanyParams)
    with page.database.reading() as connection:
        found = companies.list_companies(
            connection, q=query.q, cursor=query.cursor, limit=query.limit
        )
    rows = [serialize_company(record, page.causes) for record in found.items]
    return page.render("companies.html", query=query, companies=rows, next=found.next)


@router.get("/companies/{company_id}")
def get_company(page: SignedInPage, company_id: Id) -> Response:
    """One company: totals, open items, latest syncs."""
    query = read_query(page.request, PageParams)
    limit = query.limit if "limit" in query.model_fields_set else OPEN_ITEMS_LIMIT
    open_items = PushErrorFilter(company_id=company_id, open=True)
    with page.database.reading() as connection:
        company = companies.get_company(connection, company_id)
        latest = syncs.newest_syncs(connection, company_id, LATEST_SYNCS)
        whole_failure = syncs.open_whole_failure(connection, company_id)
        failures = transactions.list_push_errors(
            connection, open_items, cursor=query.cursor, limit=limit
        )
    return page.render(
        "company.html",
        query=query,
        company=serialize_company(company, page.causes),
        syncs=[present_sync(record, page.causes) for record in latest],
        whole_failure=whole_failure and present_sync(whole_failure, page.causes),
        failures=[(serialize_transaction(row, page.causes), row.at) for row in failures.items],
        next=failures.next,
    )


@router.get("/companies/{company_id}/transactions/{transaction_id}")
def get_transaction(page: SignedInPage, company_id: Id, transaction_id: Id) -> Response:
    """One expense: is it in the books, and its rows in all syncs, newest first."""
    read_query(page.request, NoParams)
    with page.database.reading() as connection:
        rows = transactions.transaction_history(connection, company_id, transaction_id)
        names = companies.company_names(connection, {company_id})
    row, history = deciding_row(rows), serialize_history(rows, page.causes)
    title, tone, sentence = expense_status(row.current_status, row.cause_key)
    is_recorded = row.current_status == "completed"
    resolving = [each.at for each in rows if is_recorded and each.sync_id == history.resolved_by]
    return page.render(
        "transaction.html",
        company_id=company_id,
        company_name=names.get(company_id),
        history=history,
        title=title,
        tone=tone,
        sentence=sentence,
        cause=serialize_cause(row.cause_key, page.causes),
        failed_at=next((each.at for each in rows if each.failed), None),
        recorded_at=resolving[0] if resolving else None,
    )


async def _read_config(
    request: Request, codat: CodatDep, calls: InteractiveCallsDep, company_id: Id, _user: SignedIn
) -> str:
    read_query(request, NoParams)
    config = await calls.run(codat.get_config(company_id))
    return json.dumps(config, indent=2, ensure_ascii=False)


Config = Annotated[str, Depends(_read_config)]
"""The configuration as JSON text, read from Codat while the user waits."""


@router.get("/companies/{company_id}/config")
def get_config(request: Request, company_id: Id, config: Config) -> Response:
    """The configuration as a page."""
    return render_page(request, "config.html", company_id=company_id, config=config)


@router.get("/companies/{company_id}/config.json")
def download_config(company_id: Id, config: Config) -> Response:
    """The configuration as a file."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", company_id)[:MAX_NAME_LENGTH]
    headers = {"Content-Disposition": f'attachment; filename="codat-config-{name}.json"'}
    body = config.encode("utf-8", "replace")
    return Response(body, media_type="application/json", headers=headers)
