"""The companies, one of them with what stays failed there, and one transaction over all syncs."""

from fastapi import APIRouter, Request, Response

from app.db import journal
from app.db.queries import (
    companies as queries_companies,
)
from app.db.queries import (
    events as queries_events,
)
from app.db.queries import (
    syncs as queries,
)
from app.db.queries import (
    transactions as queries_items,
)
from app.db.queries.transactions import ErrorFilter
from app.web.api.query_params import CompanyQuery, Nothing, Paged
from app.web.api.serializers import company_answer, history_answer, sync_answer
from app.web.auth import TheDatabase
from app.web.pages.presenters import watched
from app.web.pages.query_params import asked
from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import SignedIn
from app.web.path_params import Id

NEWEST = 10
FAILURES_AT_ONCE = 25

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/companies")
def list_companies(request: Request, database: TheDatabase, _session: SignedIn) -> Response:
    """The companies by name, with how it goes in each."""
    query = asked(request, CompanyQuery)
    with journal.caught_up(database) as connection:
        found = queries_companies.list_companies(
            connection, q=query.q, cursor=query.cursor, limit=query.limit
        )
    companies = [company_answer(each) for each in found.items]
    return page(request, "companies.html", query=query, companies=companies, next=found.next)


@router.get("/companies/{company_id}")
def get_company(
    request: Request, database: TheDatabase, company_id: Id, _session: SignedIn
) -> Response:
    """Its totals, the transactions that stay failed, its newest syncs."""
    query = asked(request, Paged)
    limit = query.limit if "limit" in query.model_fields_set else FAILURES_AT_ONCE
    still_open = ErrorFilter(company_id=company_id, open=True)
    with journal.caught_up(database) as connection:
        company = queries_companies.get_company(connection, company_id)
        newest = queries.newest_syncs(connection, company_id, NEWEST)
        whole = queries.open_whole_failure(connection, company_id)
        seen = queries_events.last_heartbeat(connection)
        failures = queries_items.list_errors(
            connection, still_open, cursor=query.cursor, limit=limit
        )
    return page(
        request,
        "company.html",
        company=company_answer(company),
        syncs=[sync_answer(kept) for kept in newest],
        whole=sync_answer(whole) if whole else None,
        worker=watched(seen, request.app.state.clock()),
        failures=failures,
        query=query,
    )


@router.get("/companies/{company_id}/transactions/{transaction_id}")
def get_transaction(
    request: Request,
    database: TheDatabase,
    company_id: Id,
    transaction_id: Id,
    _session: SignedIn,
) -> Response:
    """Did this expense reach the books? The answer, and its rows in every sync."""
    asked(request, Nothing)
    with journal.caught_up(database) as connection:
        items = queries_items.history(connection, company_id, transaction_id)
        company = queries_companies.get_company(connection, company_id)
    history = history_answer(items, database.rules)
    return page(request, "transaction.html", history=history, company=company_answer(company))
