"""A company's sync configuration, read from Codat while somebody waits for it."""

import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app.web.api.query_params import Nothing
from app.web.pages.query_params import asked
from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import SignedIn
from app.web.path_params import Id

LONGEST_NAME = 100

router = APIRouter(include_in_schema=False, route_class=PageRoute)


async def _config(request: Request, company_id: Id, _session: SignedIn) -> str:
    """The configuration as JSON, as Codat gives it now."""
    asked(request, Nothing)
    state = request.app.state
    told: dict[str, Any] = await state.asking.plainly(state.codat.get_config(company_id))
    return json.dumps(told, indent=2, ensure_ascii=False)


Config = Annotated[str, Depends(_config)]


@router.get("/companies/{company_id}/config")
def get_config(request: Request, company_id: Id, config: Config) -> Response:
    """The configuration to look at."""
    return page(request, "config.html", company_id=company_id, config=config)


@router.get("/companies/{company_id}/config.json")
def download_config(company_id: Id, config: Config) -> Response:
    """The configuration as a file."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", company_id)[:LONGEST_NAME]
    headers = {"Content-Disposition": f'attachment; filename="codat-config-{name}.json"'}
    body = config.encode("utf-8", "replace")
    return Response(body, media_type="application/json", headers=headers)
