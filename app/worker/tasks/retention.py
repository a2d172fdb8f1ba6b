"""Retention: removes raw webhook bodies and history that have grown old.

In small transactions with a pause after each, so that deliveries do not have to wait.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from app.db import alerts, change_feed, outgoing, retention
from app.db.engine import Database
from app.worker.threads import read, write

EVERY = timedelta(days=1)
ROWS_PER_STEP = 500
PAUSE_S = 0.02
REPORT_EVERY = 10_000
Prune = Callable[[Any, datetime, int], int]


class PruneReport(NamedTuple):
    """How many rows a run removed, by kind."""

    bodies: int = 0
    changes: int = 0
    messages: int = 0
    alerts: int = 0

    def __str__(self) -> str:
        return (
            f"Removed {self.bodies} raw webhook bodies, {self.changes} changes, "
            f"{self.messages} ended messages and {self.alerts} resolved alerts"
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """Removes what is older than the two periods; None means unlimited.

    `keep_events` is for raw bodies; `keep_changes` for the change feed, ended messages and resolved
    alerts. `report` receives the progress.
    """

    database: Database
    clock: Callable[[], datetime]
    keep_events: timedelta | None
    keep_changes: timedelta | None
    report: Callable[[str], None] = lambda _: None

    async def run(self) -> PruneReport:
        """Run until nothing old is left. What is removed stays removed if it is stopped."""
        now = self.clock()
        removed = PruneReport()
        if self.keep_events is not None:
            removed = PruneReport(await self._prune_bodies(now - self.keep_events))
        if self.keep_changes is not None:
            before = now - self.keep_changes
            prunes = (change_feed.prune, outgoing.prune, alerts.prune)
            history = [sum([n async for n in self._prune(each, before)]) for each in prunes]
            removed = PruneReport(removed.bodies, *history)
        return removed

    async def _prune_bodies(self, before: datetime) -> int:
        total = await read(self.database, retention.count_bodies, before)
        removed = 0
        async for step in self._prune(retention.prune_bodies, before):
            removed += step
            if removed // REPORT_EVERY != (removed - step) // REPORT_EVERY:
                self.report(f"{removed} of {total} bodies removed")
        return removed

    async def _prune(self, prune: Prune, before: datetime) -> AsyncIterator[int]:
        """Remove what is old; gives how many rows each step removed."""
        while step := await write(self.database, prune, before, ROWS_PER_STEP):
            yield step
            await asyncio.sleep(PAUSE_S)
