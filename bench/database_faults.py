"""Database faults as context managers: the fault lasts as long as the block.

They take the service's process and the address of its database.
"""

import os
import pwd
import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests import databases
from tests.processes import Process

Fault = Callable[[Process, str], AbstractContextManager[None]]


def _address(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


class _Server:
    """The PostgreSQL server of this database, which must run on this machine."""

    def __init__(self, url: str) -> None:
        self._url = _address(url)
        with psycopg.connect(self._url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row
        self._data = Path(row[0])
        options = (self._data / "postmaster.opts").read_text().split()
        self._pg_ctl = Path(options[0]).with_name("pg_ctl")

    def control(self, *arguments: str) -> None:
        """Run `pg_ctl` as the user who owns the server's files."""
        owner = None if os.geteuid() else pwd.getpwuid(self._data.stat().st_uid)
        log = self._data.parent / "log"
        databases.run(owner, self._pg_ctl, "-D", self._data, "-w", "-l", log, *arguments)

    def execute(self, *statements: str) -> None:
        """Run statements that each commit by themselves, also on a read-only server."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                connection.execute(statement.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its children."""
        pid = (self._data / "postmaster.pid").read_text().split()[0]
        command = ["ps", "--ppid", pid, "-o", "pid="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for process in (pid, *listed.split()):
            with suppress(ProcessLookupError):
                os.kill(int(process), number)


@contextmanager
def down(_process: Process, url: str) -> Iterator[None]:
    """The server is shut down as by a crash."""
    server = _Server(url)
    server.control("-m", "immediate", "stop")
    try:
        yield
    finally:
        server.control("restart")


@contextmanager
def frozen(_process: Process, url: str) -> Iterator[None]:
    """Every process of the server is stopped: connections stay open and nothing answers."""
    server = _Server(url)
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@contextmanager
def read_only(_process: Process, url: str) -> Iterator[None]:
    """The server accepts no writes, as hosted ones do when their disk is full."""
    server = _Server(url)
    reload = "SELECT pg_reload_conf()"
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on", reload)
    try:
        yield
    finally:
        server.execute("ALTER SYSTEM RESET default_transaction_read_only", reload)


@contextmanager
def locked(_process: Process, url: str) -> Iterator[None]:
    """Another session holds an exclusive lock on the events."""
    with psycopg.connect(_address(url)) as connection:
        connection.execute("LOCK TABLE webhook_events IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


@contextmanager
def sqlite_locked(_process: Process, url: str) -> Iterator[None]:
    """Another process is in a write transaction that does not end."""
    holder = sqlite3.connect(str(make_url(url).database), timeout=60, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
    finally:
        holder.close()


@contextmanager
def sqlite_full(process: Process, _url: str) -> Iterator[None]:
    """No file of the service can grow."""
    pid, kind = process.popen.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind, (4096, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have ended meanwhile
            resource.prlimit(pid, kind, before)


FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "postgresql": {"down": down, "read_only": read_only, "locked": locked, "frozen": frozen},
    "sqlite": {"locked": sqlite_locked, "full": sqlite_full},
}
UNREADY = {"down", "frozen", "read_only"}
"""Faults in which the server cannot be read or written, so that `/readyz` must be 503."""
