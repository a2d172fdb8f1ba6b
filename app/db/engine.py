"""The database engine, and everything that differs between SQLite and PostgreSQL.

SQLite: write-ahead log, full sync (a committed event survives a power cut); writers take the lock
when they begin (`BEGIN IMMEDIATE`), so that none fails half-way. PostgreSQL: psycopg 3, directly or
through a pooler, which may give each transaction another session.
"""

import os
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy  # engines are made by attributes of the module: `app.tracing` replaces these
from sqlalchemy import (
    Connection,
    Engine,
    Select,
    Table,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext import asyncio as async_sqlalchemy
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.selectable import CompoundSelect

from app.db.address import PostgresqlAddress, parse
from app.db.address import sqlite_file as sqlite_file
from app.domain.causes.classifier import Classifier
from app.domain.causes.loader import load_builtin
from app.errors import (
    DatabaseDown,
    DatabaseReadOnly,
    DatabaseRejected,
    DatabaseUnavailable,
    DatabaseUnusable,
)

_DRIVER = "postgresql+psycopg://"
BUSY_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000
IDLE_TRANSACTION_TIMEOUT_MS = 60_000  # a frozen worker must not hold its locks for longer
RESERVED_CONNECTIONS = 2  # for the heartbeat and the readiness probe, one thread each
SQLITE_RETRY_S = 0.001
SQLITE_PAUSE_S = 0.003  # at least two tries of another process
# The queries read few rows by an index: compiling them or sharing them among processes costs more
# than it gains, and on today's disks random reads cost little more than sequential ones.
_SESSION = (
    f"statement_timeout = {STATEMENT_TIMEOUT_MS}",
    f"idle_in_transaction_session_timeout = {IDLE_TRANSACTION_TIMEOUT_MS}",
    "timezone = 'UTC'",
    "jit = off",
    "max_parallel_workers_per_gather = 0",
    "random_page_cost = 1.1",
)
_SET = "; ".join(
    ["SET default_transaction_isolation = 'read committed'", *(f"SET {s}" for s in _SESSION)]
)
_BEGIN_POOLED = "; ".join(
    ["BEGIN ISOLATION LEVEL READ COMMITTED", *(f"SET LOCAL {s}" for s in _SESSION)]
)
# A batch touches pages all over the indexes; SQLite's default cache and log are too small for that.
# No ANALYZE: of the API's 191 statements it changes 4 plans and no time (50,000 syncs), because the
# queries choose their indexes themselves; and statistics of a small table mislead when it grows.
_PRAGMAS = ("synchronous=FULL", "foreign_keys=ON", "cache_size=-16000", "wal_autocheckpoint=8000")
_REJECTIONS = (DataError, IntegrityError, ProgrammingError)
_UNREACHABLE = ("connection ", "unable to open")  # how the drivers' texts begin
_LIMIT_EXCEEDED = "54"  # SQLSTATE class: a value exceeds a limit, such as that of an index row
# SQLSTATE class 40, deadlock and serialization, and a lock that is held: it may succeed now
_CONFLICT = ("40", "55P03")
_READ_ONLY = "25006"  # SQLSTATE: a write on a standby, or where default_transaction_read_only is on
# What must be configured differently, by a part of the error's text
_NO_OPTIONS = (
    "The pooler refuses `options`: remove options= and schema= from DATABASE_URL, and run "
    "ALTER ROLE … SET search_path = … in the database."
)
_IS_READ_ONLY = (
    "The database is read-only: it is a standby, or default_transaction_read_only is on. "
    "Connect to the primary, as with target_session_attrs=read-write."
)
_SQLITE_VOLUME = "The folder of DATABASE_URL must be writable: mount a volume there."
_ADVICE = {
    "unable to open database file": _SQLITE_VOLUME,
    "readonly database": _SQLITE_VOLUME,
    "startup parameter: options": _NO_OPTIONS,
    "command-line options": _NO_OPTIONS,  # Amazon RDS Proxy
    "statement pooling mode": "Set the pooler's pool_mode to transaction or session.",
    "permission denied for schema": (
        "Since PostgreSQL 15 only its owner may create tables in `public`. "
        "As the owner run GRANT USAGE, CREATE ON SCHEMA … TO …, or make the role the owner."
    ),
    "no schema has been selected": (
        "The schema of the role's search_path does not exist. Run CREATE SCHEMA … first."
    ),
}
# A server that vanishes without a word (no RST) is noticed within about half a minute.
_KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

Row = TypeVar("Row")


class Database:
    """One database. `reading` and `writing` give a connection inside a transaction.

    With `priority` they wait neither for a connection that queries hold nor, on SQLite, behind
    other writers; it is for the webhook endpoint, the heartbeat and the readiness probe.
    `classifier` is what its writers apply: why transactions failed.
    """

    def __init__(
        self,
        engine: Engine,
        classifier: Classifier,
        *,
        reserved: Engine | None = None,
    ) -> None:
        """`reserved` is an engine with connections for `priority`."""
        self.engine = engine
        self.classifier = classifier
        self._reserved = reserved or engine
        for connections in (engine, self._reserved):
            connections.update_execution_options(classifier=classifier)
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._sqlite_writer = _SqliteWriterLock()

    @contextmanager
    def reading(self, *, priority: bool = False) -> Iterator[Connection]:
        """A connection for reads. Raises DatabaseUnavailable."""
        with translate_errors(), self._engine(priority).connect() as connection:
            yield connection

    @contextmanager
    def writing(self, *, priority: bool = False) -> Iterator[Connection]:
        """A connection whose block is committed as a whole, or rolled back when it raises.

        Raises DatabaseUnavailable when the database is down, locked for too long, or rejects the
        values.
        """
        lock = self._sqlite_writer.hold(priority=priority) if self.is_sqlite else nullcontext()
        with translate_errors(), lock, self._engine(priority).connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    def _engine(self, priority: bool) -> Engine:
        return self._reserved if priority else self.engine

    def autocommit_async_engine(self) -> AsyncEngine:
        """An asyncio engine on the same PostgreSQL, in autocommit mode.

        Without a pool: its one user holds a connection, and closes it when it hangs.
        """
        address: PostgresqlAddress = self.engine.get_execution_options()["address"]
        engine = async_sqlalchemy.create_async_engine(
            _DRIVER, poolclass=NullPool, **_postgresql_options(address)
        )
        prepare = partial(_prepare_postgresql, address, in_transactions=False)
        event.listen(engine.sync_engine, "connect", prepare)
        return engine

    def close(self) -> None:
        """Return all connections."""
        self.engine.dispose()
        self._reserved.dispose()


class _SqliteWriterLock:
    """The writers of this process, one at a time, in the order in which they came.

    Waiting here is fair, which neither SQLite's own lock nor `threading.Lock` is. Between two
    writers is a pause, in which a writer of another process gets its turn.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._holder: object = None
        self._pause_until = 0.0

    @contextmanager
    def hold(self, *, priority: bool) -> Iterator[None]:
        """Hold the lock; with `priority`, be the next to get it. Raises DatabaseDown."""
        turn = object()
        with self._changed:
            if priority:
                self._waiting.appendleft(turn)
            else:
                self._waiting.append(turn)
            self._pass_on()
            if not self._changed.wait_for(lambda: self._holder is turn, BUSY_TIMEOUT_S):
                self._waiting.remove(turn)
                raise DatabaseDown("The database is busy: another writer does not finish")
        try:
            if not priority:
                time.sleep(max(0.0, self._pause_until - time.monotonic()))
            yield
        finally:
            self._pause_until = time.monotonic() + SQLITE_PAUSE_S
            with self._changed:
                self._holder = None
                self._pass_on()

    def _pass_on(self) -> None:
        """Give a free lock to the first in line: a writer that comes back does not overtake it."""
        if self._holder is None and self._waiting:
            self._holder = self._waiting.popleft()
            self._changed.notify_all()


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise the driver's errors as DatabaseUnavailable."""
    try:
        yield
    except (DBAPIError, PoolTimeout, sqlite3.Error, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise _translated(error, cause or error) from error


def _translated(error: Exception, cause: BaseException) -> DatabaseUnavailable:
    """Whether these values, this moment, the whole database or its configuration is the problem."""
    text = str(cause).strip() or type(cause).__name__
    first_line = text.splitlines()[0]
    is_unreachable = first_line.startswith(_UNREACHABLE)
    problem = "Cannot connect to the database" if is_unreachable else "The database failed"
    line = f"{problem}: {first_line}"
    state = getattr(cause, "sqlstate", None) or ""
    if state == _READ_ONLY:
        return DatabaseReadOnly(_IS_READ_ONLY)
    for fragment, advice in _ADVICE.items():
        if fragment in text:
            return DatabaseUnusable(f"{line}. {advice}")
    if isinstance(error, _REJECTIONS) or state.startswith(_LIMIT_EXCEEDED):
        return DatabaseRejected(line)
    return (DatabaseUnavailable if state.startswith(_CONFLICT) else DatabaseDown)(line)


def open_database(
    url: str,
    *,
    pool_size: int = 12,
    classifier: Classifier | None = None,
) -> Database:
    """The database at `url` (`sqlite:///…`, `postgresql://…`). Connects only when first used.

    Without a classifier the built-in one is used. Raises SettingsError for an address that cannot
    be read, and does not show it; DatabaseUnusable for an SQLite file that cannot be written.
    """
    address = parse(url)
    classifier = classifier or load_builtin()
    if not isinstance(address, PostgresqlAddress):
        return Database(_sqlite_engine(address, pool_size), classifier)
    return Database(
        _postgresql_engine(address, pool_size),
        classifier,
        reserved=_postgresql_engine(address, RESERVED_CONNECTIONS),
    )


def classifier_of(connection: Connection) -> Classifier:
    """The classifier that the connection's database was opened with."""
    classifier: Classifier = connection.get_execution_options()["classifier"]
    return classifier


def _postgresql_engine(address: PostgresqlAddress, pool_size: int) -> Engine:
    engine = sqlalchemy.create_engine(
        _DRIVER,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_use_lifo=True,  # the connection used last has its caches warm
        pool_pre_ping=True,
        execution_options={"address": address},
        **_postgresql_options(address),
    )
    event.listen(engine, "connect", partial(_prepare_postgresql, address, in_transactions=True))
    event.listen(engine, "begin", _begin_postgresql)
    event.listen(engine, "handle_error", _drop_read_only_connections)
    return engine


def _postgresql_options(address: PostgresqlAddress) -> dict[str, Any]:
    return {
        "hide_parameters": True,  # an error's text must not carry a webhook's body into the log
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            **_KEEPALIVE,
            **address.parameters,
            "client_encoding": "utf8",  # also where PGCLIENTENCODING says otherwise
        },
    }


def _prepare_postgresql(
    address: PostgresqlAddress, connection: Any, record: Any, *, in_transactions: bool
) -> None:
    """Configure a new connection, in ways that also work through a pooler.

    A pooler gives each transaction another session of the server: prepared statements of one are
    missing in the next, and settings would leak to its other clients. It refuses the start-up
    parameter `options`. It shows by a process id other than the one that it announced.
    """
    driver: psycopg.Connection = getattr(connection, "driver_connection", connection)
    encoding = driver.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseUnusable(
            f"The database's encoding is {encoding}; it must be UTF8. Create another one: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid(), current_setting('search_path')")
    process, search_path = cursor.fetchone()
    is_pooled = address.is_pooled or process != driver.info.backend_pid
    record.info["is_pooled"] = is_pooled
    if is_pooled:
        driver.prepare_threshold = None
        if address.search_path not in (None, re.sub(r'[" ]', "", search_path)):
            raise DatabaseUnusable(_NO_OPTIONS)
    else:
        cursor.execute(_SET)
        connection.autocommit = not in_transactions
    cursor.close()


def _begin_postgresql(connection: Connection) -> None:
    """Begin a transaction of a pooled connection, with what else is set once per session."""
    if connection.info["is_pooled"]:
        driver: Any = connection.connection.driver_connection
        driver.execute(_BEGIN_POOLED, prepare=False)


def _drop_read_only_connections(context: ExceptionContext) -> None:
    """After a switchover, connect again: the pool's connections lead to the demoted server."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def require_writable(connection: Connection) -> None:
    """Raise DatabaseReadOnly when the server accepts no writes; the next call connects again."""
    if connection.dialect.name == "sqlite":
        return
    if connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on":
        connection.invalidate()
        raise DatabaseReadOnly(_IS_READ_ONLY)


def _sqlite_engine(address: URL, pool_size: int) -> Engine:
    if address.database and address.database != ":memory:":
        _require_writable_file(Path(address.database).resolve())
    engine = sqlalchemy.create_engine(
        address,
        pool_size=pool_size,
        max_overflow=-1,  # a connection costs little: as many as there are threads
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _require_writable_file(file: Path) -> None:
    """Make the folder. Raises DatabaseUnusable where SQLite could not write beside its file."""
    problem = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            problem = "it is a folder"
        elif not os.access(file.parent, os.W_OK | os.X_OK):
            problem = f"the folder is not writable for user {os.getuid()}"
        elif file.exists() and not os.access(file, os.R_OK | os.W_OK):
            problem = f"the file is not writable for user {os.getuid()}"
    except OSError as error:
        problem = f"the folder cannot be used: {error.strerror}"
    if problem:
        raise DatabaseUnusable(
            f"DATABASE_URL: cannot write {file}: {problem}. Mount a writable volume at "
            f"{file.parent}, or use PostgreSQL."
        )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # BEGIN is explicit, see _begin_sqlite
    # Once per file; while another process does so, SQLite says "locked" without waiting.
    if _execute_when_free(connection, "PRAGMA journal_mode").fetchone()[0] != "wal":
        _execute_when_free(connection, "PRAGMA journal_mode=WAL")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction, with the write lock if it is to write.

    While another process writes, SQLite itself tries again after up to 100 ms; a process that
    writes all the time lets it in for moments only. So this tries every millisecond.
    """
    driver: Any = connection.connection.driver_connection
    if not connection.get_execution_options().get("writes", False):
        driver.execute("BEGIN")
        return
    driver.execute("PRAGMA busy_timeout=0")
    try:
        _execute_when_free(driver, "BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def _execute_when_free(connection: Any, statement: str) -> Any:
    """Execute a statement, again and again while another process holds the lock."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return connection.execute(statement)
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
        time.sleep(SQLITE_RETRY_S)


def insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say ON CONFLICT, which both databases spell alike."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def count_up_to(connection: Connection, limit: int, rows: Select[Any] | CompoundSelect[Any]) -> int:
    """How many rows a statement finds, at most `limit`: the cost does not grow with the table."""
    first = rows.limit(limit).subquery()
    return connection.execute(select(func.count()).select_from(first)).scalar_one()


def chunked(rows: Sequence[Row], size: int = 500) -> Iterator[Sequence[Row]]:
    """The rows in slices that stay under the databases' limit on bound values."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
