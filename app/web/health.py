"""Health endpoints: whether the process is alive, whether it can serve, and its metrics.

They need no key, so their answers contain no address, user or message of the database.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from app.db import migrations, workers
from app.db.engine import Database, require_writable
from app.errors import DatabaseReadOnly, DatabaseUnavailable, SchemaError
from app.web.dependencies import MetricsDep
from app.web.openapi import operation_id
from app.web.shared_call import SharedCall

STALE_AFTER = timedelta(seconds=60)
SCHEMA_CHECK_EVERY_S = 60.0
ANSWER_WITHIN_S = 3.0
OK = "ok"
_READ_ONLY = "the database is read-only"
_UNREACHABLE = "the database cannot be reached"
_HANGS = "the database does not answer"
_SKIPPED = "not checked"


class Liveness(BaseModel):
    """The process answers."""

    status: str = OK


class Readiness(BaseModel):
    """Whether requests can be served. Each check is `ok` or the reason for its failure."""

    ready: bool
    checks: dict[str, str]


class ReadinessProbe:
    """The checks of one process. The database must answer within ANSWER_WITHIN_S."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._schema_ok_until = float("-inf")
        self._check = SharedCall(self.check, ANSWER_WITHIN_S)

    async def __call__(self) -> Readiness:
        """Run the checks; concurrent probes share them."""
        try:
            return await self._check()
        except TimeoutError:
            return _not_ready(_HANGS)

    def check(self) -> Readiness:
        """Check the database, also for writing, the schema and the worker's heartbeat."""
        checks = {"database": OK, "schema": OK, "worker": OK}
        try:
            with self._database.reading(priority=True) as connection:
                require_writable(connection)
                if self._monotonic() >= self._schema_ok_until:
                    # at most once a minute: a probe runs every few seconds
                    migrations.check(connection)
                    self._schema_ok_until = self._monotonic() + SCHEMA_CHECK_EVERY_S
                checks["worker"] = self._worker_state(workers.last_seen(connection))
        except SchemaError as error:
            checks |= {"schema": str(error), "worker": _SKIPPED}
        except DatabaseReadOnly:
            return _not_ready(_READ_ONLY)
        except DatabaseUnavailable:
            return _not_ready(_UNREACHABLE)
        return Readiness(ready=set(checks.values()) == {OK}, checks=checks)

    def _worker_state(self, seen_at: datetime | None) -> str:
        if seen_at is None:
            return "no worker is running"
        silence = self._clock() - seen_at
        if silence > STALE_AFTER:
            return f"no worker has been seen for {int(silence.total_seconds())} s"
        return OK


def _not_ready(reason: str) -> Readiness:
    checks = {"database": reason, "schema": _SKIPPED, "worker": _SKIPPED}
    return Readiness(ready=False, checks=checks)


_STOPPING = Readiness(ready=False, checks={"server": "the server is stopping"})
router = APIRouter(tags=["Health"], generate_unique_id_function=operation_id)


@router.get("/livez", summary="Check that the process is alive")
async def livez() -> Liveness:
    """200 while the process answers. Checks nothing else."""
    return Liveness()


@router.get(
    "/readyz",
    summary="Check that requests can be served",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not ready. `checks` has the reason."}},
)
async def readyz(request: Request) -> Response:
    """200 if the database can be written, its schema is current and a worker is alive; else 503.

    Also 503 when the server is about to stop. Pending webhook events do not affect readiness.
    """
    probe: ReadinessProbe = request.app.state.readiness_probe
    is_stopping = request.app.state.is_stopping()
    readiness = _STOPPING if is_stopping else await probe()
    headers = {"Cache-Control": "no-store"}
    return JSONResponse(readiness.model_dump(), 200 if readiness.ready else 503, headers)


@router.get(
    "/metrics",
    summary="Get metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def get_metrics(metrics: MetricsDep) -> Response:
    """Counters of this process, and capped numbers from the database."""
    return Response(await metrics.render(), media_type=CONTENT_TYPE_LATEST)


def install(app: FastAPI) -> None:
    """Add the endpoints to the application."""
    app.state.readiness_probe = ReadinessProbe(app.state.database, app.state.clock)
    app.include_router(router)
