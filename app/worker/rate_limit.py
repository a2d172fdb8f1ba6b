"""Asks the database, before each call to Codat, whether calls must rest."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from app.db import rate_limit as gate
from app.db.engine import Database
from app.errors import CodatRateLimited

REMEMBERED = timedelta(milliseconds=200)


class Gate:
    """Awaited before a call; raises CodatRateLimited while the gate is closed.

    An open gate is remembered for a fifth of a second, so that a long list does not cost a query
    per page.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._seen_open_at: datetime | None = None

    async def __call__(self) -> None:
        """Return when a call may be made."""
        now = self._clock()
        if self._seen_open_at and now - self._seen_open_at < REMEMBERED:
            return
        until = await asyncio.to_thread(self._closed_until, now)
        if until is not None:
            raise CodatRateLimited(
                "Codat's rate limit is reached: all calls rest", retry_after=until - now
            )
        self._seen_open_at = now

    def _closed_until(self, now: datetime) -> datetime | None:
        with self._database.reading() as connection:
            return gate.closed_until(connection, now)
