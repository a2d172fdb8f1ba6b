"""What does a fetch cost beside Codat's own answers? A failed sync of 5,000 items, in one run.

    python -m bench.fetching --items 5000 --database both

The same pages are asked of a simulated Codat twice in turn: bare, by HTTP alone, and as the worker
does, with reading, comparing, storing and counting. The target is at most one and a half times.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from app.bootstrap import utc_now
from app.clients import make_codat
from app.codat.client import PAGE_SIZE, CodatClient
from app.db import jobs as owed
from app.db.engine import Database, open_database
from app.db.event_store import write
from app.db.migrations import migrate
from app.domain.models import SYNC_FAILED, Delivery, Event
from app.logging import configure
from app.settings import load_settings
from app.worker.fetcher import Fetcher
from tests import databases
from tests.processes import CODAT_KEY, stage

TARGET = 1.5
PAUSE_S = 6.5  # our own pace of calls to Codat has a burst; this fills it again


async def compare(url: str, codat_url: str, items: int, rounds: int) -> float:
    """How many times as long a fetch takes as the bare requests for the same pages."""
    database = open_database(url)
    migrate(database)
    settings = load_settings(database_url=url, codat_api_key=CODAT_KEY, codat_base_url=codat_url)
    bare: list[float] = []
    ours: list[float] = []
    async with make_codat(settings, database, utc_now) as codat:
        headers = {"authorization": codat_authorization()}
        async with httpx.AsyncClient(base_url=codat_url, headers=headers) as http:
            gc.collect()
            gc.freeze()  # as the service and the worker do at their start
            for _ in range(rounds + 1):
                company, sync = _prepare(codat_url, items)
                bare.append(await _bare(http, company, sync))
                ours.append(await _ours(database, codat, company, sync))
                await asyncio.sleep(PAUSE_S)
    database.close()
    return statistics.median(ours[1:]) / statistics.median(bare[1:])


def codat_authorization() -> str:
    """The header that the simulated Codat wants."""
    from app.codat.client import authorization

    return authorization(CODAT_KEY)


def _prepare(codat_url: str, items: int) -> tuple[str, str]:
    """A company with one failed sync of so many items."""
    with httpx.Client(base_url=f"{codat_url}/_sim", timeout=60) as controls:
        company = controls.post("/companies", json={"name": "Bench"}).raise_for_status().json()
        order = {"company_id": company["id"], "outcome": "validation_error", "size": items}
        sync = controls.post("/syncs", json=order | {"shapes": []}).raise_for_status().json()
    return company["id"], sync["sync_id"]


async def _bare(http: httpx.AsyncClient, company: str, sync: str) -> float:
    path = f"/companies/{company}/sync/expenses/syncs/{sync}"
    began = time.perf_counter()
    (await http.get(f"{path}/status")).raise_for_status()
    page, total = 1, 1
    while (page - 1) * PAGE_SIZE < total:
        asked = {"page": page, "pageSize": PAGE_SIZE}
        answer = await http.get(f"{path}/transactions", params=asked)
        total = answer.raise_for_status().json()["totalResults"]
        page += 1
    return time.perf_counter() - began


async def _ours(database: Database, codat: CodatClient, company: str, sync: str) -> float:
    now = utc_now()
    event = Event(event=SYNC_FAILED, reading="ok", company_id=company, sync_id=sync)
    write(database, [Delivery(f"m-{now.timestamp()}", now, b"{}", event)])
    with database.writing() as connection:
        (claimed,) = owed.claim(connection, now=utc_now(), lease=timedelta(minutes=5), limit=1)
    began = time.perf_counter()
    await Fetcher(database, codat, 12, utc_now).fetch(claimed)
    return time.perf_counter() - began


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'fetching.db'}"
        return
    with databases.server() as address:
        yield address


def main() -> int:
    """Measure, print, and say by the exit code whether the target is met."""
    parser = argparse.ArgumentParser(prog="python -m bench.fetching", description=__doc__)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    told = parser.parse_args()
    configure("warning", "console")
    kinds = ("sqlite", "postgresql") if told.database == "both" else (told.database,)
    print(f"| fetch of {told.items} items / bare HTTP | ratio | within {TARGET:g} |")
    print("| --- | --- | --- |")
    fine = True
    for kind in kinds:
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as folder,
            _database(kind, Path(folder)) as url,
            stage(Path(folder), url) as playing,
        ):
            ratio = asyncio.run(compare(url, playing.simulate(), told.items, told.rounds))
        fine &= ratio <= TARGET
        print(f"| {kind} | {ratio:.2f} | {'yes' if ratio <= TARGET else '**no**'} |", flush=True)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
