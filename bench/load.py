r"""The load, in a process of its own: raw connections, requests that were made beforehand.

    python -m bench.load --port 8000 --path /webhooks/codat --connections 64 --seconds 2 \
        --supply 20000 --secret whsec_… --acknowledged FILE

Each connection sends its next request when the last was answered. Nothing is made, signed or parsed
while it runs, so that it takes little of the machine it shares with what it measures. Prints one
line of JSON.
"""

import argparse
import asyncio
import gc
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from bench.deliveries import Signed, signed

ACCEPTED = b"HTTP/1.1 204"


@dataclass
class Run:
    """What one run sends, and what came of it."""

    supply: list[Signed]
    seconds: float
    again: bool = False
    began: float = 0.0
    ended: float = 0.0
    sent: int = 0
    waits: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    open: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def next(self) -> Signed | None:
        """The next request, None when the time or the supply is at its end."""
        at_an_end = self.sent >= len(self.supply) and not self.again
        if at_an_end or time.perf_counter() - self.began > self.seconds:
            return None
        self.sent += 1
        return self.supply[(self.sent - 1) % len(self.supply)]


class Sender(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._transport: asyncio.Transport | None = None
        self._current: Signed | None = None
        self._since = 0.0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready; `send` starts it."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._run.open += 1

    def send(self) -> None:
        """Send the next request, or hang up when there is none."""
        assert self._transport
        self._current = self._run.next()
        if self._current is None:
            self._transport.close()
            return
        self._since = time.perf_counter()
        self._transport.write(self._current.request)

    def data_received(self, data: bytes) -> None:
        """An acceptance has no body; whatever else comes is counted, and ends the connection."""
        self._answer += data
        if not self._answer.endswith(b"\r\n\r\n") and self._answer.startswith(ACCEPTED):
            return
        now = time.perf_counter()
        self._run.ended = now
        self._run.waits.append(now - self._since)
        if not self._answer.startswith(ACCEPTED):
            self._run.refused[self._answer[:60].decode("latin-1")] += 1
            assert self._transport
            self._transport.close()
            return
        assert self._current
        self._run.acknowledged.append(self._current.message_id)
        self._answer = b""
        self.send()

    def connection_lost(self, _error: Exception | None) -> None:
        """The last one out says so."""
        self._run.open -= 1
        if not self._run.open:
            self._run.done.set()


async def play(run: Run, port: int, connections: int) -> None:
    """Open all connections, then send over them until the end."""
    loop = asyncio.get_running_loop()
    senders = [
        (await loop.create_connection(lambda: Sender(run), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    gc.collect()
    gc.disable()
    run.began = run.ended = time.perf_counter()
    for sender in senders:
        sender.send()
    await run.done.wait()


def figures(run: Run) -> dict[str, object]:
    """The run in numbers: requests per second, milliseconds."""
    waits = sorted(run.waits) or [0.0]
    seconds = max(run.ended - run.began, 1e-9)
    return {
        "per_second": len(run.acknowledged) / seconds,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[len(waits) * 99 // 100] * 1000,
        "acknowledged": len(run.acknowledged),
        "refused": dict(run.refused),
        "exhausted": run.sent == len(run.supply) and not run.again,
    }


def main() -> None:
    """Make the requests, play them, tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/webhooks/codat")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--supply", type=int, default=20_000)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--acknowledged", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="use up the supply more than once")
    told = parser.parse_args()
    run = Run(signed(told.supply, told.secret, told.path), told.seconds, told.again)
    uvloop.run(play(run, told.port, told.connections))
    with told.acknowledged.open("a") as out:
        out.writelines(f"{message_id}\n" for message_id in run.acknowledged)
    print(json.dumps(figures(run)))


if __name__ == "__main__":
    main()
