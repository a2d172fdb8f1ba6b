"""Codat's limits on our calls: so many at once per company, so many a minute.

Codat allows ten concurrent requests per active company and a thousand a minute from one address,
and may block an address that asks more (Codat docs, "Rate limits").
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.errors import CodatRateLimited

AT_ONCE_PER_COMPANY = 4
ALLOWED_PER_COMPANY = 8  # by up to eight processes that call: under ten
AT_ONCE = 32
PER_MINUTE = 800  # and a tenth of it at once: well under a thousand in any minute
BURST_S = 6.0
REST_S = 2.0


class Limits:
    """Holds calls back until they are allowed. For one event loop."""

    def __init__(
        self,
        *,
        per_company: int = AT_ONCE_PER_COMPANY,
        at_once: int = AT_ONCE,
        per_minute: int = PER_MINUTE,
    ) -> None:
        self._most_per_company = self._per_company = per_company
        self._all = asyncio.Semaphore(at_once)
        self._companies: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}
        self._per_minute = per_minute
        self._callers = 1
        self._next = 0.0
        self._rest_until = 0.0

    def share(self, callers: int) -> None:
        """So many processes call Codat by now; each takes its part of what is allowed."""
        self._callers = max(1, callers)
        part = min(self._most_per_company, max(1, ALLOWED_PER_COMPANY // self._callers))
        if self._per_company != part:
            self._per_company = part
            self._companies.clear()  # who has a turn keeps it; whoever comes is counted anew

    def rest(self) -> None:
        """Codat said 429: hold this process's other calls until the gate of all is closed."""
        self._rest_until = time.monotonic() + REST_S

    def check(self) -> None:
        """Raise CodatRateLimited while this process rests."""
        left = self._rest_until - time.monotonic()
        if left > 0:
            raise CodatRateLimited("resting after Codat's 429", retry_after=timedelta(seconds=left))

    @asynccontextmanager
    async def turn(self, company_id: str | None) -> AsyncIterator[None]:
        """Wait for a turn; the turn lasts as long as the block."""
        if company_id is None:
            async with self._all:
                await self._pace()
                yield
            return
        async with self._company(company_id), self._all:
            await self._pace()
            yield

    @asynccontextmanager
    async def _company(self, company_id: str) -> AsyncIterator[None]:
        """The company's own limit; forgotten when nobody of it is left."""
        mine = self._companies.setdefault(company_id, asyncio.Semaphore(self._per_company))
        self._users[company_id] = self._users.get(company_id, 0) + 1
        try:
            async with mine:
                yield
        finally:
            self._users[company_id] -= 1
            if not self._users[company_id]:
                del self._users[company_id]
                self._companies.pop(company_id, None)

    async def _pace(self) -> None:
        """Spread calls so that a minute never sees more than allowed, with room for a burst."""
        now = time.monotonic()
        rate = self._per_minute / self._callers
        self._next = max(self._next, now - BURST_S) + 60 / rate
        if self._next > now:
            await asyncio.sleep(self._next - now)
