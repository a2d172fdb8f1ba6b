"""The receivers that `bench.endpoint` measures, each in processes and a database of its own."""

import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import create_engine, make_url, text

from bench.harness import migrate
from tests.processes import ROOT, SECRET, Process, free_port, stage, wait_for

DATABASES = ("PostgreSQL", "SQLite")
NULL = "null app"


@dataclass(frozen=True)
class Receiver:
    """One receiver: its port, and where its acknowledged events are noted and stored."""

    name: str
    port: int
    acknowledged: Path
    database_url: str = ""
    table: str = "events"
    worker: Process | None = None

    def lost(self) -> int:
        """How many acknowledged events are not in the database."""
        if not self.database_url or not self.acknowledged.exists():
            return 0
        engine = create_engine(_with_driver(self.database_url))
        with engine.connect() as connection:
            stored = connection.execute(text(f"SELECT message_id FROM {self.table}")).scalars()
            lost = set(self.acknowledged.read_text().split()).difference(stored)
        engine.dispose()
        return len(lost)

    def signal_worker(self, number: signal.Signals) -> None:
        """Stop the worker while other receivers are measured, or let it go on."""
        if self.worker:
            self.worker.popen.send_signal(number)


@contextmanager
def receivers(server: str, kinds: tuple[str, ...] = DATABASES) -> Iterator[list[Receiver]]:
    """All receivers, started; `server` is the maintenance database of a PostgreSQL."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)

        def contender(name: str, module: str, url: str = "", driver: str = "") -> Receiver:
            arguments = [driver or url, SECRET] if url else []
            port = _start_contender(stack, module, *arguments)
            return Receiver(name, port, folder / f"{name}.acknowledged", url)

        def ours(name: str, kind: str, *, with_worker: bool = False) -> Receiver:
            own = folder / f"{name} {kind}"
            own.mkdir()
            url = _create_database(kind, server, own, name.replace(" ", "_"))
            processes = stack.enter_context(stage(own, url))
            migrate(url)
            port = httpx.URL(processes.serve(WORKER_IN_WEB="false").address).port or 0
            worker = processes.start("worker", CODAT_CALLS_PER_MINUTE="10") if with_worker else None
            acknowledged = own / "acknowledged"
            return Receiver(f"{name}, {kind}", port, acknowledged, url, "webhook_events", worker)

        found = [contender(NULL, "null_app")]
        if "PostgreSQL" in kinds:
            url = _create_database("PostgreSQL", server, folder, "insert_only")
            found.append(contender("insert only, PostgreSQL", "insert_only", url))
        for kind in kinds:
            url = _create_database(kind, server, folder, "afternoon")
            driver = _with_driver(url).replace("sqlite:", "sqlite+aiosqlite:")
            found += [
                contender(f"afternoon, {kind}", "afternoon_receiver", url, driver),
                ours("ours", kind),
                ours("ours until projected", kind, with_worker=True),
            ]
        yield found


def _create_database(kind: str, server: str, folder: Path, name: str) -> str:
    if kind == "SQLite":
        return f"sqlite:///{folder / name}.db"
    engine = create_engine(_with_driver(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _start_contender(stack: ExitStack, module: str, *arguments: str) -> int:
    """Start a module of bench.contenders; its port, once it answers."""
    port = free_port()
    command = [sys.executable, "-m", f"bench.contenders.{module}", str(port), *arguments]
    popen = subprocess.Popen(command, cwd=ROOT)
    stack.callback(popen.wait)
    stack.callback(popen.terminate)
    wait_for(lambda: popen.poll() is not None or _listens(port))
    if popen.returncode is not None:
        raise RuntimeError(f"{module} ended with {popen.returncode}")
    return port


def _with_driver(url: str) -> str:
    return re.sub(r"^postgresql:", "postgresql+psycopg:", url)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
