"""Browsers. These tests run on SQLite: the queries are tested in `tests/db/queries`."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db import workers
from app.db.engine import Database
from tests.web.pages.html import sign_in
from tests.web.store import NOW, Store


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """A migrated, empty database."""
    return sqlite_url


@pytest.fixture
def store(database: Database) -> Store:
    """Fills the database; a worker is running."""
    with database.writing() as connection:
        workers.beat(connection, "w1", NOW)
    return Store(database)


@pytest.fixture
def visitor(app: FastAPI) -> Iterator[TestClient]:
    """A browser that is not signed in."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def user(visitor: TestClient) -> TestClient:
    """A browser that is signed in."""
    sign_in(visitor)
    return visitor
