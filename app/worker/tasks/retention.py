"""Retention: raw webhook bodies, the feed of changes and ended messages are kept for so long.

In small transactions with a pause after each, so that deliveries never wait for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db import retention
from app.db.engine import Database

EVERY = timedelta(days=1)
PER_COMMIT = 500
PAUSE_S = 0.02
TELL_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run removed."""

    bodies: int
    before: datetime
    changes: int = 0
    messages: int = 0

    def __str__(self) -> str:
        bodies = (
            f"{self.bodies} raw bodies received before {self.before:%Y-%m-%d %H:%M} UTC removed"
        )
        return f"{bodies}, {self.changes} changes and {self.messages} sent messages forgotten"


@dataclass(frozen=True, slots=True)
class Retention:
    """Removes what is older than `keep`: bodies of events, changes, messages that were sent."""

    database: Database
    clock: Callable[[], datetime]
    keep: timedelta
    tell: Callable[[str], None] = lambda _: None

    async def run(self) -> Pruned:
        """Until none is left. What is done stays done when it is stopped half-way."""
        before = self.clock() - self.keep
        total = await asyncio.to_thread(self._count, before)
        gone = 0
        while True:
            some = await asyncio.to_thread(self._forget, before)
            gone += some
            if some == 0:
                break
            if gone // TELL_EVERY != (gone - some) // TELL_EVERY:
                self.tell(f"{gone} of {total} bodies removed")
            await asyncio.sleep(PAUSE_S)
        changes, messages = 0, 0
        while any(told := await asyncio.to_thread(self._forget_told, before)):
            changes, messages = changes + told[0], messages + told[1]
            await asyncio.sleep(PAUSE_S)
        return Pruned(gone, before, changes, messages)

    def _forget_told(self, before: datetime) -> tuple[int, int]:
        with self.database.writing() as connection:
            return retention.forget_told(connection, before)

    def _count(self, before: datetime) -> int:
        with self.database.reading() as connection:
            return retention.count_bodies(connection, before)

    def _forget(self, before: datetime) -> int:
        with self.database.writing() as connection:
            return retention.forget_bodies(connection, before, PER_COMMIT)
