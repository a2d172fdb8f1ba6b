"""FastAPI dependencies: what `create_app` puts on `app.state`, with types.

The worker is a sibling of the web layer. What requests need of it is described by protocols here
and passed in by `app.bootstrap`.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Request

from app.codat.client import CodatClient
from app.db.engine import Database
from app.domain.checks import Misconfiguration
from app.settings import Settings
from app.web.metrics import Metrics

T = TypeVar("T")
Clock = Callable[[], datetime]
WakeWorker = Callable[[], None]


class SyncStarter(Protocol):
    """Starts syncs at Codat, one at a time per company."""

    async def start(self, company_id: str, dataset_ids: Sequence[str], *, actor: str | None) -> str:
        """Start a sync and return its id. Raises Conflict, BadRequest, NotFound, CodatError."""


class InteractiveCalls(Protocol):
    """Calls Codat while a caller waits."""

    async def run(self, call: Awaitable[T]) -> T:
        """Return the call's answer. Raises NotFound, Conflict, UpstreamRefused, CodatError."""


CodatCheck = Callable[[], Awaitable[list[Misconfiguration]]]
"""Asks Codat what is wrong with our key and our endpoint there."""


def _from_state(name: str) -> Any:
    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


DatabaseDep = Annotated[Database, _from_state("database")]
SettingsDep = Annotated[Settings, _from_state("settings")]
ClockDep = Annotated[Clock, _from_state("clock")]
MetricsDep = Annotated[Metrics, _from_state("metrics")]
WakeWorkerDep = Annotated[WakeWorker, _from_state("wake_worker")]
SyncStarterDep = Annotated[SyncStarter, _from_state("sync_starter")]
InteractiveCallsDep = Annotated[InteractiveCalls, _from_state("interactive_calls")]
CodatDep = Annotated[CodatClient, _from_state("codat")]
CodatCheckDep = Annotated[CodatCheck, _from_state("check_codat")]
