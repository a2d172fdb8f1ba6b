"""Measures a fetch of 5,000 transactions, and the bare HTTP requests for the same pages.

    python -m bench.fetch --transactions 5000

Both call a simulated Codat in turn: HTTP alone, page by page; and the worker's fetcher, which also
parses, compares and stores. Two of five transactions fail. The target is at most 1.5 times, with
answers that take `--latency` milliseconds longer, as over a network. For comparison it is also
measured without: then a page costs 3 ms, and storing the list is most of the time.
"""

import asyncio
import gc
import statistics
import sys
import time
from datetime import timedelta
from itertools import product

import httpx

from app.bootstrap import make_codat, utc_now
from app.codat.client import PAGE_SIZE, CodatClient, authorization
from app.db import jobs, workers
from app.db.engine import Database, open_database
from app.db.tables import webhook_events
from app.settings import load_settings
from app.worker.fetcher import Fetcher
from app.worker.projector import Projector
from bench.harness import add_database_option, make_parser, migrated_stage
from tests.processes import CODAT_KEY, SimulatedCodat, failed_event

TARGET = 1.5
CALLS_A_MINUTE = 100_000


def delay_answers(simulator: SimulatedCodat, milliseconds: int) -> None:
    """Make every answer of Codat's API take longer, as over a network."""
    if milliseconds:
        rule = {"kind": "timeout", "times": None, "hold_seconds": milliseconds / 1000}
        simulator.call("POST", "/faults", rule)


async def compare(url: str, simulator: SimulatedCodat, transactions: int, rounds: int) -> float:
    """The median time of a fetch by that of the bare requests; the first round does not count."""
    database = open_database(url)
    settings = load_settings(
        database_url=url,
        codat_api_key=CODAT_KEY,
        codat_base_url=simulator.address,
        codat_calls_per_minute=CALLS_A_MINUTE,
    )
    bare, ours = [], []
    headers = {"authorization": authorization(CODAT_KEY)}
    async with (
        make_codat(settings, database, utc_now) as codat,
        httpx.AsyncClient(base_url=simulator.address, headers=headers) as http,
    ):
        gc.collect()
        gc.freeze()  # as `serve` and `worker` do when they start
        for _ in range(rounds + 1):
            company, sync = simulator.create_sync(
                outcome="validation_error", size=transactions, shapes=[]
            )
            bare.append(await _time_bare_requests(http, company, sync))
            ours.append(await _time_fetch(database, codat, company, sync))
    database.close()
    return statistics.median(ours[1:]) / statistics.median(bare[1:])


async def _time_bare_requests(http: httpx.AsyncClient, company: str, sync: str) -> float:
    path = f"/companies/{company}/sync/expenses/syncs/{sync}"
    began = time.perf_counter()
    (await http.get(f"{path}/status")).raise_for_status()
    page, total = 1, 1
    while (page - 1) * PAGE_SIZE < total:
        query = {"page": page, "pageSize": PAGE_SIZE}
        answer = await http.get(f"{path}/transactions", params=query)
        total = answer.raise_for_status().json()["totalResults"]
        page += 1
    return time.perf_counter() - began


async def _time_fetch(database: Database, codat: CodatClient, company: str, sync: str) -> float:
    event = {"message_id": sync, "received_at": utc_now(), "body": failed_event(sync, company)}
    with database.writing() as connection:
        connection.execute(webhook_events.insert(), event)
        workers.beat(connection, "bench", utc_now())
    Projector(database, utc_now).project_pending()
    lease = timedelta(minutes=5)
    with database.writing() as connection:
        (claim,) = jobs.claim(
            connection, "fetch", now=utc_now(), lease=lease, limit=1, worker_id="bench"
        )
    began = time.perf_counter()
    result = await Fetcher(database, codat, utc_now, max_attempts=1).handle(claim)
    took = time.perf_counter() - began
    if result != "done":
        raise RuntimeError(f"the fetch ended with {result}")
    return took


def main() -> int:
    """Measure and print; 0 only if the target is met."""
    parser = make_parser("fetch", __doc__)
    parser.add_argument("--transactions", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--latency", type=int, default=20, help="of a network, in milliseconds")
    add_database_option(parser)
    options = parser.parse_args()
    size = options.transactions
    print(f"| fetch of {size} transactions / bare requests | latency ms | ratio | ≤ {TARGET} |")
    print("| --- | ---: | ---: | --- |")
    met = True
    for kind, latency in product(options.database, sorted({options.latency, 0})):
        with migrated_stage(kind) as stage:
            simulator = SimulatedCodat(stage.simulate())
            delay_answers(simulator, latency)
            ratio = asyncio.run(compare(stage.database_url, simulator, size, options.rounds))
        judged = "yes" if ratio <= TARGET else "**no**"
        met &= ratio <= TARGET or latency != options.latency
        print(f"| {kind} | {latency} | {ratio:.2f} | {judged} |", flush=True)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
