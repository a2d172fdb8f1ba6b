"""These tests run on SQLite: the queries are tested on both databases in `tests/db/queries`."""

import pytest


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """A migrated, empty database."""
    return sqlite_url
