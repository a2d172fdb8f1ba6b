"""Our services' door, companies: totals, their newest syncs, one transaction over all syncs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db import journal
from app.db.queries import (
    companies as queries_companies,
)
from app.db.queries import (
    syncs as queries,
)
from app.db.queries import (
    transactions as queries_items,
)
from app.web.api.query_params import CompanyQuery, Nothing
from app.web.api.responses import UNCHANGED, tagged
from app.web.api.schemas import CompanyAnswer, CompanyList, SyncAnswer, TransactionHistory
from app.web.api.serializers import company_answer, history_answer, sync_answer
from app.web.auth import TheDatabase
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

ONE_COMPANY = {**UNCHANGED, **documented(401, 404, 422, 503)}
NoQuery = Annotated[Nothing, Query()]

router = APIRouter(tags=["companies"], route_class=IdRoute)


@router.get("/companies", summary="List companies by name", responses=documented(401, 422, 503))
def list_companies(database: TheDatabase, query: Annotated[CompanyQuery, Query()]) -> CompanyList:
    """One page of companies with their totals; those without a known name last."""
    with journal.caught_up(database) as connection:
        page = queries_companies.list_companies(
            connection, q=query.q, cursor=query.cursor, limit=query.limit
        )
    return CompanyList(items=[company_answer(each) for each in page.items], next=page.next)


@router.get(
    "/companies/{company_id}",
    summary="One company",
    response_model=CompanyAnswer,
    responses=ONE_COMPANY,
)
def get_company(
    request: Request, database: TheDatabase, company_id: Id, _query: NoQuery
) -> Response:
    """Its syncs by outcome, its newest sync, and how many transactions stay failed."""
    with journal.caught_up(database) as connection:
        company = queries_companies.get_company(connection, company_id)
    return tagged(request, company_answer(company))


@router.get(
    "/companies/{company_id}/syncs/latest",
    summary="The company's newest sync",
    response_model=SyncAnswer,
    responses=ONE_COMPANY,
)
def latest_sync(
    request: Request, database: TheDatabase, company_id: Id, _query: NoQuery
) -> Response:
    """The newest by the sync's own time (start, else end, else first heard of)."""
    with database.reading() as connection:
        kept = queries.latest_sync(connection, company_id)
    return tagged(request, sync_answer(kept))


@router.get(
    "/companies/{company_id}/syncs/last-successful",
    summary="The company's newest successful sync",
    response_model=SyncAnswer,
    responses=ONE_COMPANY,
)
def last_successful_sync(
    request: Request, database: TheDatabase, company_id: Id, _query: NoQuery
) -> Response:
    """The newest that Codat's own verdict proves: all was written, or there was nothing to."""
    with database.reading() as connection:
        kept = queries.last_successful_sync(connection, company_id)
    return tagged(request, sync_answer(kept))


@router.get(
    "/companies/{company_id}/transactions/{transaction_id}",
    summary="Did this expense reach the books?",
    response_model=TransactionHistory,
    responses=ONE_COMPANY,
)
def get_history(
    request: Request,
    database: TheDatabase,
    company_id: Id,
    transaction_id: Id,
    _query: NoQuery,
) -> Response:
    """The current outcome, and the rows of all syncs (the newest 1000), newest sync first."""
    with database.reading() as connection:
        items = queries_items.history(connection, company_id, transaction_id)
    return tagged(request, history_answer(items, database.rules))
