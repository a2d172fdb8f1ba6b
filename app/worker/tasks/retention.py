"""Retention: removes raw webhook bodies and history that have grown old, or too long.

In small transactions with a pause after each, so that deliveries do not have to wait.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.db import alerts, change_feed, outgoing, retention
from app.db.engine import Database
from app.worker.threads import read, write

EVERY = timedelta(days=1)
ROWS_PER_STEP = 500
PAUSE_S = 0.02
REPORT_EVERY = 10_000
Prune = Callable[[Any, datetime, int], int]


@dataclass
class PruneReport:
    """How many rows a run removed, by kind."""

    bodies: int = 0
    changes: int = 0
    messages: int = 0
    alerts: int = 0
    timeline_entries: int = 0

    def __str__(self) -> str:
        return (
            f"Removed {self.bodies} raw webhook bodies, {self.changes} changes, "
            f"{self.messages} ended messages, {self.alerts} resolved alerts and "
            f"{self.timeline_entries} timeline entries"
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
        now, removed = self.clock(), PruneReport()
        if self.keep_events is not None:
            before = now - self.keep_events
            total = await read(self.database, retention.count_bodies, before)
            removed.bodies = await self._prune(retention.prune_bodies, before, total)
        if self.keep_changes is not None:
            before = now - self.keep_changes
            removed.changes = await self._prune(change_feed.prune, before)
            removed.messages = await self._prune(outgoing.prune, before)
            removed.alerts = await self._prune(alerts.prune, before)
        while step := await write(self.database, retention.prune_timelines):
            removed.timeline_entries += step
            await asyncio.sleep(PAUSE_S)
        return removed

    async def _prune(self, prune: Prune, before: datetime, bodies: int | None = None) -> int:
        """Remove what is old, step by step; reports the progress where `bodies` are many."""
        removed = 0
        while step := await write(self.database, prune, before, ROWS_PER_STEP):
            removed += step
            if bodies and removed // REPORT_EVERY != (removed - step) // REPORT_EVERY:
                self.report(f"{removed} of {bodies} bodies removed")
            await asyncio.sleep(PAUSE_S)
        return removed
