"""All routes but the webhook endpoint, over a database that a test fills."""

from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from app.db.engine import Database
from app.domain.checks import Misconfiguration
from app.settings import load_settings
from app.web import health, problems
from app.web.api import router as api
from app.web.codat_api import routes as codat_api
from app.web.metrics import Metrics
from app.web.pages import router as pages
from app.web.pages.sign_in import Throttle
from tests.web.store import BEARER, KEY, NOW, T0, Store

T = TypeVar("T")


@dataclass
class FakeCodat:
    """Returns this configuration, or raises this error."""

    config: dict[str, Any] = field(default_factory=lambda: {"bankAccount": {"id": "32"}})
    error: Exception | None = None
    sync_id: str | None = None
    calls: int = 0
    findings: list[Misconfiguration] = field(default_factory=list)

    async def get_config(self, company_id: str) -> dict[str, Any]:
        self.calls += 1
        if self.error:
            raise self.error
        return self.config

    async def check(self) -> list[Misconfiguration]:
        return self.findings

    async def start(self, company_id: str, dataset_ids: list[str], *, actor: str | None) -> str:
        self.calls += 1
        if self.error:
            raise self.error
        return self.sync_id or f"sync/{len(dataset_ids)}"


class DirectCalls:
    """Makes calls without the rate-limit pause of the real one."""

    async def run(self, call: Awaitable[T]) -> T:
        return await call


@pytest.fixture
def store(database: Database) -> Store:
    """Fills the database."""
    return Store(database)


@pytest.fixture(scope="session")
def application() -> FastAPI:
    """One application for all tests: to make it takes longer than most tests."""
    made = FastAPI(redirect_slashes=False, version="1.2.3")
    made.state.clock = lambda: NOW
    made.state.database = None
    for part in (problems, health, api, codat_api, pages):
        part.install(made)
    return made


@pytest.fixture
def app(application: FastAPI, database: Database) -> FastAPI:
    """The application with state of its own. `state.wakes` counts how often the worker is woken."""
    state = application.state
    state.settings = load_settings(api_keys=f"another-key-as-long,{KEY}")
    state.database = database
    state.metrics = Metrics(CollectorRegistry(), secrets=2, version="1.2.3")
    state.started_at = T0
    state.wakes = []
    state.wake_worker = lambda: state.wakes.append(None)
    state.codat = FakeCodat()
    state.sync_starter = state.codat
    state.interactive_calls = DirectCalls()
    state.check_codat = state.codat.check
    state.is_stopping = lambda: False
    state.sign_in_throttle = Throttle(lambda: 0.0)
    state.readiness_probe = health.ReadinessProbe(database, lambda: NOW)
    return application


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A caller with a key."""
    with TestClient(app, headers=BEARER, raise_server_exceptions=False) as made:
        yield made
