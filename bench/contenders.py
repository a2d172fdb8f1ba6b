"""Who is measured: each a process of its own, all alive at once, one loaded at a time."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import create_engine, make_url, text

from app.db.engine import open_database
from app.db.journal import work_off
from app.db.recount import recount
from tests import databases
from tests.processes import ROOT, SECRET, TLS, free_port, run, stage, wait_for

SAFE = ("max_connections=200",)  # fsync and all the rest as PostgreSQL ships: on
KINDS = ("PostgreSQL", "SQLite")
PROCESSES = 2  # of those who serve with several


@dataclass(frozen=True)
class Contender:
    """One receiver: where it listens, and where what it acknowledged must be."""

    name: str
    port: int
    acknowledged: Path
    database_url: str | None = None

    def lost(self) -> int:
        """How many acknowledged events are not in the database."""
        if self.database_url is None or not self.acknowledged.exists():
            return 0
        engine = create_engine(_with_driver(self.database_url))
        with engine.connect() as connection:
            kept = connection.execute(text("SELECT message_id FROM events")).scalars()
            lost = set(self.acknowledged.read_text().split()).difference(kept)
        engine.dispose()
        return len(lost)

    def worked_off(self) -> float:
        """What the door left to be told and counted, in deliveries per second; once."""
        database = open_database(self.database_url or "")
        with database.reading() as connection:
            left = connection.execute(text("SELECT count(*) FROM syncs")).scalar_one()
        began = time.perf_counter()
        work_off(database)
        took = time.perf_counter() - began
        wrong = recount(database)
        database.close()
        if wrong:
            raise RuntimeError(f"{wrong} counters were wrong")
        return float(left / took)


@contextmanager
def postgresql() -> Iterator[str]:
    """A server of our own that survives a power cut; its maintenance database's address."""
    with databases.server(SAFE) as address:
        yield address


@contextmanager
def contenders(server: str, kinds: tuple[str, ...] = KINDS) -> Iterator[list[Contender]]:
    """The null application, and on each kind of database the afternoon's receiver and ours.

    On PostgreSQL both once more, with several processes each, and an endpoint that only inserts.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        found = [_null(stack, folder)]
        for kind in kinds:
            url = _database(kind, server, folder, "afternoon")
            found.append(_afternoon(stack, folder, f"afternoon, {kind}", url))
            url = _database(kind, server, folder, "ours")
            found.append(_ours(stack, folder, f"ours, {kind}", url))
        if KINDS[0] in kinds:
            url = _database(KINDS[0], server, folder, "insert_only")
            found.append(_insert_only(stack, folder, f"insert only, {KINDS[0]}", url))
            several = f"{KINDS[0]}, {PROCESSES} processes"
            url = _database(KINDS[0], server, folder, "afternoon_several")
            found.append(_afternoon(stack, folder, f"afternoon, {several}", url, PROCESSES))
            url = _database(KINDS[0], server, folder, "ours_several")
            found.append(_ours(stack, folder, f"ours, {several}", url, PROCESSES))
        yield found


def _with_driver(url: str) -> str:
    return re.sub(r"^postgresql:", "postgresql+psycopg:", url)


def _database(kind: str, server: str, folder: Path, name: str) -> str:
    """The address of a new, empty database."""
    if kind == "SQLite":
        return f"sqlite:///{folder / name}.db"
    engine = create_engine(_with_driver(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _ours(stack: ExitStack, folder: Path, name: str, url: str, processes: int = 1) -> Contender:
    playing = stack.enter_context(stage(folder / name, url))
    playing.folder.mkdir()
    migrated = run(playing.folder, "migrate", DATABASE_URL=url)
    if migrated.returncode:
        raise RuntimeError(migrated.stdout + migrated.stderr)
    process = playing.serve(WORKER_IN_WEB="false", WEB_CONCURRENCY=str(processes))
    port = httpx.URL(process.address).port or 0
    return Contender(name, port, playing.folder / "acknowledged", url)


def _null(stack: ExitStack, folder: Path) -> Contender:
    port = _child(stack, "bench.null")
    return Contender("null app", port, folder / "null app")


def _afternoon(
    stack: ExitStack, folder: Path, name: str, url: str, processes: int = 1
) -> Contender:
    driver = _with_driver(url).replace("sqlite:", "sqlite+aiosqlite:")
    port = _child(stack, "bench.afternoon", driver, SECRET, str(processes))
    return Contender(name, port, folder / name, url)


def _insert_only(stack: ExitStack, folder: Path, name: str, url: str) -> Contender:
    port = _child(stack, "bench.insert_only", url, SECRET)
    return Contender(name, port, folder / name, url)


def _child(stack: ExitStack, module: str, *arguments: str) -> int:
    """Start a module that listens on the port it is told; its port, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", module, str(port), *arguments]
    popen = subprocess.Popen(command, cwd=ROOT)
    stack.callback(popen.wait)
    stack.callback(popen.terminate)
    wait_for(lambda: popen.poll() is not None or _listens(port))
    if popen.returncode is not None:
        raise RuntimeError(f"{module} ended at once")
    return port


def _listens(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=2, verify=TLS)
    except httpx.HTTPError:
        return False
    return True
