"""Limits on our calls to Codat: concurrent calls per company and in total, and calls per minute.

Codat allows ten concurrent requests per active company and a thousand a minute from one address,
and may block an address that sends more (Codat docs, "Rate limits").
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from weakref import WeakValueDictionary

from app.errors import CodatRateLimited

PER_COMPANY = 4
PER_COMPANY_SHARED = 8  # by up to eight processes: below Codat's ten
CONCURRENT = 32
PER_MINUTE = 800  # plus a burst of a tenth: well below a thousand in any minute
BURST_S = 6.0
LOCAL_PAUSE_S = 2.0


class CallLimits:
    """Delays calls until they are allowed. For use in one event loop."""

    def __init__(
        self,
        *,
        per_company: int = PER_COMPANY,
        concurrent: int = CONCURRENT,
        per_minute: int = PER_MINUTE,
    ) -> None:
        self._max_per_company = self._per_company = per_company
        self._total = asyncio.Semaphore(concurrent)
        self._companies = WeakValueDictionary[str, asyncio.Semaphore]()  # of running calls
        self._per_minute = per_minute
        self._processes = 1
        self._next_start = 0.0
        self._paused_until = 0.0

    def share(self, processes: int) -> None:
        """Use only this process's part of the limits, of so many processes that call Codat."""
        self._processes = max(1, processes)
        part = min(self._max_per_company, max(1, PER_COMPANY_SHARED // self._processes))
        if self._per_company != part:
            self._per_company = part
            self._companies.clear()  # running calls finish; later ones use new semaphores

    def pause(self) -> None:
        """Stop this process's calls for a moment after a 429, until the shared pause is stored."""
        self._paused_until = time.monotonic() + LOCAL_PAUSE_S

    def check(self) -> None:
        """Raise CodatRateLimited while this process pauses."""
        left = self._paused_until - time.monotonic()
        if left > 0:
            raise CodatRateLimited("paused after Codat's 429", retry_after=timedelta(seconds=left))

    @asynccontextmanager
    async def slot(self, company_id: str | None) -> AsyncIterator[None]:
        """Wait until a call may start; the slot is taken until the block ends."""
        company: AbstractAsyncContextManager[None] = nullcontext()
        if company_id is not None:
            company = self._companies.setdefault(company_id, asyncio.Semaphore(self._per_company))
        async with company, self._total:
            await self._pace()
            yield

    async def _pace(self) -> None:
        """Spread calls over the minute, with room for a burst."""
        now = time.monotonic()
        rate = self._per_minute / self._processes
        self._next_start = max(self._next_start, now - BURST_S) + 60 / rate
        if self._next_start > now:
            await asyncio.sleep(self._next_start - now)
