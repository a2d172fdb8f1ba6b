"""Our services' door, the calls that wait for Codat: start a sync, read a configuration."""

import json
import re
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.web.api.query_params import Nothing
from app.web.path_params import Id, IdRoute
from app.web.problems import documented
from app.worker.start_sync import Starter
from app.worker.user_calls import Asking, HasConfigs

MOST_DATASETS = 500
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

router = APIRouter(tags=["companies"], route_class=IdRoute)


class StartOrder(BaseModel):
    """What a sync is to be started with."""

    model_config = ConfigDict(extra="forbid")

    dataset_ids: list[UUID] = Field(
        min_length=1,
        max_length=MOST_DATASETS,
        description="the datasets to push, as Codat named them",
    )


class Started(BaseModel):
    """A sync that Codat has just started."""

    sync_id: str


class ConfigQuery(Nothing):
    """In which form the configuration is wanted."""

    download: bool = Field(False, description="true: as a file to be saved")


async def _starter(request: Request) -> Starter:
    starter: Starter = request.app.state.starter
    return starter


async def _codat(request: Request) -> HasConfigs:
    codat: HasConfigs = request.app.state.codat
    return codat


async def _asking(request: Request) -> Asking:
    asking: Asking = request.app.state.asking
    return asking


@router.post(
    "/companies/{company_id}/syncs",
    summary="Start a sync at Codat",
    status_code=202,
    response_model=Started,
    responses=documented(400, 401, 404, 409, 422, 502, 503),
)
async def start_sync(
    starter: Annotated[Starter, Depends(_starter)],
    company_id: Id,
    order: StartOrder,
    _query: Annotated[Nothing, Query()],
) -> Response:
    """Start one and know it at once. 409 while one of the company is in progress.

    When Codat does not answer (502) the sync may have been started all the same: ask again. Within
    85 minutes the same datasets are then started once.
    """
    wanted = list(dict.fromkeys(str(each) for each in order.dataset_ids))
    sync_id = await starter.start(company_id, wanted)
    where = f"/api/v1/syncs/{quote(sync_id, safe='')}"
    return JSONResponse(Started(sync_id=sync_id).model_dump(), 202, {"Location": where})


@router.get(
    "/companies/{company_id}/config",
    summary="The company's sync configuration, read from Codat now",
    response_model=dict[str, Any],
    responses=documented(401, 404, 409, 422, 502, 503),
)
async def get_config(
    codat: Annotated[HasConfigs, Depends(_codat)],
    asking: Annotated[Asking, Depends(_asking)],
    company_id: Id,
    query: Annotated[ConfigQuery, Query()],
) -> Response:
    """As Codat gives it; nothing of it is kept. `?download=true` makes it a file."""
    told = await asking.plainly(codat.get_config(company_id))
    headers = {"Cache-Control": "private, no-store"}
    if query.download:
        name = _UNSAFE.sub("_", company_id)[:100]
        headers["Content-Disposition"] = f'attachment; filename="codat-config-{name}.json"'
    body = json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, media_type="application/json", headers=headers)
