"""The pages alone, over a database that the test fills.

These tests run on SQLite only: the queries are tested on both databases in `tests/db/queries`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db import workers
from app.db.engine import Database
from app.web import problems
from app.web.pages import router as pages
from app.web.pages.sign_in import Throttle
from tests.web.pages.html import sign_in
from tests.web.store import NOW, Store


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'syncs.db')}"


@pytest.fixture
def store(database: Database) -> Store:
    """Fills the database; a worker is running."""
    with database.writing() as connection:
        workers.beat(connection, "w1", NOW)
    return Store(database)


@pytest.fixture(scope="session")
def application() -> FastAPI:
    made = FastAPI(redirect_slashes=False, version="1.2.3")
    made.state.clock = lambda: NOW
    problems.install(made)
    pages.install(made)
    return made


@pytest.fixture
def visitor(app: FastAPI) -> Iterator[TestClient]:
    """A browser that is not signed in."""
    app.state.sign_in_throttle = Throttle(lambda: 0.0)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def user(visitor: TestClient) -> TestClient:
    """A browser that is signed in."""
    sign_in(visitor)
    return visitor
