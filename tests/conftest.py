"""Every database test runs on SQLite and on PostgreSQL, both brought up by the real migrations."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, make_url, text

from app.db.engine import Database, open_database
from app.db.migrations import migrate
from tests import databases
from tests.processes import Stage, stage

# A fresh clone first builds Hypothesis' tables of characters, and a busy machine is slow: neither
# says anything about the code.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")

BOTH = ("sqlite", "postgresql")
LONG = ("test_breakage.py", "test_chaos.py", "test_start.py", "test_openapi.py", "test_journeys.py")
TEMPLATE = "migrated"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no process is left with it while others are idle."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "migrated.db"
    database = open_database(f"sqlite:///{path}")
    migrate(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A PostgreSQL server for this run, with a migrated template database."""
    try:
        with databases.server() as address:
            _postgresql(address, f"CREATE DATABASE {TEMPLATE}")
            database = open_database(_renamed(address, TEMPLATE))
            migrate(database)
            database.close()
            yield address
    except databases.NoPostgreSQL as error:
        if os.environ.get("ALLOW_NO_POSTGRESQL") == "1":
            pytest.skip(str(error))
        raise


def _renamed(address: str, name: str) -> str:
    return make_url(address).set(database=name).render_as_string(hide_password=False)


def _postgresql(address: str, statement: str) -> None:
    engine = create_engine(make_url(address).set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    engine.dispose()


def _new_database(server: str, name: str, template: str) -> Iterator[str]:
    _postgresql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _renamed(server, name)
    _postgresql(server, f"DROP DATABASE {name} WITH (FORCE)")


_numbers = iter(range(1, 1_000_000))


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a migrated, empty database; the test runs once on each kind."""
    if request.param == "sqlite":
        path = tmp_path / "syncs.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgresql_server")
    yield from _new_database(server, f"test_{next(_numbers)}", TEMPLATE)


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database that was never migrated."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server = request.getfixturevalue("postgresql_server")
    yield from _new_database(server, f"empty_{next(_numbers)}", "template1")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database."""
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def playing(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """Room for processes, on a migrated, empty database."""
    with stage(tmp_path, database_url) as found:
        yield found
