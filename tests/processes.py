"""The service and the simulated Codat as real processes on loopback, for journeys."""

import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
from svix.webhooks import Webhook

from app.db import sync_writer as store
from app.db.engine import open_database
from tests.ports import free_port as free_port

ROOT = Path(__file__).parents[1]
SECRET = "whsec_" + b64encode(b"j" * 32).decode()
API_KEY = "a-key-for-journeys"
CODAT_KEY = "codat-key-for-journeys"
# Made once: httpx makes one for every question otherwise, even over plain HTTP, which takes longer.
TLS = httpx.create_ssl_context()
T = TypeVar("T")


def environment(**settings: str) -> dict[str, str]:
    """A complete set of settings, and nothing of the machine's own."""
    inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        "CODAT_WEBHOOK_SECRETS": SECRET,
        "CODAT_API_KEY": CODAT_KEY,
        "API_KEYS": API_KEY,
        "LOG_FORMAT": "json",
        "RECONCILE_EVERY_MINUTES": "0",
        **settings,
    }


def run(cwd: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`python -m app …`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_for(what: Callable[[], T | None], seconds: float = 60) -> T:
    """The first answer that is not None or False; fails when it does not come in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@dataclass
class Process:
    """One child process, its address and its log."""

    popen: subprocess.Popen[bytes]
    address: str
    log: Path

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """Send a signal; the exit code, which must come within ten seconds."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(seconds)


@dataclass
class Stage:
    """A folder, a database, and the processes that play in it."""

    folder: Path
    database_url: str
    processes: list[Process] = field(default_factory=list)
    codat: str = "http://127.0.0.1:1"

    def start(
        self, *arguments: str, python: Sequence[str] = ("-m", "app"), **settings: str
    ) -> Process:
        """Start `python -m app …`, or another program of ours; does not wait for it."""
        port = free_port()
        log = self.folder / f"{len(self.processes)}-{arguments[0]}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, *python, *arguments],
                cwd=self.folder,
                stdout=out,
                stderr=out,
                env=environment(
                    **{
                        "DATABASE_URL": self.database_url,
                        "CODAT_BASE_URL": self.codat,
                        "PORT": str(port),
                    }
                    | settings
                ),
            )
        process = Process(popen, f"http://127.0.0.1:{port}", log)
        self.processes.append(process)
        return process

    def serve(self, **settings: str) -> Process:
        """Start serving and wait until it answers."""
        process = self.start("serve", **settings)
        wait_for(lambda: answers(process, "/livez"))
        return process

    def simulate(self, *options: str) -> str:
        """Start the simulated Codat, fifty times as fast as life; its address."""
        port = free_port()
        command = [sys.executable, "-m", "simulator", "--port", str(port)]
        log = self.folder / "simulator.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [*command, "--speed", "50", *options],
                cwd=ROOT,
                stdout=out,
                stderr=out,
                env={**os.environ, "SIMULATOR_KEY": CODAT_KEY},
            )
        process = Process(popen, f"http://127.0.0.1:{port}", log)
        self.processes.append(process)
        wait_for(lambda: answers(process, "/_sim"))
        self.codat = process.address
        return process.address


def answers(process: Process, path: str) -> bool:
    if process.popen.poll() is not None:
        raise AssertionError(f"it ended: {process.log.read_text()[-2000:]}")
    try:
        return httpx.get(process.address + path, timeout=2, verify=TLS).is_success
    except httpx.HTTPError:
        return False


def children(process: Process) -> set[int]:
    """Those that live; a process that was killed is nobody's child at once."""
    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, check=True)
    rows = (line.split() for line in said.stdout.decode().splitlines())
    parent = str(process.popen.pid)
    return {int(pid) for pid, ppid, stat in rows if ppid == parent and not stat.startswith("Z")}


def refuses(host: str, port: int) -> bool:
    """True when nobody listens there."""
    try:
        socket.create_connection((host, port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def is_there(number: int) -> bool:
    """True while a process of this number lives."""
    said = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(number)], capture_output=True, check=False
    )
    return bool(said.stdout.strip()) and not said.stdout.startswith(b"Z")


def a_worker_lives(playing: Stage) -> bool:
    """True once a worker has said that it lives."""
    database = open_database(playing.database_url)
    with database.reading() as connection:
        alive = store.workers_alive(connection, datetime.now(UTC) - timedelta(minutes=1))
    database.close()
    return alive > 0


@contextmanager
def stage(folder: Path, database_url: str) -> Iterator[Stage]:
    """A stage whose processes are all gone at the end."""
    playing = Stage(folder, database_url)
    try:
        yield playing
    finally:
        for process in playing.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait(10)


def signed(body: bytes, message_id: str, secret: str = SECRET) -> dict[str, str]:
    """The headers of one delivery, signed now."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body.decode()),
    }


def ask(process: Process, path: str, **query: Any) -> Any:
    """A GET to our API, decoded."""
    answer = httpx.get(
        f"{process.address}/api/v1{path}",
        params=query,
        headers={"authorization": f"Bearer {API_KEY}"},
        timeout=10,
        verify=TLS,
    )
    return answer.json() if answer.is_success else None
