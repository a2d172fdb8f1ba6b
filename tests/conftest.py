"""Databases for the tests, SQLite and PostgreSQL, both brought up by the real migrations.

All tests of one process share a database of each kind, which is emptied after each test: making a
new one would take longer than most tests. A test that changes the schema (`own_database`) or starts
processes (`stage`), which may still write when it has ended, gets a database of its own.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, make_url, text

from app.db.engine import Database, open_database
from app.db.migrations import head, migrate
from app.db.tables import metadata
from app.domain.causes.loader import load_builtin
from tests import databases, processes
from tests.processes import Stage

# A fresh clone first builds Hypothesis' tables of characters, and a busy machine is slow: neither
# is a defect.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")

for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]  # all that the tests talk to is on this machine

KINDS = ("sqlite", "postgresql")
SLOW = ("test_proxy.py", "test_outage.py", "test_chaos.py", "test_openapi.py", "test_journeys.py")
TEMPLATE = "migrated"
EMPTY = [
    *(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)),
    f"UPDATE alembic_version SET version_num = '{head()}'",
]
NewDatabase = Callable[[str], AbstractContextManager[str]]

_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Register our marker."""
    config.addinivalue_line("markers", "own_database: the test gets databases of its own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start slow files first, so that no process is left with them while the others are idle."""
    items.sort(key=lambda item: item.path.name not in SLOW)


class SharedDatabase:
    """A migrated database that tests use one after the other."""

    def __init__(self, new: Callable[[], AbstractContextManager[str]]) -> None:
        self._new = new
        self._stack = ExitStack()
        self._create()

    def _create(self) -> None:
        self.url = self._stack.enter_context(self._new())
        self._engine = open_database(self.url).engine
        self._stack.callback(self._engine.dispose)

    def open(self) -> Database:
        """Open it, reusing connections and compiled statements."""
        return Database(self._engine, load_builtin())

    def empty(self) -> None:
        """Delete all rows. Fails when a test has left a connection open or changed the schema."""
        try:
            assert self._engine.pool.checkedout() == 0, "a connection was not returned"  # type: ignore[attr-defined]
            with self.open().writing() as connection:
                for statement in EMPTY if self.url.startswith("sqlite") else ["; ".join(EMPTY)]:
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        except BaseException:
            self._create()  # for the tests that follow
            raise

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def databases_folder() -> Iterator[Path]:
    """A folder for SQLite files, in memory where there is room."""
    with tempfile.TemporaryDirectory(prefix="tests-", dir=databases.temporary_folder()) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def sqlite_template(databases_folder: Path) -> Path:
    """A migrated SQLite file, to be copied."""
    path = databases_folder / "migrated.db"
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
            _execute(address, f"CREATE DATABASE {TEMPLATE}")
            database = open_database(_with_name(address, TEMPLATE))
            migrate(database)
            database.close()
            yield address
    except databases.NoPostgreSQL as error:
        if os.environ.get("ALLOW_NO_POSTGRESQL") == "1":
            pytest.skip(str(error))
        raise


def _with_name(address: str, name: str) -> str:
    return make_url(address).set(database=name).render_as_string(hide_password=False)


def _execute(address: str, statement: str) -> None:
    engine = create_engine(make_url(address).set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> NewDatabase:
    """Makes a migrated, empty database of a kind, for fixtures that outlive a test."""

    def new(kind: str) -> AbstractContextManager[str]:
        if kind == "sqlite":
            return _new_sqlite(request.getfixturevalue("sqlite_template"))
        return _new_postgresql(request.getfixturevalue("postgresql_server"))

    return new


@contextmanager
def _new_postgresql(server: str, template: str = TEMPLATE) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _with_name(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _new_sqlite(template: Path) -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(dir=template.parent))
    yield f"sqlite:///{shutil.copy(template, folder / 'syncs.db')}"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared_sqlite(sqlite_template: Path) -> Iterator[SharedDatabase]:
    """The SQLite database that tests share."""
    shared = SharedDatabase(lambda: _new_sqlite(sqlite_template))
    yield shared
    shared.close()


@pytest.fixture(scope="session")
def shared_postgresql(postgresql_server: str) -> Iterator[SharedDatabase]:
    """The PostgreSQL database that tests share."""
    shared = SharedDatabase(lambda: _new_postgresql(postgresql_server))
    yield shared
    shared.close()


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a migrated, empty SQLite database."""
    yield from _use(request, "sqlite")


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a migrated, empty PostgreSQL database."""
    yield from _use(request, "postgresql")


def _use(request: pytest.FixtureRequest, kind: str) -> Iterator[str]:
    """A database for one test: the shared one, which is emptied afterwards, or its own."""
    if request.node.get_closest_marker("own_database") or "stage" in request.fixturenames:
        with request.getfixturevalue("new_database")(kind) as url:
            yield url
        return
    shared: SharedDatabase = request.getfixturevalue(f"shared_{kind}")
    yield shared.url
    shared.empty()


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of a migrated, empty database; the test runs once on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=KINDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database that was never migrated."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    yield request.getfixturevalue("empty_postgresql_url")


@pytest.fixture
def empty_postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The address of a PostgreSQL database that was never migrated."""
    with _new_postgresql(postgresql_server, "template1") as url:
        yield url


@pytest.fixture
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    """A migrated, empty database."""
    kind = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    shared: SharedDatabase = request.getfixturevalue(f"shared_{kind}")
    if shared.url == database_url:
        yield shared.open()
        return
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Undoes what `app.logging.configure` changes in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """A folder and a migrated, empty database, on which processes can be started."""
    with processes.stage(tmp_path, database_url) as found:
        yield found
