"""What can happen to a database while we use it, as blocks: broken inside, mended after them."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests.processes import Process


def _address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


class Server:
    """A PostgreSQL server of ours, known by the address of one of its databases."""

    def __init__(self, url: str) -> None:
        self._url = _address(url)
        with psycopg.connect(self._url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row
        self._data = Path(row[0])
        told = (self._data / "postmaster.opts").read_text().split()
        self._pg_ctl = Path(told[0]).with_name("pg_ctl")

    def control(self, *arguments: str) -> None:
        """`pg_ctl …` as the user whom the server's files belong to."""
        owner = self._data.stat()
        identity = {} if os.geteuid() else {"user": owner[stat.ST_UID], "group": owner[stat.ST_GID],
                                            "extra_groups": []}  # fmt: skip
        subprocess.run(
            [self._pg_ctl, "-D", self._data, "-w", "-l", self._data.parent / "log", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            **identity,  # type: ignore[call-overload]  # the three go together
        )

    def say(self, statement: str) -> None:
        """One statement, committed by itself."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def signal(self, number: signal.Signals) -> None:
        """A signal to the server and everything it has started."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        listed = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        pairs = [line.split() for line in listed.splitlines()]
        for each in (pid, *(int(child) for child, parent in pairs if int(parent) == pid)):
            os.kill(each, number)


def durable(url: str) -> None:
    """Let this database promise what a real one does; servers for tests do not wait for a flush."""
    address = _address(url)
    name = psycopg.conninfo.conninfo_to_dict(address)["dbname"]
    Server(url).say(f'ALTER DATABASE "{name}" SET synchronous_commit = on')


@contextmanager
def gone(url: str) -> Iterator[None]:
    """The server is shut down without a word."""
    server = Server(url)
    server.control("-m", "immediate", "stop")
    try:
        yield
    finally:
        server.control("restart")


@contextmanager
def restarted(url: str) -> Iterator[None]:
    """The server is restarted twice, as in an upgrade."""
    server = Server(url)
    for _ in range(2):
        server.control("-m", "fast", "restart")
        time.sleep(1)
    yield


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """Every process of the server is stopped; its connections stay open and nobody answers."""
    server = Server(url)
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@contextmanager
def full(url: str) -> Iterator[None]:
    """The server takes no writes: so hosted ones behave when their disk is full."""
    server = Server(url)
    server.say("ALTER SYSTEM SET default_transaction_read_only = on")
    server.say("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        with psycopg.connect(_address(url), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody holds the lock of the events."""
    with psycopg.connect(_address(url)) as connection:
        connection.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


@contextmanager
def slow(url: str) -> Iterator[None]:
    """Every statement that keeps an event takes its time."""
    server = Server(url)
    server.say(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END $$"
    )
    server.say("CREATE TRIGGER slowly AFTER INSERT ON events EXECUTE FUNCTION slowly()")
    try:
        yield
    finally:
        server.say("DROP FUNCTION slowly CASCADE")


def _file(url: str) -> str:
    return str(make_url(url).database)


@contextmanager
def sqlite_locked(url: str) -> Iterator[None]:
    """Another process writes, and does not come to an end."""
    holder = sqlite3.connect(_file(url), timeout=60, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
    finally:
        holder.close()


@contextmanager
def sqlite_slow(url: str) -> Iterator[None]:
    """Another process writes most of the time."""
    over = threading.Event()

    def hold() -> None:
        holder = sqlite3.connect(_file(url), timeout=60, isolation_level=None)
        while not over.is_set():
            holder.execute("BEGIN IMMEDIATE")
            time.sleep(0.4)
            holder.execute("ROLLBACK")
            time.sleep(0.1)
        holder.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def sqlite_full(process: Process) -> Iterator[None]:
    """No file of the service may grow any more."""
    pid, kind = process.popen.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind, (4096, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have ended meanwhile
            resource.prlimit(pid, kind, before)
