"""The Codat-compatible API: Codat's own read paths under `/codat`, answered from stored data.

Codat's official SDKs work against it with only their server URL changed. Paths, bodies, errors and
paging are those of Codat's OpenAPI file ("Sync for Expenses"). It makes no calls to Codat.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.db.queries import companies as company_queries
from app.db.queries import syncs as sync_queries
from app.db.queries import transactions as transaction_queries
from app.db.queries.syncs import SyncRecord
from app.errors import Conflict
from app.web.auth import require_codat_key
from app.web.codat_api import schemas
from app.web.dependencies import ClockDep, DatabaseDep
from app.web.path_params import Id, LenientRoute
from app.web.problems import extend_openapi

PREFIX = "/codat"
SYNCS = "/companies/{company_id}/sync/expenses/syncs"
MAX_LISTED = 1000
MAX_PAGE_SIZE = 5000
MAX_PAGE = 1_000_000

router = APIRouter(
    prefix=PREFIX,
    tags=["Codat-compatible API"],
    route_class=LenientRoute,
    dependencies=[Depends(require_codat_key)],
    responses=schemas.documented(400, 401, 503),
    generate_unique_id_function=lambda route: to_camel(f"codat_{route.name}"),  # codatGetSync
)


class PageParams(BaseModel):
    """Codat's paging. Other parameters of Codat's API are accepted and ignored."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    page: int = Field(1, ge=1, le=MAX_PAGE)
    page_size: int = Field(100, ge=1, le=MAX_PAGE_SIZE)


PageQuery = Annotated[PageParams, Query()]
NOT_FOUND = schemas.documented(404)
NOT_KNOWN = schemas.documented(404, 409)


async def _show_age(response: Response, clock: ClockDep) -> Callable[[Sequence[SyncRecord]], None]:
    def show_age(records: Sequence[SyncRecord]) -> None:
        response.headers.update(schemas.freshness_headers(records, clock()))

    return show_age


ShowAge = Annotated[Callable[[Sequence[SyncRecord]], None], Depends(_show_age)]
"""Sets the headers that say how old an answer about these syncs is."""


@router.get("/companies", summary="List companies", response_model_exclude_none=True)
def list_companies(database: DatabaseDep, params: PageQuery) -> schemas.CompaniesPage:
    """One page by number. `query`, `orderBy` and `tags` are ignored."""
    size = params.page_size
    with database.reading() as connection:
        total = company_queries.count_companies(connection)
        rows = company_queries.companies_from(connection, (params.page - 1) * size, size)
    return schemas.CompaniesPage(
        results=[schemas.company_schema(*row) for row in rows],
        **schemas.paging("/companies", params.page, size, total),
    )


@router.get(SYNCS + "/list/status", summary="List a company's syncs", responses=NOT_FOUND)
def list_syncs(
    database: DatabaseDep, company_id: Id, show_age: ShowAge
) -> list[schemas.CompanySyncStatus]:
    """The newest 1000 syncs as an array without paging."""
    with database.reading() as connection:
        company_queries.require_company(connection, company_id)
        records = sync_queries.newest_syncs(connection, company_id, MAX_LISTED)
    show_age(records)
    return [schemas.status_schema(record) for record in records]


@router.get(SYNCS + "/latest/status", summary="Get the latest sync", responses=NOT_FOUND)
def get_latest_sync(
    database: DatabaseDep, company_id: Id, show_age: ShowAge
) -> schemas.CompanySyncStatus:
    """The newest sync by its start, its end, or the time when it was first seen."""
    with database.reading() as connection:
        record = sync_queries.latest_sync(connection, company_id)
    show_age([record])
    return schemas.status_schema(record)


@router.get(
    SYNCS + "/lastSuccessful/status", summary="Get the last successful sync", responses=NOT_FOUND
)
def get_last_successful_sync(
    database: DatabaseDep, company_id: Id, show_age: ShowAge
) -> schemas.CompanySyncStatus:
    """The newest sync that wrote all its data, or had none to write, according to Codat's API."""
    with database.reading() as connection:
        record = sync_queries.last_successful_sync(connection, company_id)
    show_age([record])
    return schemas.status_schema(record)


@router.get(SYNCS + "/{sync_id}/status", summary="Get a sync", responses=NOT_FOUND)
def get_sync(
    database: DatabaseDep, company_id: Id, sync_id: Id, show_age: ShowAge
) -> schemas.CompanySyncStatus:
    """One sync of the company."""
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, company_id)
    show_age([record])
    return schemas.status_schema(record)


@router.get(
    SYNCS + "/{sync_id}/transactions",
    summary="List a sync's transactions",
    response_model_exclude_none=True,
    responses=NOT_KNOWN,
)
def list_transactions(
    database: DatabaseDep, company_id: Id, sync_id: Id, params: PageQuery, show_age: ShowAge
) -> schemas.TransactionsPage:
    """One page by number. 409 while the sync's list is unknown: an empty list would be wrong."""
    size = params.page_size
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, company_id)
        total = _known_total(record)
        rows = transaction_queries.transactions_from(
            connection, record.pk, (params.page - 1) * size, size
        )
    show_age([record])
    path = (SYNCS + "/{sync_id}/transactions").format(
        company_id=quote(company_id, safe=""), sync_id=quote(sync_id, safe="")
    )
    return schemas.TransactionsPage(
        results=[schemas.transaction_schema(row) for row in rows],
        **schemas.paging(path, params.page, size, total),
    )


@router.get(
    SYNCS + "/{sync_id}/transactions/{transaction_id}",
    summary="Get a transaction",
    response_model_exclude_none=True,
    responses=NOT_KNOWN,
)
def get_transaction(
    database: DatabaseDep, company_id: Id, sync_id: Id, transaction_id: Id, show_age: ShowAge
) -> list[schemas.CodatTransaction]:
    """The transaction's rows as an array, one per integration type."""
    with database.reading() as connection:
        record = sync_queries.get_sync(connection, sync_id, company_id)
        _known_total(record)
        rows = transaction_queries.transaction_rows(connection, record.pk, transaction_id)
    show_age([record])
    return [schemas.transaction_schema(row) for row in rows]


def _known_total(record: SyncRecord) -> int:
    if record.sync.counts is None:
        raise Conflict("The transactions of this sync have not been fetched yet.")
    return record.sync.counts.total


def install(app: FastAPI) -> None:
    """Add the calls to the application, after `problems.install`."""
    app.state.problem_shapes[PREFIX] = schemas.error_response
    app.include_router(router)
    extend_openapi(app, _remove_422)


def _remove_422(description: dict[str, Any]) -> None:
    """FastAPI documents a 422 for every call with parameters. Codat's API answers 400."""
    for path, calls in description["paths"].items():
        if path.startswith(PREFIX):
            for call in calls.values():
                call["responses"].pop("422", None)
