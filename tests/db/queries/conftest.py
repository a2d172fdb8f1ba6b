"""Queries, on both databases."""

import pytest

from app.db.engine import Database
from tests.web.store import Store


@pytest.fixture
def store(database: Database) -> Store:
    """Fills the database."""
    return Store(database)
