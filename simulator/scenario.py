"""The scenario `morning`: six companies and forty syncs in three simulated hours.

It contains every outcome, a retry that succeeds, duplicate and delayed webhooks, a sync announced
in both payload generations, and an unknown event. After that a sync follows every few seconds.
"""

import asyncio
import logging
import random
from dataclasses import dataclass

import httpx

from simulator.outcomes import OUTCOMES
from simulator.payloads import Shape
from simulator.simulation import Simulation
from simulator.state import Sync
from simulator.webhooks import DeliveryOptions, Family

MINUTE = 60.0
MORNING_SECONDS = 180 * MINUTE
SYNCS = 40
# Real seconds.
WAIT_FOR_RECEIVERS = 30.0
PAUSE_AFTER_MORNING = (3.0, 6.0)

COMPANIES = (
    ("Harbour Lane Bakery", "Xero"),
    ("Copperfield Plumbing Ltd", "QuickBooks Online"),
    ("Toft & Daughters Stores", "Xero"),
    ("Nordlicht Fahrräder", "Sage Intacct"),
    ("Old Mill Brewing Co.", "Oracle NetSuite"),
    ("Mariposa Floristas", "QuickBooks Online"),
)
HEALTHY_COMPANIES = (0, 1, 2, 4)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One sync of the scenario, or another event.

    `minute` counts from the start of the morning, `lasts` is the duration of the sync in minutes.
    `shapes` are the webhooks about its end. `started` sends a started event, `started_late` sends
    it so many minutes after the start. `retries` names the step whose failed transactions are sent
    again. `completed_first` sends a completed event before the failed one.
    """

    minute: float
    company: int
    outcome: str = ""
    size: int = 4
    shapes: tuple[Shape, ...] = ("new",)
    lasts: float = 3.0
    name: str = ""
    retries: str = ""
    started: bool = False
    started_late: float = 0.0
    copies: int = 1
    family: Family = "webhook"
    completed_first: bool = False
    connection: str = ""
    unknown_event: bool = False


STORY = (
    Step(1, 0, "partly_failed", 5, ("legacy",), name="feed", started=True),
    Step(4, 1, "all_written", 6),
    Step(8, 2, "nothing_to_write", 0, ("legacy",), started=True),
    Step(12, 4, "validation_error", 4, name="totals"),
    Step(18, 5, "config_error", 3, ("legacy",), started=True),
    Step(24, 1, "partly_failed", 4, ("legacy", "new")),
    Step(31, 3, "all_written", 3, ("legacy",), copies=3),
    Step(38, 3, "deauthorised", 2, connection="Deauthorized"),
    Step(46, 0, "all_written", 2, ("legacy",), retries="feed", started=True),
    Step(55, 2, "write_error", 3, ("legacy",), started_late=9),
    Step(63, 5, "billing_expiry", 2),
    Step(70, 4, "partly_failed", 230),
    Step(78, 1, "duplicate_protection", 2, ("legacy",), family="svix"),
    Step(86, 2, unknown_event=True),
    Step(94, 0, "partly_failed", 5, ("legacy",), completed_first=True),
    Step(102, 4, "server_error", 3, ("new-without-transactions",)),
    Step(111, 3, "disconnected", 2, ("legacy",)),
    Step(124, 5, "in_progress", 3, started=True),
    Step(133, 4, "all_written", 3, retries="totals"),
    Step(141, 3, "all_written", 4, connection="Linked"),
)


def ordinary_step(rng: random.Random, minute: float) -> Step:
    """Make an ordinary sync of a healthy company: mostly successful, in either generation."""
    outcome = rng.choices(
        ("all_written", "nothing_to_write", "partly_failed", "write_error", "validation_error"),
        (60, 12, 16, 6, 6),
    )[0]
    shapes: tuple[Shape, ...] = ("legacy",) if rng.random() < 0.5 else ("new",)
    return Step(
        minute,
        rng.choice(HEALTHY_COMPANIES),
        outcome,
        0 if outcome == "nothing_to_write" else rng.randint(2, 9),
        shapes,
        rng.uniform(1, 5),
        family="svix" if rng.random() < 0.15 else "webhook",
        started=shapes == ("legacy",),
    )


def plan(rng: random.Random) -> list[Step]:
    """List the steps of the morning by time: the story and ordinary syncs, forty in all."""
    count = SYNCS - sum(step.outcome in OUTCOMES for step in STORY)
    gap = (MORNING_SECONDS / MINUTE - 12) / count
    ordinary = [ordinary_step(rng, 6 + gap * (n + rng.random())) for n in range(count)]
    return sorted([*STORY, *ordinary], key=lambda step: step.minute)


async def play(simulation: Simulation) -> None:
    """Play the morning, then add a sync every few real seconds until cancelled.

    Waits at most 30 real seconds until the receivers accept connections.
    """
    await _wait_for_receivers(simulation)
    scenario = Scenario(simulation)
    clock, rng = simulation.clock, simulation.rng
    began = clock.elapsed()
    for step in plan(rng):
        await clock.sleep(step.minute * MINUTE - (clock.elapsed() - began))
        simulation.sender.spawn(scenario.run(step))
    while True:
        await asyncio.sleep(rng.uniform(*PAUSE_AFTER_MORNING))
        simulation.sender.spawn(scenario.run(ordinary_step(rng, 0.0)))


class Scenario:
    """The companies of the scenario and the syncs that later steps retry."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._companies = [simulation.state.add_company(*company) for company in COMPANIES]
        self._named: dict[str, Sync] = {}

    async def run(self, step: Step) -> None:
        """Run one step to its end; an error is logged and does not stop the scenario."""
        try:
            await self._run(step)
        except Exception:
            log.exception("a step of the scenario failed: %s", step)

    async def _run(self, step: Step) -> None:
        simulation = self._simulation
        company = self._companies[step.company]
        if step.connection:
            simulation.set_connection_status(company, step.connection)
        if step.unknown_event:
            simulation.send_unknown_event()
        if not step.outcome:
            return
        sync = self._start(step, company.company_id)
        if step.outcome == "in_progress":
            return
        await simulation.clock.sleep(step.lasts * MINUTE)
        if step.completed_first:
            simulation.send_sync_event(sync, "completed", ["legacy"])
        options = DeliveryOptions(copies=step.copies, family=step.family)
        simulation.advance_sync(sync.sync_id, step.outcome, shapes=step.shapes, options=options)

    def _start(self, step: Step, company_id: str) -> Sync:
        ids = self._named[step.retries].transaction_ids(failed=True) if step.retries else None
        shapes: list[Shape] = ["legacy"] if step.started else []
        sync = self._simulation.start_sync(company_id, step.size, ids, shapes)
        if step.started_late:
            options = DeliveryOptions(delay=step.started_late * MINUTE)
            self._simulation.send_sync_event(sync, "started", ["legacy"], options)
        if step.name:
            self._named[step.name] = sync
        return sync


async def _wait_for_receivers(simulation: Simulation) -> None:
    urls = {httpx.URL(target.url) for target in simulation.sender.subscriptions}
    try:
        async with asyncio.timeout(WAIT_FOR_RECEIVERS):
            for url in urls:
                while not await _accepts_connections(url):
                    await asyncio.sleep(0.2)
    except TimeoutError:
        log.warning("no receiver accepts connections; the scenario starts anyway")


async def _accepts_connections(url: httpx.URL) -> bool:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        _, writer = await asyncio.open_connection(url.host, port)
    except OSError:
        return False
    writer.close()
    return True
