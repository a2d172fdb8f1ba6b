"""Does memory stay flat while a backlog is drained and while everything is exported?

    python -m bench.memory --events 100000 --fetches 10000 --syncs 100000

Peak memory of this process after the first tenth of the work, and after all of it: what grows with
the work would show. The target is at most a tenth more.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from app.bootstrap import utc_now
from app.db import jobs as owed
from app.db.engine import Database, open_database
from app.db.event_store import Inbox
from app.db.migrations import migrate
from app.domain.models import SYNC_FAILED, CodatStatus, Delivery, Event, Item
from app.logging import configure
from app.worker.fetcher import Fetcher
from bench.data import fill
from tests import databases
from tests.processes import API_KEY, Process, stage

TARGET = 1.1
AT_ONCE = 256


def peak() -> int:
    """The most memory this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class Listing:
    """A transaction list, as the client would read it."""

    items: tuple[Item, ...]
    expected: int
    steady: bool = True


class Codat:
    """Answers at once: ten items, one of them failed."""

    async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
        """A failed sync."""
        return CodatStatus(company_id, sync_id, 5130, sync_utc=utc_now())

    async def list_transactions(self, company_id: str, sync_id: str) -> Listing:
        """Its items."""
        done = tuple(Item(f"{company_id}-{sync_id}-{n}", "Completed") for n in range(9))
        return Listing((*done, Item(f"{sync_id}-9", "PushError", "Account is closed")), 10)


async def growth(steps: AsyncIterator[float]) -> float:
    """Peak memory at the end by that after the first tenth; `steps` tell the share done."""
    early = 0
    async for done in steps:
        if not early and done >= 0.1:
            early = peak()
    return peak() / early


async def keep(database: Database, count: int) -> AsyncIterator[float]:
    """Events come in, some hundred at once."""
    inbox = Inbox(database)
    body = b'{"a webhook": "of usual size"}' * 30
    for first in range(0, count, AT_ONCE):
        news = [
            Delivery(f"m{n}", utc_now(), body, _event(n))
            for n in range(first, min(first + AT_ONCE, count))
        ]
        await asyncio.gather(*map(inbox.keep, news))
        yield (first + len(news)) / count
    await inbox.close()


def _event(number: int) -> Event:
    company = f"company-{number % 2000}"
    return Event(
        event=SYNC_FAILED,
        reading="ok",
        company_id=company,
        company_name=company,
        sync_id=f"sync-{number}",
    )


async def drain(database: Database, count: int) -> AsyncIterator[float]:
    """What is owed is fetched, sixteen at once as the worker does."""
    fetcher = Fetcher(database, Codat(), 12, utc_now)
    done = 0
    while done < count:
        with database.writing() as connection:
            claims = owed.claim(connection, now=utc_now(), lease=timedelta(minutes=5), limit=16)
        if not claims:
            return
        await asyncio.gather(*map(fetcher.fetch, claims))
        done += len(claims)
        yield done / count


def export(url: str, path: str, lines: int) -> float:
    """A whole list as CSV from a server process of ours; the growth of that process's peak."""
    early = 0
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        stage(Path(folder), url) as playing,
    ):
        server = playing.serve(WORKER_IN_WEB="false", LOG_LEVEL="warning")
        asked: dict[str, Any] = {"headers": {"authorization": f"Bearer {API_KEY}"}, "timeout": None}
        with httpx.stream("GET", server.address + path, **asked) as answer:
            for n, _ in enumerate(answer.iter_lines()):
                if not early and n >= lines / 10:
                    early = peak_of(server)
        return peak_of(server) / early


def peak_of(server: Process) -> int:
    """The most memory another process has had so far; Linux tells it."""
    told = Path(f"/proc/{server.popen.pid}/status").read_text()
    (line,) = (line for line in told.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


@contextmanager
def _databases(kind: str) -> Iterator[tuple[str, str]]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            yield f"sqlite:///{Path(folder) / 'backlog.db'}", f"sqlite:///{Path(folder) / 'all.db'}"
        return
    with databases.server() as first, databases.server() as second:
        yield first, second


def main() -> int:
    """Measure, print, and say by the exit code whether the target is met."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--fetches", type=int, default=10_000)
    parser.add_argument("--syncs", type=int, default=100_000)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="postgresql")
    told = parser.parse_args()
    configure("error", "console")
    found = {}
    with _databases(told.database) as (backlog, everything):
        database = open_database(backlog)
        migrate(database)
        found[f"{told.events} events kept"] = asyncio.run(growth(keep(database, told.events)))
        found[f"{told.fetches} fetched"] = asyncio.run(growth(drain(database, told.fetches)))
        database.close()
        database = open_database(everything)
        fill(database, told.syncs)
        database.close()
        lists = {"syncs": told.syncs, "push-errors": told.syncs // 2}
        for name, lines in lists.items():
            path = f"/api/v1/{name}?format=csv"
            found[f"CSV of all {name}, {told.syncs} syncs"] = export(everything, path, lines)
    return report(found)


def report(found: dict[str, float]) -> int:
    """The table; 0 when all stayed flat."""
    print(f"| work | peak memory, whole / first tenth | within {TARGET:g} |\n| --- | --- | --- |")
    for name, grown in found.items():
        print(f"| {name} | {grown:.2f} | {'yes' if grown <= TARGET else '**no**'} |")
    return 0 if all(grown <= TARGET for grown in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
