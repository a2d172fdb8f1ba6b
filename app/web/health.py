"""The platform's door: is the process alive, can it serve, what does it count. No key needed.

No answer here says more than an orchestrator must know: no address, no user, no message of the
database.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel
from sqlalchemy import Connection

from app.db import migrations as schema
from app.db.engine import Database
from app.db.queries import events as queries_events
from app.errors import SchemaError, StorageUnavailable

STALE_AFTER = timedelta(seconds=60)
SCHEMA_TRUSTED_S = 60.0
ANSWER_WITHIN_S = 3.0
OK = "ok"
_BROKEN = "the database cannot be reached"
_HANGS = "the database does not answer"
_NOT_ASKED = "not asked: the database cannot be reached"


class Alive(BaseModel):
    """The process answers."""

    status: str = OK


class Readiness(BaseModel):
    """Whether requests can be served, and of each check `ok` or what is wrong."""

    ready: bool
    checks: dict[str, str]


class Checks:
    """The checks of one process. The schema's version is asked for once a minute while it is right.

    To compare it means to read the migrations from disk, which a probe every second must not do.
    """

    def __init__(self, now: Callable[[], datetime], ticks: Callable[[], float]) -> None:
        """Tell the time by `now` (aware, UTC), and measure spans by `ticks` (seconds)."""
        self._now = now
        self._ticks = ticks
        self._schema_until = float("-inf")
        self._asking: asyncio.Future[Readiness] | None = None

    async def ask(self, database: Database) -> Readiness:
        """What `run` says, or "not ready" when that takes too long: a frozen database.

        Probes share one question, so that a database that hangs holds one thread and no more.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(asyncio.to_thread(self.run, database))
        asking = self._asking
        answered, _ = await asyncio.wait({asking}, timeout=ANSWER_WITHIN_S)
        return asking.result() if answered else _not_ready(_HANGS)

    def run(self, database: Database) -> Readiness:
        """Ask the database, the schema and the worker. Never raises for what it looks for."""
        try:
            with database.reading() as connection:
                queries_events.answers(connection)
                checks = {"database": OK, "schema": self._schema(connection)}
                checks["worker"] = self._worker(connection, checks["schema"])
        except StorageUnavailable:
            return _not_ready(_BROKEN)
        return Readiness(ready=set(checks.values()) == {OK}, checks=checks)

    def _schema(self, connection: Connection) -> str:
        if self._ticks() < self._schema_until:
            return OK
        try:
            schema.check(connection)
        except SchemaError as error:
            return str(error)
        self._schema_until = self._ticks() + SCHEMA_TRUSTED_S
        return OK

    def _worker(self, connection: Connection, of_schema: str) -> str:
        if of_schema != OK:
            return "not asked: the schema is not right"
        seen = queries_events.last_heartbeat(connection)
        if seen is None:
            return "no worker has been seen"
        silent = self._now() - seen
        if silent > STALE_AFTER:
            return f"no worker has been seen for {int(silent.total_seconds())} s"
        return OK


def _not_ready(reason: str) -> Readiness:
    checks = {"database": reason, "schema": _NOT_ASKED, "worker": _NOT_ASKED}
    return Readiness(ready=False, checks=checks)


router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive?")
async def livez() -> Alive:
    """200 as long as the process answers; looks at nothing else."""
    return Alive()


@router.get(
    "/readyz",
    summary="Can requests be served?",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "not ready; `checks` says why"}},
)
async def readyz(request: Request) -> Response:
    """200 when the database answers, its schema is right and a worker lives; else 503."""
    checks: Checks = request.app.state.checks
    found = await checks.ask(request.app.state.database)
    headers = {"Cache-Control": "no-store"}
    return JSONResponse(found.model_dump(), 200 if found.ready else 503, headers)


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(request: Request) -> Response:
    """What the service has counted since it began; asks the database nothing."""
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def install(app: FastAPI) -> None:
    """Add `/livez`, `/readyz` and `/metrics` to the application."""
    app.state.checks = Checks(lambda: datetime.now(UTC), time.monotonic)
    app.include_router(router)
