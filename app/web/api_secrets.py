"""Our services' door, webhook secrets: which of them is in use, never what it is."""

from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from prometheus_client import Gauge
from pydantic import BaseModel, Field

from app.codat.signature import Verifier
from app.web.filters import Nothing
from app.web.problems import documented

router = APIRouter(tags=["events"])


class SecretUse(BaseModel):
    """One of `CODAT_WEBHOOK_SECRETS`, by its place, and its last use."""

    index: int = Field(description="its place in the setting, from 0")
    last_used_at: datetime | None = Field(description="when a delivery last matched it")


class SecretUses(BaseModel):
    """All of them, as this process has seen them since it began."""

    items: list[SecretUse]
    next: None = None
    since: datetime = Field(description="when this process began; it knows of nothing before")


@router.get(
    "/webhook-secrets",
    summary="Which webhook secret was used last",
    responses=documented(401, 422),
)
async def list_secret_uses(request: Request, _query: Annotated[Nothing, Query()]) -> SecretUses:
    """While a secret is rotated: the old one may go once Codat has long signed with the new one."""
    verifier: Verifier = request.app.state.verifier
    uses = [SecretUse(index=index, last_used_at=at) for index, at in enumerate(verifier.last_used)]
    return SecretUses(items=uses, since=request.app.state.since)


def count(app: FastAPI, verifier: Verifier, since: datetime) -> None:
    """Give the application what the call shows, and the same to `/metrics`."""
    app.state.verifier = verifier
    app.state.since = since
    gauge = Gauge(
        "webhook_secret_last_used_timestamp_seconds",
        "When a delivery last matched the secret at this place; 0 is not since the start.",
        ["index"],
        registry=app.state.registry,
    )
    for index in range(len(verifier.last_used)):
        gauge.labels(str(index)).set_function(partial(_seconds, verifier, index))


def _seconds(verifier: Verifier, index: int) -> float:
    at = verifier.last_used[index]
    return at.timestamp() if at else 0.0
