"""Our services' door, webhook secrets: which of them is in use, never what it is."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from app.web.api.query_params import Nothing
from app.web.metrics import Counted
from app.web.problems import documented

router = APIRouter(tags=["events"])


class SecretUse(BaseModel):
    """One of `CODAT_WEBHOOK_SECRETS`, by its place, and its last use."""

    index: int = Field(description="its place in the setting, from 0")
    last_used_at: datetime | None = Field(description="when a delivery last matched it")


class SecretUses(BaseModel):
    """All of them, as this service has seen them since it began."""

    items: list[SecretUse]
    next: None = None
    since: datetime = Field(description="when the service began; it knows of nothing before")


@router.get(
    "/webhook-secrets",
    summary="Which webhook secret was used last",
    responses=documented(401, 422),
)
async def list_secret_uses(request: Request, _query: Annotated[Nothing, Query()]) -> SecretUses:
    """While a secret is rotated: the old one may go once Codat has long signed with the new one."""
    counted: Counted = request.app.state.counted
    uses = [SecretUse(index=index, last_used_at=at) for index, at in enumerate(counted.last_used())]
    return SecretUses(items=uses, since=request.app.state.since)
