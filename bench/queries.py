"""How long does each question take over a million syncs, in terms of reading one of them?

    python -m bench.queries --syncs 1000000 --database postgresql

Fills a database, starts `python -m app serve` on it and asks every question over HTTP. Each is
judged by the time of `GET /syncs/{id}` over the same database in the same run: none may take more
than 150 times as long, and nine in ten at most 15 times. The exit code is 1 otherwise.
"""

import argparse
import statistics
import sys
import time

import httpx

from app.db.engine import open_database
from bench.data import fill
from bench.harness import KINDS, migrate, migrated_stage, row_counts
from bench.questions import ONE_SYNC, questions
from tests import databases
from tests.processes import API_KEY, AUTHORIZED, TLS, Stage

LIMIT, USUAL_LIMIT, USUAL_SHARE = 150, 15, 0.9
SYNCS = {"postgresql": 1_000_000, "sqlite": 300_000}
SERVER = (*databases.FAST, "shared_buffers=1GB", "maintenance_work_mem=512MB", "max_wal_size=8GB")


def measure(stage: Stage, rounds: int) -> dict[str, list[float]]:
    """The seconds that each question took, by name; the first time does not count."""
    times: dict[str, list[float]] = {}
    server = stage.serve(WORKER_IN_WEB="false", LOG_LEVEL="warning")
    with httpx.Client(
        base_url=server.address, headers=AUTHORIZED, timeout=300, verify=TLS
    ) as client:
        client.post("/sign-in", data={"key": API_KEY})
        paths = questions(client, stage.database_url)
        for name, path in paths.items():
            _ask(client, name, path)
            for _ in range(rounds):
                times.setdefault(ONE_SYNC, []).append(_ask(client, ONE_SYNC, paths[ONE_SYNC]))
                if name != ONE_SYNC:
                    times.setdefault(name, []).append(_ask(client, name, path))
    return times


def _ask(client: httpx.Client, name: str, path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path)
    if answer.status_code != 200:
        raise RuntimeError(f"{name}: {path}: {answer.status_code} {answer.text[:200]}")
    return time.perf_counter() - began


def report(times: dict[str, list[float]]) -> bool:
    """Print the table, slowest first; True when the targets are met."""
    medians = {name: statistics.median(found) for name, found in times.items()}
    base = medians[ONE_SYNC]
    print("| question | ms | × one sync |\n| --- | ---: | ---: |")
    for name, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {name} | {seconds * 1000:.1f} | {seconds / base:.1f} |")
    ratios = [seconds / base for seconds in medians.values()]
    usual = sum(ratio <= USUAL_LIMIT for ratio in ratios) / len(ratios)
    met = max(ratios) <= LIMIT and usual >= USUAL_SHARE
    print(f"\n{len(ratios)} questions; slowest {max(ratios):.0f} × one sync (at most {LIMIT});"
          f" {usual:.0%} within {USUAL_LIMIT} × (at least {USUAL_SHARE:.0%});"
          f" met: {'yes' if met else 'NO'}")  # fmt: skip
    return met


def fill_if_empty(url: str, size: int) -> None:
    """Fill a migrated database, unless it has syncs already."""
    if not row_counts(url)["syncs"]:
        began = time.monotonic()
        database = open_database(url)
        fill(database, size)
        database.close()
        print(f"{size} syncs in {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Fill, ask, print; 0 only if the targets are met."""
    parser = argparse.ArgumentParser(prog="python -m bench.queries", description=__doc__)
    parser.add_argument("--syncs", type=int, help="1,000,000 on PostgreSQL, 300,000 on SQLite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=KINDS, default="postgresql")
    parser.add_argument("--url", help="use this database, which stays; it is filled if empty")
    options = parser.parse_args()
    kind = options.database
    with migrated_stage("sqlite" if options.url else kind, SERVER) as stage:
        stage.database_url = options.url or stage.database_url
        migrate(stage)
        fill_if_empty(stage.database_url, options.syncs or SYNCS[kind])
        return 0 if report(measure(stage, options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
