r"""The load generator: raw connections over which finished requests are sent, in its own process.

    python -m bench.load --port 8000 --connections 64 --seconds 2 --requests 20000 \
        --secret whsec_… --acknowledged FILE

Each connection sends its next request when the last one was answered (closed loop). Requests are
built and signed before the clock starts, and an answer is compared rather than parsed, so that the
generator takes little of the machine it shares with what it measures. Every request is a unique
event of some 800 bytes about a sync of its own; four documented bodies alternate (both
generations, failed and completed). Prints one line of JSON.
"""

import argparse
import asyncio
import gc
import json
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple, cast

import uvloop

from app.codat.webhooks.samples import SampleEvent, Shape, sample_body, sign

ACCEPTED = b"HTTP/1.1 204"
COMPANIES = 200
HANGS_AFTER_S = 30.0
SHAPES: tuple[Shape, ...] = ("legacy", "new")
EVENTS: tuple[SampleEvent, ...] = ("failed", "completed")


class Request(NamedTuple):
    """A finished HTTP request, and the message id of its event."""

    message_id: str
    data: bytes


def signed_requests(count: int, secret: str) -> list[Request]:
    """Build unique deliveries, signed now: they verify for five minutes."""
    now = datetime.now(UTC)
    kinds = cycle(product(EVENTS, SHAPES))
    return [_signed_request(n, event, shape, now, secret)
            for n, (event, shape) in zip(range(count), kinds, strict=False)]  # fmt: skip


def _signed_request(
    number: int, event: SampleEvent, shape: Shape, now: datetime, secret: str
) -> Request:
    company = str(uuid.uuid5(uuid.NAMESPACE_OID, str(number % COMPANIES)))
    sync = str(uuid.uuid4())
    body = sample_body(event, company_id=company, sync_id=sync, now=now, shape=shape)
    if shape == "new":
        body["payload"]["transactions"] = _transactions(event)
    data, headers = sign(body, secret, now)
    headers |= {
        "host": "127.0.0.1",
        "user-agent": "Svix-Webhooks/1.90.0 (sender-9YMgn; +https://www.svix.com/http-sender/)",
        "accept": "*/*",
        "content-length": str(len(data)),
    }
    lines = ["POST /webhooks/codat HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    return Request(headers["webhook-id"], "\r\n".join([*lines, "", ""]).encode() + data)


def _transactions(event: SampleEvent) -> list[dict[str, Any]]:
    results = [("Completed", None), ("Failed", "Insufficient funds")]
    return [
        {"id": str(uuid.uuid4()), "status": status, "errorMessage": message}
        for status, message in (results if event == "failed" else results[:1])
    ]


@dataclass
class Run:
    """The requests of one run, and its results. `repeat` sends them more than once."""

    requests: Sequence[Request]
    seconds: float
    repeat: bool = False
    began: float = 0.0
    ended: float = 0.0
    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def next_request(self) -> Request | None:
        """The next request; None when the time or the requests have run out."""
        exhausted = self.sent >= len(self.requests) and not self.repeat
        if exhausted or time.perf_counter() - self.began > self.seconds:
            return None
        self.sent += 1
        return self.requests[(self.sent - 1) % len(self.requests)]

    def results(self) -> dict[str, object]:
        """The figures: requests per second, milliseconds."""
        latencies = sorted(self.latencies) or [0.0]
        clock_offset = time.time() - time.perf_counter()
        return {
            "per_second": len(self.acknowledged) / max(self.ended - self.began, 1e-9),
            "p50_ms": latencies[len(latencies) // 2] * 1000,
            "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
            "acknowledged": len(self.acknowledged),
            "refused": dict(self.refused),
            "exhausted": self.sent == len(self.requests) and not self.repeat,
            "began_at": self.began + clock_offset,
            "ended_at": self.ended + clock_offset,
        }


class _Connection(asyncio.Protocol):
    def __init__(self, run: Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._request: Request | None = None
        self._sent_at = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._run.connections += 1

    def send(self) -> None:
        assert self._transport
        self._request = self._run.next_request()
        if self._request is None:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._request.data)

    def data_received(self, data: bytes) -> None:
        """An acceptance has no body. Any other answer is counted and ends the connection."""
        self._answer += data
        accepted = self._answer.startswith(ACCEPTED)
        if accepted and not self._answer.endswith(b"\r\n\r\n"):
            return
        self._run.ended = time.perf_counter()
        self._run.latencies.append(self._run.ended - self._sent_at)
        assert self._transport
        assert self._request
        if not accepted:
            self._run.refused[self._answer[:60].decode("latin-1")] += 1
            self._transport.close()
            return
        self._run.acknowledged.append(self._request.message_id)
        self._answer = b""
        self.send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._run.connections -= 1
        if not self._run.connections:
            self._run.done.set()


async def play(run: Run, port: int, connections: int) -> None:
    """Open all connections, then send over them until the run has ended."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: _Connection(run), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    gc.collect()
    gc.disable()
    run.began = run.ended = time.perf_counter()
    for connection in opened:
        connection.send()
    await asyncio.wait_for(run.done.wait(), run.seconds + HANGS_AFTER_S)


def main() -> None:
    """Build the requests, send them, print the results."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--acknowledged", type=Path, required=True)
    parser.add_argument("--repeat", action="store_true", help="send the requests more than once")
    options = parser.parse_args()
    run = Run(signed_requests(options.requests, options.secret), options.seconds, options.repeat)
    uvloop.run(play(run, options.port, options.connections))
    with options.acknowledged.open("a") as out:
        out.writelines(f"{message_id}\n" for message_id in run.acknowledged)
    print(json.dumps(run.results()))


if __name__ == "__main__":
    main()
