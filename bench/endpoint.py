"""Measures the webhook endpoint and other receivers in one run.

    python -m bench.endpoint --rounds 5 --plot docs/bench.svg

In every round every receiver is measured at 64, 16 and 1 connections, so that whatever else the
machine does affects all of them. Ratios are taken within a round; the tables show medians over the
rounds. "ours until projected" has a worker beside the endpoint and ends when no event is pending.
Afterwards every acknowledged event must be in its database; otherwise the exit code is 1.
"""

import json
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import select

from app.db.engine import open_database
from app.db.tables import webhook_events
from bench.harness import DURABLE, IS_PENDING, make_parser
from bench.plot import bars
from bench.receivers import DATABASES, NULL, Receiver, receivers
from tests import databases
from tests.processes import ROOT, SECRET

CONNECTIONS = (64, 16, 1)
FIRST_RATE = 8_000  # expected of a receiver at first
PROJECTED_WITHIN_S = 120.0
POLL_S = 0.01
OLDEST_PENDING = (
    select(webhook_events.c.received_at).where(IS_PENDING).order_by(webhook_events.c.id).limit(1)
)
TARGETS = (
    ("ours, PostgreSQL", "insert only, PostgreSQL", 64, 0.85),
    ("ours, PostgreSQL", "afternoon, PostgreSQL", 64, 20),
    ("ours, PostgreSQL", "afternoon, PostgreSQL", 1, 2),
    ("ours, SQLite", "afternoon, SQLite", 64, 10),
    ("ours until projected, PostgreSQL", "afternoon, PostgreSQL", 64, 8),
)
P99_TARGET_MS = 15


@dataclass(frozen=True)
class Figures:
    """Of one receiver in one round; `lag_ms` is the longest time that an event was pending."""

    per_second: float
    accepted_per_second: float
    p50_ms: float
    p99_ms: float
    refused: int
    lag_ms: float = 0.0


Rounds = Mapping[tuple[str, int], list[Figures]]


def measure(receiver: Receiver, connections: int, seconds: float, expected: float) -> Figures:
    """Send for some seconds; with a worker, also wait until everything is projected.

    Twice as many requests are prepared as the `expected` rate needs.
    """
    command = [sys.executable, "-m", "bench.load", f"--port={receiver.port}", f"--secret={SECRET}"]
    command += [f"--connections={connections}", f"--seconds={seconds}"]
    command += [f"--requests={round(2 * expected * seconds) + 500}"]
    command += [f"--acknowledged={receiver.acknowledged}"]
    if not receiver.database_url:
        command.append("--repeat")
    receiver.signal_worker(signal.SIGCONT)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as load:
        projected_at, lag_s = 0.0, 0.0
        if receiver.worker:
            projected_at, lag_s = _wait_until_projected(receiver.database_url, load)
        result: dict[str, Any] = json.loads(load.communicate()[0])
    receiver.signal_worker(signal.SIGSTOP)
    took = max(projected_at, result["ended_at"]) - result["began_at"]
    return Figures(
        per_second=result["acknowledged"] / max(took, 1e-9),
        accepted_per_second=result["per_second"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        refused=sum(result["refused"].values()),
        lag_ms=lag_s * 1000,
    )


def _wait_until_projected(url: str, load: subprocess.Popen[str]) -> tuple[float, float]:
    """Poll until the load has ended and no event is pending; since when, and the longest lag."""
    idle_since, ended_at, longest_lag = 0.0, 0.0, 0.0
    database = open_database(url, pool_size=1)
    while not (ended_at and idle_since):
        if load.poll() is not None:
            ended_at = ended_at or time.time()
            if time.time() > ended_at + PROJECTED_WITHIN_S:
                raise RuntimeError("events are still pending")
        with database.reading() as connection:
            oldest = connection.execute(OLDEST_PENDING).scalar()
        now = time.time()
        if oldest is None:
            idle_since = idle_since or now
        else:
            idle_since, longest_lag = 0.0, max(longest_lag, now - oldest.timestamp())
        time.sleep(POLL_S)
    database.close()
    return idle_since, longest_lag


def measure_all(
    field: list[Receiver], server: str, rounds: int, seconds: float, at: tuple[int, ...]
) -> Rounds:
    """All rounds, after one that warms up and is not counted."""
    figures: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    for number in range(rounds + 1):
        print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
        # A new server first creates each log segment; one that has run for a while reuses them.
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        for connections, receiver in product(at, field):
            if receiver.worker is None or connections == max(at):
                so_far = figures[receiver.name, connections]
                expected = so_far[-1].accepted_per_second if so_far else FIRST_RATE
                so_far.append(measure(receiver, connections, seconds, expected))
    print(file=sys.stderr)
    return {key: found[1:] for key, found in figures.items()}


def ratio(rounds: Rounds, name: str, other: str, connections: int) -> float | None:
    """The median over the rounds of how many times the other's rate this one has."""
    pairs = zip(rounds.get((name, connections), ()), rounds.get((other, connections), ()),
                strict=False)  # fmt: skip
    ratios = [ours.per_second / theirs.per_second for ours, theirs in pairs]
    return statistics.median(ratios) if ratios else None


def median(figures: list[Figures], name: str) -> float:
    """The median of one figure over the rounds."""
    return float(statistics.median(getattr(of_round, name) for of_round in figures))


def print_tables(rounds: Rounds) -> None:
    """Print each receiver beside the null app and the afternoon receiver, and the targets."""
    print("| receiver | connections | per second | of null app | × afternoon | p50 ms | p99 ms |"
          " longest lag ms | refused |")  # fmt: skip
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (name, connections), figures in rounds.items():
        kind = DATABASES[1] if name.endswith(DATABASES[1]) else DATABASES[0]
        of_null = ratio(rounds, name, NULL, connections) or 0
        times = ratio(rounds, name, f"afternoon, {kind}", connections) or 0
        lag = max(of_round.lag_ms for of_round in figures)
        refused = sum(of_round.refused for of_round in figures)
        print(f"| {name} | {connections} | {median(figures, 'per_second'):,.0f} | {of_null:.2f} |"
              f" {times:.1f} | {median(figures, 'p50_ms'):.1f} | {median(figures, 'p99_ms'):.1f} |"
              f" {lag:.0f} | {refused or ''} |")  # fmt: skip
    print("\n| target | aim | measured | met |\n| --- | ---: | ---: | --- |")
    for name, other, connections, aim in TARGETS:
        measured = ratio(rounds, name, other, connections)
        if measured is not None:
            met = "yes" if measured >= aim else "**no**"
            label = f"{name} / {other}, {connections} connections"
            print(f"| {label} | ≥ {aim:g} | {measured:.2f} | {met} |")
    if ours := rounds.get(("ours, PostgreSQL", 64)):
        p99 = median(ours, "p99_ms")
        met = "yes" if p99 <= P99_TARGET_MS else "**no**"
        print(f"| p99 of ours, PostgreSQL, 64 | ≤ {P99_TARGET_MS} ms | {p99:.1f} ms | {met} |")


def main() -> int:
    """Measure, print, draw; 1 when an acknowledged event is lost."""
    parser = make_parser("endpoint", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument("--kinds", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    at = tuple(options.connections)
    with databases.server(DURABLE) as server, receivers(server, tuple(options.kinds)) as field:
        rounds = measure_all(field, server, options.rounds, options.seconds, at)
        lost = {receiver.name: receiver.lost() for receiver in field}
    print_tables(rounds)
    print("\nacknowledged and lost:", {name: n for name, n in lost.items() if n} or 0)
    if options.plot:
        rates = {key: median(figures, "per_second") for key, figures in rounds.items()}
        title = "Events per second, relative to the slowest (logarithmic)"
        options.plot.write_text(bars(rates, title))
    return 1 if any(lost.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
