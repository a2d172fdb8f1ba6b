"""The service and the simulated Codat as real processes on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
from svix.webhooks import Webhook

from app.db import workers
from app.db.engine import open_database
from tests.ports import free_port as free_port

ROOT = Path(__file__).parents[1]
SECRET = "whsec_" + b64encode(b"j" * 32).decode()
API_KEY = "a-key-for-journeys"
CODAT_KEY = "codat-key-for-journeys"
AUTHORIZED = {"authorization": f"Bearer {API_KEY}"}
# httpx otherwise makes one for each call, also over plain HTTP, and that takes longer than the call
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
        "DRAIN_SECONDS": "0",  # the tests that need it set it
        **settings,
    }


def run(cwd: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app …` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wait_for(condition: Callable[[], T | None], seconds: float = 60) -> T:
    """The first result that is true. Raises AssertionError when there is none in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def holds_within(seconds: float, condition: Callable[[], bool]) -> bool:
    """True when the condition holds in time."""
    with suppress(AssertionError):
        return wait_for(condition, seconds)
    return False


@dataclass
class Process:
    """One child process, its address and its log file."""

    popen: subprocess.Popen[bytes]
    address: str
    log: Path

    @property
    def webhooks(self) -> str:
        """The URL of the webhook endpoint."""
        return f"{self.address}/webhooks/codat"

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """Send a signal; returns the exit code. Raises TimeoutExpired."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(seconds)

    def logged(self) -> str:
        """What it has written to its log so far."""
        return self.log.read_text(errors="replace")


@dataclass
class Stage:
    """A folder, a database, and the processes that use them."""

    folder: Path
    database_url: str
    processes: list[Process] = field(default_factory=list)
    codat: str = "http://127.0.0.1:1"

    def start(
        self, *arguments: str, python: Sequence[str] = ("-m", "app"), **settings: str
    ) -> Process:
        """Start `python -m app …`, or another module, and do not wait for it."""
        port = settings.setdefault("PORT", str(free_port()))
        defaults = {"DATABASE_URL": self.database_url, "CODAT_BASE_URL": self.codat}
        command = [*python, *arguments]
        return self._start(command, port, self.folder, environment(**defaults | settings))

    def _start(self, command: Sequence[str], port: str, cwd: Path, env: dict[str, str]) -> Process:
        log = self.folder / f"{len(self.processes)}.log"
        with log.open("wb") as out:
            popen = subprocess.Popen(
                [sys.executable, *command], cwd=cwd, stdout=out, stderr=out, env=env
            )
        process = Process(popen, f"http://127.0.0.1:{port}", log)
        self.processes.append(process)
        return process

    def serve(self, **settings: str) -> Process:
        """Start serving and wait until it answers."""
        process = self.start("serve", **settings)
        wait_until_live(process)
        return process

    def simulate(self, *options: str) -> str:
        """Start the simulated Codat, fifty times as fast as real time; returns its address."""
        port = str(free_port())
        command = ("-m", "simulator", "--port", port, "--speed", "50", *options)
        process = self._start(command, port, ROOT, {**os.environ, "SIMULATOR_KEY": CODAT_KEY})
        wait_for(lambda: answers(process, "/_sim"))
        self.codat = process.address
        return process.address

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m app …` on this database to its end."""
        defaults = {"DATABASE_URL": self.database_url, "CODAT_BASE_URL": self.codat}
        return run(self.folder, *arguments, **defaults | settings)

    def kill_all(self) -> None:
        """End the processes that still run."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait(10)


@contextmanager
def stage(folder: Path, database_url: str) -> Iterator[Stage]:
    """A stage whose processes all end with the block."""
    found = Stage(folder, database_url)
    try:
        yield found
    finally:
        found.kill_all()


def answers(process: Process, path: str) -> bool:
    """True when it answers with a success. Raises AssertionError when it has ended."""
    if process.popen.poll() is not None:
        raise AssertionError(f"it ended: {process.logged()[-2000:]}")
    try:
        return httpx.get(process.address + path, timeout=2, verify=TLS).is_success
    except httpx.HTTPError:
        return False


def wait_until_live(process: Process) -> None:
    """Wait until it serves. Raises AssertionError when it has ended."""
    wait_for(lambda: answers(process, "/livez"))


def refuses(host: str, port: int) -> bool:
    """True when nothing listens there."""
    try:
        socket.create_connection((host, port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def count_workers(stage: Stage) -> int:
    """The number of workers that have sent a heartbeat within a minute."""
    database = open_database(stage.database_url)
    with database.reading() as connection:
        count = workers.alive(connection, datetime.now(UTC) - timedelta(minutes=1))
    database.close()
    return count


def signed(
    body: bytes,
    message_id: str,
    *secrets: str,
    at: datetime | None = None,
    family: str = "webhook",
) -> dict[str, str]:
    """The headers of one delivery, signed now and with our secret unless others are passed.

    A body that is not UTF-8 gets a signature of something else.
    """
    at = at or datetime.now(UTC)
    text = body.decode(errors="replace")
    signatures = [Webhook(secret).sign(message_id, at, text) for secret in secrets or (SECRET,)]
    return {
        f"{family}-id": message_id,
        f"{family}-timestamp": str(int(at.timestamp())),
        f"{family}-signature": " ".join(signatures),
    }


def failed_event(sync_id: str, company_id: str = "c1") -> bytes:
    """The body of an event about a failed sync."""
    event = {"RuleType": "Sync Failed", "CompanyId": company_id, "Data": {"syncId": sync_id}}
    return json.dumps(event).encode()


def deliver(process: Process, message_id: str, body: bytes) -> int:
    """Deliver a signed event; returns the status."""
    headers = signed(body, message_id)
    return httpx.post(process.webhooks, content=body, headers=headers, verify=TLS).status_code


def get(process: Process, path: str, **query: Any) -> Any:
    """A GET to our API; the decoded answer, or None when it is an error."""
    answer = httpx.get(
        f"{process.address}/api/v1{path}",
        params=query,
        headers=AUTHORIZED,
        timeout=10,
        verify=TLS,
    )
    return answer.json() if answer.is_success else None


class SimulatedCodat:
    """The control API of the simulated Codat at this address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One control call; the decoded answer."""
        url = f"{self.address}/_sim{path}"
        answer = httpx.request(method, url, json=body, timeout=120, verify=TLS)
        assert answer.is_success, answer.text
        return answer.json()

    def subscribe(self, process: Process) -> None:
        """Send all events to this process."""
        self.call("POST", "/subscriptions", {"url": process.webhooks, "secret": SECRET})

    def create_company(self) -> str:
        """The id of a new company."""
        return str(self.call("POST", "/companies", {"name": "Toft stores"})["id"])

    def create_sync(self, **fields: Any) -> tuple[str, str]:
        """Create a sync of a new company, played to its outcome; its company's id and its own."""
        company = self.create_company()
        return company, self.call("POST", "/syncs", {"company_id": company, **fields})["sync_id"]

    def calls(self, kind: str | None = None) -> int:
        """The number of calls to Codat's API so far, of one kind or all."""
        counters = self.call("GET", "/counters")
        count: int = counters["calls"].get(kind, 0) if kind else counters["total"]
        return count
