"""An application of the reading doors alone, over a database the test fills."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from app.db.engine import Database
from app.settings import load_settings
from app.web import health, problems
from app.web.api import router as api
from app.web.codat_api import routes as mirror
from app.web.pages import router as pages
from app.worker.replay import Replayer
from app.worker.start_sync import Starter
from app.worker.user_calls import Asking
from tests.web.people import enter
from tests.web.shelf import BEARER, KEY, NOW, T0, Shelf
from tests.worker.test_start_sync import Codat


@pytest.fixture
def shelf(database: Database) -> Shelf:
    """Fills the database."""
    return Shelf(database)


@pytest.fixture
def app(database: Database) -> FastAPI:
    """The application; what is asked of Codat is noted in `state.asked`."""
    made = FastAPI(redirect_slashes=False)
    made.state.settings = load_settings(api_keys=f"another-key-as-long,{KEY}")
    made.state.database = database
    made.state.registry = CollectorRegistry()
    made.state.clock = lambda: NOW
    made.state.asked = []

    def owe(company_id: str | None, sync_id: str) -> bool:
        made.state.asked.append((company_id, sync_id))
        return True

    made.state.owe = owe
    made.state.codat = Codat()
    made.state.asking = Asking(database, lambda: T0)
    made.state.replayer = Replayer(database, lambda: T0, lambda: None)
    made.state.starter = Starter(database, made.state.codat, lambda: T0)
    for part in (problems, health, api, mirror, pages):
        part.install(made)
    return made


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A caller with a key."""
    with TestClient(app, headers=BEARER, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def person(app: FastAPI) -> Iterator[TestClient]:
    """Somebody with a browser who has not signed in yet."""
    with TestClient(app, raise_server_exceptions=False) as made:
        yield made


@pytest.fixture
def reader(person: TestClient) -> TestClient:
    """Somebody who is signed in."""
    enter(person)
    return person
