"""Codat's own read paths under `/codat`, answered from what is kept here.

Codat's official SDKs work against them with only their server URL changed. Paths, shapes, error
bodies and paging are Codat's (its OpenAPI file, "Sync for Expenses"); nothing here asks Codat.
"""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.db.queries import (
    companies as queries_companies,
)
from app.db.queries import (
    syncs as queries,
)
from app.db.queries import (
    transactions as queries_items,
)
from app.db.queries.syncs import KeptSync
from app.errors import Conflicting
from app.web.auth import TheDatabase, require_codat_key
from app.web.codat_api import schemas as shapes
from app.web.codat_api.schemas import (
    Companies,
    CompanySyncStatus,
    MirroredTransaction,
    Transactions,
)
from app.web.path_params import Id, LenientRoute
from app.web.problems import amend

PREFIX = "/codat"
SYNCS = "/companies/{company_id}/sync/expenses/syncs"
MOST_LISTED = 1000
LARGEST_PAGE = 5000
LAST_PAGE = 1_000_000

router = APIRouter(
    prefix=PREFIX,
    tags=["Codat's own paths"],
    route_class=LenientRoute,
    dependencies=[Depends(require_codat_key)],
    responses=shapes.documented(400, 401, 503),
)


class PageQuery(BaseModel):
    """Codat's paging; what else a caller of Codat may send is let pass."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    page: int = Field(1, ge=1, le=LAST_PAGE)
    page_size: int = Field(100, ge=1, le=LARGEST_PAGE)


Paged = Annotated[PageQuery, Query()]


@router.get(
    "/companies",
    summary="Companies, as Codat lists them",
    response_model_exclude_none=True,
)
def companies(database: TheDatabase, query: Paged) -> Companies:
    """One page by number. `query`, `orderBy` and `tags` change nothing here."""
    size = query.page_size
    with database.reading() as connection:
        total = queries_companies.count_companies(connection)
        rows = queries_companies.companies_by_page(connection, (query.page - 1) * size, size)
    return Companies(
        results=[shapes.company(*row) for row in rows],
        **shapes.paging("/companies", query.page, size, total),
    )


@router.get(
    SYNCS + "/list/status",
    summary="A company's syncs, as Codat lists them",
    responses=shapes.documented(404),
)
def list_statuses(
    database: TheDatabase, company_id: Id, response: Response
) -> list[CompanySyncStatus]:
    """A bare array without paging, as Codat's; at most the newest 1000 syncs."""
    with database.reading() as connection:
        queries_companies.require_company(connection, company_id)
        kept = queries.newest_syncs(connection, company_id, MOST_LISTED)
    _say_freshness(response, *kept)
    return [shapes.status(each) for each in kept]


@router.get(
    SYNCS + "/latest/status",
    summary="A company's newest sync, in Codat's shape",
    responses=shapes.documented(404),
)
def latest(database: TheDatabase, company_id: Id, response: Response) -> CompanySyncStatus:
    """The newest by the sync's own time."""
    with database.reading() as connection:
        kept = queries.latest_sync(connection, company_id)
    _say_freshness(response, kept)
    return shapes.status(kept)


@router.get(
    SYNCS + "/lastSuccessful/status",
    summary="A company's newest successful sync, in Codat's shape",
    responses=shapes.documented(404),
)
def last_successful(database: TheDatabase, company_id: Id, response: Response) -> CompanySyncStatus:
    """The newest that Codat's own verdict proves."""
    with database.reading() as connection:
        kept = queries.last_successful_sync(connection, company_id)
    _say_freshness(response, kept)
    return shapes.status(kept)


@router.get(
    SYNCS + "/{sync_id}/status",
    summary="One sync, in Codat's shape",
    responses=shapes.documented(404),
)
def one(
    database: TheDatabase, company_id: Id, sync_id: Id, response: Response
) -> CompanySyncStatus:
    """The sync of this company and id."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, company_id)
    _say_freshness(response, kept)
    return shapes.status(kept)


@router.get(
    SYNCS + "/{sync_id}/transactions",
    summary="A sync's transactions, in Codat's shape",
    response_model_exclude_none=True,
    responses=shapes.documented(404, 409),
)
def transactions(
    database: TheDatabase, company_id: Id, sync_id: Id, query: Paged, response: Response
) -> Transactions:
    """One page by number. 409 while the sync's list is not known here: unknown is not empty."""
    size = query.page_size
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, company_id)
        total = _known_total(kept)
        rows = queries_items.items_at(connection, kept.number, (query.page - 1) * size, size)
    _say_freshness(response, kept)
    path = _address(SYNCS + "/{sync_id}/transactions", company_id=company_id, sync_id=sync_id)
    return Transactions(
        results=[shapes.transaction(row) for row in rows],
        **shapes.paging(path, query.page, size, total),
    )


@router.get(
    SYNCS + "/{sync_id}/transactions/{transaction_id}",
    summary="One transaction's rows, in Codat's shape",
    response_model_exclude_none=True,
    responses=shapes.documented(404, 409),
)
def one_transaction(
    database: TheDatabase, company_id: Id, sync_id: Id, transaction_id: Id, response: Response
) -> list[MirroredTransaction]:
    """An array, as Codat's: one row per integration type."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, company_id)
        _known_total(kept)
        rows = queries_items.items_of(connection, kept.number, transaction_id)
    _say_freshness(response, kept)
    return [shapes.transaction(row) for row in rows]


def _address(path: str, **ids: str) -> str:
    return path.format(**{name: quote(value, safe="") for name, value in ids.items()})


def _known_total(kept: KeptSync) -> int:
    if kept.sync.counts is None:
        raise Conflicting("the transactions of this sync are not known yet")
    return kept.sync.counts.total


def _say_freshness(response: Response, *kept: KeptSync) -> None:
    response.headers.update(shapes.freshness(kept, datetime.now(UTC)))


def install(app: FastAPI) -> None:
    """Add Codat's read paths to the application, after `problems.install`."""
    app.state.problem_shapes[PREFIX] = shapes.error_message
    app.include_router(router)
    amend(app, _without_422)


def _without_422(told: dict[str, Any]) -> None:
    """FastAPI names a 422 for whatever has parameters; Codat answers 400, and so do we."""
    for path, calls in told["paths"].items():
        if path.startswith(PREFIX):
            for call in calls.values():
                call["responses"].pop("422", None)
