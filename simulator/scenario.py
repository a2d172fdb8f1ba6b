"""A lively morning: six companies, forty syncs in three simulated hours, then a slow trickle.

Everything a receiver should be ready for happens once: each outcome, a cure, a duplicate, the same
sync told in both generations, news out of order, an event nobody knows. The plot is in `story.py`.
"""

import asyncio
import logging

from simulator.box import Box
from simulator.deliveries import Plan
from simulator.story import COMPANIES, HEALTHY, MINUTE, Step, everyday, plot
from simulator.world import Ending, Sync

WAIT_FOR_RECEIVER = 30.0
TRICKLE = (3.0, 6.0)

log = logging.getLogger(__name__)


async def play(box: Box) -> None:
    """Play the morning at the box's speed, then go on with a sync every few real seconds.

    Waits at most 30 real seconds for the receivers to listen. Ends only when cancelled.
    """
    await _receivers(box)
    cast = Cast(box)
    for step in plot(cast.rng):
        await box.clock.sleep(step.minute * MINUTE - (box.clock.elapsed() - cast.begin))
        box.sender.spawn(cast.perform(step))
    while True:
        await box.clock.real_sleep(cast.rng.uniform(*TRICKLE))
        box.sender.spawn(cast.perform(everyday(cast.rng, 0.0, HEALTHY)))


async def _receivers(box: Box) -> None:
    waited = 0.0
    while waited < WAIT_FOR_RECEIVER and not await box.sender.reachable():
        await box.clock.real_sleep(0.2)
        waited += 0.2


class Cast:
    """The companies on stage and the syncs that later steps refer to."""

    def __init__(self, box: Box) -> None:
        """Create the companies; the morning begins now."""
        self._box = box
        self.rng = box.dice
        self.begin = box.clock.elapsed()
        self.companies = [box.world.add_company(name, soft) for name, soft in COMPANIES]
        self.known: dict[str, Sync] = {}

    async def perform(self, step: Step) -> None:
        """Act out one step from its start to its end; a slip is logged, the show goes on."""
        try:
            await self._perform(step)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a step of the scenario failed: %s", step.name or step.outcome)

    async def _perform(self, step: Step) -> None:
        box, company = self._box, self.companies[step.company]
        if step.connection:
            box.set_connection(company.company_id, step.connection)
        if step.unknown_event:
            box.unknown_event()
        if not step.outcome:
            return
        sync = self._begin(step)
        if step.outcome == "in_progress":
            return
        await box.clock.sleep(step.lasts * MINUTE)
        if step.completed_first:
            box.tell(sync, "completed", ["legacy"])
        plan = Plan(copies=step.copies, family=step.family)
        box.advance_sync(sync.sync_id, Ending(step.outcome), step.shapes, plan)

    def _begin(self, step: Step) -> Sync:
        box, company = self._box, self.companies[step.company]
        again = self.known[step.retries].failed_ids() if step.retries else None
        told = ["legacy"] if step.started else []
        sync = box.start_sync(company.company_id, step.size, None, again, told)
        if step.started_late:
            plan = Plan(delay=step.started_late * MINUTE)
            box.tell(sync, "started", ["legacy"], plan)
        if step.name:
            self.known[step.name] = sync
        return sync
