"""Our services' door, webhook secrets: which of them is in use, never what it is."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from prometheus_client import CollectorRegistry, Gauge
from pydantic import BaseModel, Field

from app.web.counted import counted_by_all
from app.web.filters import Nothing
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
    last_used: LastUsed = request.app.state.last_used
    uses = [SecretUse(index=index, last_used_at=at) for index, at in enumerate(last_used.told())]
    return SecretUses(items=uses, since=request.app.state.since)


class LastUsed:
    """When a delivery last matched each secret, by any process that serves this address."""

    _NAME = "webhook_secret_last_used_timestamp_seconds"

    def __init__(self, secrets: int, registry: CollectorRegistry) -> None:
        """As a gauge too, so that `/metrics` shows it."""
        gauge = Gauge(
            self._NAME,
            "When a delivery last matched the secret at this place; 0 is not since the start.",
            ["index"],
            registry=registry,
            multiprocess_mode="max",
        )
        self._registry = registry
        self._each = [gauge.labels(str(index)) for index in range(secrets)]

    def note(self, index: int, at: datetime) -> None:
        """A delivery matched the secret at this place."""
        self._each[index].set(at.timestamp())

    def told(self) -> list[datetime | None]:
        """In the order of the setting; None is not since the start."""
        everywhere = counted_by_all(self._registry)
        seen = [
            everywhere.get_sample_value(self._NAME, {"index": str(index)})
            for index in range(len(self._each))
        ]
        return [datetime.fromtimestamp(at, UTC) if at else None for at in seen]


def count(app: FastAPI, secrets: int, since: datetime) -> LastUsed:
    """Give the application what the call shows."""
    last_used = LastUsed(secrets, app.state.registry)
    app.state.last_used = last_used
    app.state.since = since
    return last_used
