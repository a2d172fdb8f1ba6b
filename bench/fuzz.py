"""Hostile requests against the real process: no 5xx, nothing stored, memory flat.

    python -m bench.fuzz --requests 100000 --seed 1

Ends with code 1, and says how to repeat it, when one of these does not hold.
"""

import argparse
import random
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse

import httpx

from bench.ground import counts, playing, resident_mib
from bench.hostile import BODY_LIMIT, Hostile, request, signed_headers, sync_body
from tests.processes import TLS, Process

THREADS = 4
ANSWER_WITHIN_S = 10.0
MAY_GROW_MIB = 24.0
"""Between the first fifth of a run and its end."""


@dataclass
class Figures:
    """What one run came to."""

    seed: int
    database: str
    requests: int
    answers: Counter[int] = field(default_factory=Counter)
    by_kind: Counter[tuple[str, int]] = field(default_factory=Counter)
    unanswered: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    stored: dict[str, int] = field(default_factory=dict)
    resident: list[float] = field(default_factory=list)
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    serves_on: bool = False

    @property
    def grown_mib(self) -> float:
        """How much more memory is held at the end than after the first fifth."""
        return self.resident[-1] - self.resident[0] if self.resident else 0.0

    @property
    def fine(self) -> bool:
        """No 5xx or error, nothing accepted or stored, each whole request answered, memory flat."""
        wrong = self.errors or self.accepted or self.unanswered or self.said
        stored = any(self.stored.values())
        return self.serves_on and not wrong and not stored and self.grown_mib < MAY_GROW_MIB


class Sender:
    """Sends one request after the other, on one connection as long as the service keeps it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, hostile: Hostile) -> int | None:
        """The status of the answer, or None where the service hung up without one."""
        fresh = self._socket is None
        status = self._send_once(hostile)
        if status is None and not fresh:  # perhaps only the old connection had ended
            status = self._send_once(hostile)
        if not hostile.whole:
            self.hang_up()
        return status

    def _send_once(self, hostile: Hostile) -> int | None:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=ANSWER_WITHIN_S)
        try:
            self._socket.sendall(hostile.wire)
            if not hostile.whole:
                self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it may have answered before all was sent
        try:
            return self._read(hostile.method)
        except (OSError, HTTPException):
            self.hang_up()
            return None

    def _read(self, method: str) -> int:
        assert self._socket
        response = HTTPResponse(self._socket, method=method)
        try:
            response.begin()
            response.read()
            if response.will_close:
                self.hang_up()
            return response.status
        finally:
            response.close()

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._socket:
            self._socket.close()
            self._socket = None


def fuzz(process: Process, url: str, figures: Figures) -> None:
    """Send the requests of the seed and note what became of them."""
    before = counts(url)
    began = time.monotonic()
    host, port = process.address.removeprefix("http://").split(":")
    numbers = iter(range(figures.requests))
    lock = threading.Lock()
    sample_every = max(1, figures.requests // 20)

    def work() -> None:
        sender = Sender((host, int(port)))
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return sender.hang_up()
            hostile = request(figures.seed, number)
            status = sender.send(hostile)
            with lock:
                _note(figures, number, hostile, status)
                if number >= figures.requests // 5 and number % sample_every == 0:
                    figures.resident.append(resident_mib(process))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    figures.resident.append(resident_mib(process))
    figures.stored = {name: n - before[name] for name, n in counts(url).items()}
    figures.serves_on = _delivers(process)
    figures.said = process.log.read_text(errors="replace").splitlines()
    figures.seconds = time.monotonic() - began


def _delivers(process: Process) -> bool:
    """Whether an honest delivery is still acknowledged."""
    body = sync_body("honest")
    headers = signed_headers(body, "msg_honest")
    answer = httpx.post(
        f"{process.address}/webhooks/codat", content=body, headers=headers, verify=TLS
    )
    return answer.status_code == 204


def _note(figures: Figures, number: int, hostile: Hostile, status: int | None) -> None:
    figures.answers[status or 0] += 1
    figures.by_kind[hostile.kind, status or 0] += 1
    if status is None:
        if hostile.whole:
            figures.unanswered.append(number)
    elif status >= 500:
        figures.errors.append(number)
    elif status == 204:
        figures.accepted.append(number)


def play(seed: int, kind: str, requests: int) -> Figures:
    """One seed against a fresh service on one kind of database."""
    figures = Figures(seed, kind, requests)
    with playing(kind) as stage:
        process = stage.serve(
            WORKER_IN_WEB="false", MAX_BODY_BYTES=str(BODY_LIMIT), LOG_LEVEL="error"
        )
        fuzz(process, stage.database_url, figures)
        figures.serves_on &= process.stop() == 0
    return figures


def tell(figures: Figures) -> None:
    """The figures, and how a failing run is repeated."""
    answers = " ".join(f"{status or 'none'}:{n}" for status, n in sorted(figures.answers.items()))
    stored = {name: n for name, n in figures.stored.items() if n}
    print(f"seed {figures.seed} on {figures.database}: {figures.requests} requests in"
          f" {figures.seconds:.0f} s; answers {answers}; stored {stored or 'nothing'}; memory"
          f" {figures.resident[0]:.0f} to {figures.resident[-1]:.0f} MiB", flush=True)  # fmt: skip
    if figures.fine:
        return
    for line in figures.said[:5]:
        print(f"  the service said: {line[:300]}")
    for name in ("errors", "accepted", "unanswered"):
        for number in getattr(figures, name)[:5]:
            hostile = request(figures.seed, number)
            print(f"  {name} {number} ({hostile.kind}): {hostile.wire[:300]!r}")
    print(f"  repeat: python -m bench.fuzz --seed {figures.seed} --requests {figures.requests}"
          f" --database {figures.database}")  # fmt: skip


def main() -> int:
    """Run, print the figures, and fail when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    told = parser.parse_args()
    print(f"seed {told.seed}", flush=True)
    figures = play(told.seed, told.database, told.requests)
    tell(figures)
    return 0 if figures.fine else 1


if __name__ == "__main__":
    sys.exit(main())
