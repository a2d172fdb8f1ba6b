"""Companies: totals, newest syncs, and calls to Codat."""

import json
import re
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Response

from app.db.queries import companies as queries
from app.db.queries import syncs as sync_queries
from app.web.api import schemas
from app.web.api.query_params import CompanyParams, ConfigParams, NoQuery
from app.web.api.responses import ApiRoute
from app.web.api.serializers import serialize_company, serialize_sync
from app.web.auth import ActorDep
from app.web.dependencies import CodatDep, DatabaseDep, InteractiveCallsDep, SyncStarterDep
from app.web.path_params import Id
from app.web.problems import documented

ONE_COMPANY = documented(304, 401, 404, 422, 503)
MAX_FILENAME_LENGTH = 100
_UNSAFE_IN_FILENAME = re.compile(r"[^A-Za-z0-9._-]+")

router = APIRouter(tags=["Companies"], route_class=ApiRoute)


@router.get("/companies", summary="List companies", responses=documented(401, 422, 503))
def list_companies(
    database: DatabaseDep, params: Annotated[CompanyParams, Query()]
) -> schemas.CompanyList:
    """One page of companies with their totals: those that cannot sync, then the others by name.

    Companies without a name are last.
    """
    with database.reading() as connection:
        page = queries.list_companies(
            connection,
            q=params.q,
            cannot_sync=params.cannot_sync,
            cursor=params.cursor,
            limit=params.limit,
        )
    causes = database.classifier.causes
    items = [serialize_company(record, causes) for record in page.items]
    return schemas.CompanyList(items=items, next=page.next)


@router.get("/companies/{company_id}", summary="Get a company", responses=ONE_COMPANY)
def get_company(database: DatabaseDep, company_id: Id, _params: NoQuery) -> schemas.Company:
    """The company's syncs by outcome, its newest sync, and its open failed transactions."""
    with database.reading() as connection:
        record = queries.get_company(connection, company_id)
    return serialize_company(record, database.classifier.causes)


@router.get(
    "/companies/{company_id}/syncs/latest",
    summary="Get the latest sync of a company",
    responses=ONE_COMPANY,
)
def get_latest_sync(database: DatabaseDep, company_id: Id, _params: NoQuery) -> schemas.Sync:
    """The newest sync by its start, its end, or the time when it was first seen."""
    with database.reading() as connection:
        record = sync_queries.latest_sync(connection, company_id)
    return serialize_sync(record, database.classifier.causes)


@router.get(
    "/companies/{company_id}/syncs/last-successful",
    summary="Get the last successful sync of a company",
    responses=ONE_COMPANY,
)
def get_last_successful_sync(
    database: DatabaseDep, company_id: Id, _params: NoQuery
) -> schemas.Sync:
    """The newest sync that wrote all its data, or had none to write, according to Codat's API."""
    with database.reading() as connection:
        record = sync_queries.last_successful_sync(connection, company_id)
    return serialize_sync(record, database.classifier.causes)


@router.post(
    "/companies/{company_id}/syncs",
    summary="Start a sync",
    status_code=202,
    responses=documented(400, 401, 404, 409, 422, 502, 503),
)
async def start_sync(
    starter: SyncStarterDep,
    response: Response,
    actor: ActorDep,
    company_id: Id,
    body: schemas.StartSyncRequest,
    _params: NoQuery,
) -> schemas.SyncStarted:
    """Start a sync at Codat. 409 while a sync of the company is in progress.

    If Codat does not answer (502), the sync may have started. Repeat the request: within 85 minutes
    the same datasets are started only once.
    """
    dataset_ids = list(dict.fromkeys(str(dataset_id) for dataset_id in body.dataset_ids))
    sync_id = await starter.start(company_id, dataset_ids, actor=actor)
    response.headers["Location"] = f"/api/v1/syncs/{quote(sync_id, safe='')}"
    return schemas.SyncStarted(sync_id=sync_id)


@router.get(
    "/companies/{company_id}/config",
    summary="Get the sync configuration of a company",
    response_model=dict[str, Any],
    responses=documented(401, 404, 409, 422, 502, 503),
)
async def get_config(
    codat: CodatDep,
    calls: InteractiveCallsDep,
    company_id: Id,
    params: Annotated[ConfigParams, Query()],
) -> Response:
    """The configuration as Codat's API returns it now. It is not stored here."""
    config = await calls.run(codat.get_config(company_id))
    headers = {"Cache-Control": "private, no-store"}
    if params.download:
        name = _UNSAFE_IN_FILENAME.sub("_", company_id)[:MAX_FILENAME_LENGTH]
        headers["Content-Disposition"] = f'attachment; filename="codat-config-{name}.json"'
    body = json.dumps(config, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, media_type="application/json", headers=headers)
