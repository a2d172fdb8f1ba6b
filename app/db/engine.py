"""The engine, and everything that differs by database.

SQLite: write-ahead log, full sync (a committed event survives a power cut), writers take the lock
when they begin (`BEGIN IMMEDIATE`) so that none fails half-way. PostgreSQL: psycopg 3.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.domain.causes.classifier import Rules
from app.domain.causes.loader import shipped
from app.domain.outgoing import NOBODY, Recipients
from app.errors import SettingsError, StorageAway, StorageRefused, StorageUnavailable

BUSY_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000
RENEWED_AFTER_S = 3600  # SQLite's connections, which learn of new statistics when they are opened
RESTED_S = 0.5  # so long unused, a connection is asked whether it is still there
# Our questions read few rows by an index. To compile them or to share them among processes costs
# more than it gains, and pages read here and there cost little more than pages read in a row.
_SESSION = (
    f"statement_timeout={STATEMENT_TIMEOUT_MS}",
    "timezone=UTC",
    r"default_transaction_isolation=read\ committed",
    "jit=off",
    "max_parallel_workers_per_gather=0",
    "random_page_cost=1.1",
)
# A batch touches pages all over the indexes. With SQLite's own small cache and small log it would
# read most of them anew, and write each back after nearly every commit.
_PRAGMAS = ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "wal_autocheckpoint=8000")
_REFUSALS = (DataError, IntegrityError, ProgrammingError)
_REFUSED = "54"  # SQLSTATE class: a value is larger than a limit, such as an index row's
_CONFLICT = "40"  # SQLSTATE class: deadlock, serialization: the same work may succeed now
# A server that is gone without a word (no RST) is noticed within about half a minute.
_LIVELINESS = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Database:
    """One database. `reading` and `writing` give a connection inside a transaction.

    `writing` commits when its block ends well and rolls back otherwise. Both raise
    StorageUnavailable when the database is away, locked for too long, or refuses the work.
    """

    def __init__(self, engine: Engine, rules: Rules, recipients: Recipients = NOBODY) -> None:
        self.engine = engine
        self.rules = rules
        self.recipients = recipients
        engine.update_execution_options(cause_rules=rules, recipients=recipients)
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._one_writer = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection whose reads see one state of the database."""
        with _as_unavailable(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection whose writes are all kept or all forgotten."""
        with _as_unavailable(), self._turn(), self.engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """SQLite has one writer: threads of this process queue here, fairly, not in its lock."""
        if not self.is_sqlite:
            yield
            return
        if not self._one_writer.acquire(timeout=BUSY_TIMEOUT_S):
            raise StorageAway("the database cannot do this now: another writer does not end")
        try:
            yield
        finally:
            self._one_writer.release()

    def in_loop(self, pool_size: int) -> "Database":
        """The same PostgreSQL, to be used from an event loop's own thread by `greenlet_spawn`.

        The same code runs, and the loop goes on whenever it waits for the database. One loop only.
        """
        from sqlalchemy.ext.asyncio import create_async_engine

        options = _postgresql_options(pool_size) | {"pool_pre_ping": False}
        engine = create_async_engine(self.engine.url, **options).sync_engine
        _ping_what_rested(engine)
        return Database(engine, self.rules, self.recipients)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        first_line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise _kind(error)(f"the database cannot do this now: {first_line}") from error


def _kind(error: DBAPIError | PoolTimeout) -> type[StorageUnavailable]:
    """These values, this moment, or the database as a whole: by SQLSTATE where there is one."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    if isinstance(error, _REFUSALS) or state.startswith(_REFUSED):
        return StorageRefused
    return StorageUnavailable if state.startswith(_CONFLICT) else StorageAway


def open_database(
    url: str,
    *,
    pool_size: int = 12,
    rules: Rules | None = None,
    recipients: Recipients = NOBODY,
) -> Database:
    """The database at `url` (`sqlite:///…`, `postgresql://…`). Connects only when first used.

    Failures are kept with the cause that the rules say; without any, those of this service.
    `recipients` are those to whom its transactions owe news of what they change. Raises
    SettingsError for an address that cannot be read, and does not show it.
    """
    address = _with_driver(_address(url))
    make = _sqlite_engine if address.get_backend_name() == "sqlite" else _postgresql_engine
    return Database(make(address, pool_size), rules or shipped(), recipients)


def rules_of(connection: Connection) -> Rules:
    """The rules of causes that the connection's database was opened with."""
    rules: Rules = connection.get_execution_options()["cause_rules"]
    return rules


def sqlite_file(url: str) -> Path | None:
    """The absolute path of SQLite's file; None for another database, or one in memory."""
    address = _address(url)
    if address.get_backend_name() != "sqlite" or address.database in (None, "", ":memory:"):
        return None
    return Path(str(address.database)).resolve()


def _address(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError("DATABASE_URL: cannot be read as an address") from None


def _with_driver(address: URL) -> URL:
    plain = address.drivername in ("postgresql", "postgres")
    return address.set(drivername="postgresql+psycopg") if plain else address


def _postgresql_engine(address: URL, pool_size: int) -> Engine:
    return create_engine(address, **_postgresql_options(pool_size))


def _postgresql_options(pool_size: int) -> dict[str, Any]:
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": CONNECT_TIMEOUT_S,
        "pool_use_lifo": True,  # the connection used last has its caches warm
        "pool_pre_ping": True,
        "hide_parameters": True,  # an error's text must not carry a webhook's body into the log
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            **_LIVELINESS,
            "options": " ".join(f"-c {setting}" for setting in _SESSION),
        },
    }


def _ping_what_rested(engine: Engine) -> None:
    """As `pool_pre_ping`, but not for a connection that was alive a moment ago.

    In a burst a ping before each commit would be one of six ways to the database and back. When it
    went in that very moment, the commit fails and Codat comes again.
    """

    def look(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used", -math.inf) < RESTED_S:
            return
        if not _answers(engine, connection):
            raise DisconnectionError

    def note(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    event.listen(engine, "checkout", look)
    event.listen(engine, "checkin", note)


def _answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error:
        return False


def _sqlite_engine(address: URL, pool_size: int) -> Engine:
    if address.database and address.database != ":memory:":
        _make_folder(Path(address.database).parent)
    engine = create_engine(
        address,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_use_lifo=True,  # the connection used last has its caches warm
        pool_recycle=RENEWED_AFTER_S,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"DATABASE_URL: its folder cannot be made: {error.strerror}"
        ) from error


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    _use_write_ahead_log(connection)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _use_write_ahead_log(connection: Any) -> None:
    """Once per file; while somebody else is at it, SQLite says "locked" without waiting."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say ON CONFLICT, which both databases spell alike."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)
