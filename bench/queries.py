"""Is every question as fast over a million syncs as over ten thousand?

    python -m bench.queries --small 10000 --large 1000000

Two databases of the same shape and different size, the real application over each, every question
asked of both in turn. Prints the medians' ratio for each question, and every statement whose plan
walks a growing table from end to end. Absolute times say more about the machine than about us, so
only ratios count: the target is at most three.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import event, make_url, text

from app.bootstrap import create_app
from app.db.engine import Database, open_database
from app.logging import configure
from app.settings import load_settings
from bench.asked import questions
from bench.data import fill
from tests import databases

KEY = "a-key-of-enough-length"
SECRET = "whsec_" + "A" * 32
TARGET = 3.0
GROWING = frozenset(
    {"syncs", "transactions", "events", "notes", "companies", "fetches", "filed_failures"}
)
SERVER = ("shared_buffers=1GB", "maintenance_work_mem=512MB", "max_wal_size=8GB")
Statement = tuple[str, Any]


@dataclass
class Side:
    """One database and the application over it, and what was measured."""

    name: str
    database: Database
    client: httpx.AsyncClient
    paths: dict[str, str] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    said: list[Statement] = field(default_factory=list)

    async def ask(self, name: str) -> float:
        """Ask once; how long it took, in seconds."""
        began = time.perf_counter()
        answer = await self.client.get(self.paths[name])
        took = time.perf_counter() - began
        if answer.status_code != 200:
            raise RuntimeError(f"{name}: {answer.status_code} {answer.text[:200]}")
        return took


def open_side(name: str, url: str) -> Side:
    """The real application over this database, asked without a socket between."""
    settings = load_settings(
        database_url=url,
        codat_webhook_secrets=SECRET,
        codat_api_key="none",
        api_keys=KEY,
        worker_in_web=False,
    )
    app = create_app(settings)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://bench",
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=120,
    )
    database: Database = app.state.database
    return Side(name, database, client)


def listen(side: Side) -> None:
    """Note every statement of the application."""

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        side.said.append((statement, values))

    event.listen(side.database.engine, "before_cursor_execute", note)


def walks(side: Side) -> list[str]:
    """The statements noted, explained: which of them walk a growing table from end to end."""
    noted, side.said = side.said, []
    found = []
    with side.database.reading() as connection:
        for statement, values in noted:
            if not statement.lstrip().upper().startswith(("SELECT", "WITH")):
                continue
            if side.database.is_sqlite:
                rows = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, values)
                told = [str(row[-1]) for row in rows]
                ends_early = " LIMIT " in statement and "TEMP B-TREE" not in " ".join(told)
                walked = [each for each in told if not ends_early and _walks_in_sqlite(each)]
            else:
                rows = connection.exec_driver_sql("EXPLAIN (FORMAT JSON) " + statement, values)
                plan = rows.scalar_one()
                plan = json.loads(plan) if isinstance(plan, str) else plan
                walked = list(_seq_scans(plan[0]["Plan"]))
            found += [f"{each}: {' '.join(statement.split())[:160]}" for each in walked]
    side.said.clear()
    return found


def _seq_scans(node: dict[str, Any]) -> Iterator[str]:
    if node["Node Type"] == "Seq Scan" and node["Relation Name"] in GROWING:
        yield f"Seq Scan on {node['Relation Name']}"
    for part in node.get("Plans", ()):
        yield from _seq_scans(part)


def _walks_in_sqlite(line: str) -> bool:
    words = line.split()
    return words[:1] == ["SCAN"] and words[1] in GROWING and "USING" not in words


async def measure(sides: tuple[Side, Side], rounds: int) -> dict[str, list[str]]:
    """Ask everything of both in turn; returns the walks found, by question."""
    walked: dict[str, list[str]] = {}
    for side in sides:
        await side.client.post("/sign-in", data={"key": KEY})
        side.paths = await questions(side.client, side.database)
    large = sides[1]
    listen(large)
    for name in large.paths:
        await sides[0].ask(name)
        large.said.clear()
        await large.ask(name)
        walked[name] = walks(large)
        for _ in range(rounds):
            for side in sides:
                side.times.setdefault(name, []).append(await side.ask(name))
        large.said.clear()
    return walked


def report(sides: tuple[Side, Side], walked: dict[str, list[str]], *, absolute: bool) -> bool:
    """Print the table; True when every question is within the target and none walks."""
    small, large = sides
    fine = True
    print(f"| question | {large.name} / {small.name} | within {TARGET:g} |\n| --- | --- | --- |")
    for name in large.paths:
        before = statistics.median(small.times[name])
        after = statistics.median(large.times[name])
        within = after / before <= TARGET
        fine &= within
        spent = f" {before * 1e3:.1f} {after * 1e3:.1f}" if absolute else ""
        print(f"| {name} | {after / before:.1f}{spent} | {'yes' if within else '**no**'} |")
    for name, found in walked.items():
        for each in found:
            fine = False
            print(f"walks: {name}: {each}")
    return fine


@contextmanager
def both(told: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The addresses of the two databases; made and filled unless they are given."""
    if told.urls:
        yield tuple(told.urls)
        return
    if told.database == "sqlite":
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            yield _filled(told, [f"sqlite:///{Path(folder) / name}.db" for name in ("s", "l")])
        return
    with databases.server((*databases.FAST, *SERVER)) as address:
        urls = []
        for name in ("small", "large"):
            _create(address, name)
            url = make_url(address).set(database=name)
            urls.append(url.render_as_string(hide_password=False))
        yield _filled(told, urls)


def _filled(told: argparse.Namespace, urls: list[str]) -> tuple[str, str]:
    for size, url in zip((told.small, told.large), urls, strict=True):
        database = open_database(url)
        fill(database, size)
        database.close()
    return urls[0], urls[1]


def _create(address: str, name: str) -> None:
    database = open_database(address)
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    database.close()


def main() -> int:
    """Fill, ask, print; exit code 0 only if every question is within the target."""
    parser = argparse.ArgumentParser(prog="python -m bench.queries", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--urls", nargs=2, help="two filled databases, the small one first")
    parser.add_argument("--absolute", action="store_true", help="milliseconds too")
    told = parser.parse_args()
    configure("warning", "console")
    with both(told) as urls:
        sides = (open_side("small", urls[0]), open_side("large", urls[1]))
        walked = asyncio.run(measure(sides, told.rounds))
        fine = report(sides, walked, absolute=told.absolute)
        for side in sides:
            side.database.close()
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
