"""Calls to Codat: the pause that all replicas share, and errors for a caller who waits."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from app.db import rate_limit
from app.db.engine import Database
from app.domain.retry_policy import pause_until
from app.errors import (
    CodatRateLimited,
    CodatRefused,
    CodatUnavailable,
    Conflict,
    NotFound,
    UpstreamRefused,
)
from app.worker.threads import read, write

CACHE_FOR = timedelta(milliseconds=200)
T = TypeVar("T")
_NOT_FOUND = "Codat has no such company, or Sync for Expenses is not set up for it."
_CONFLICT = "A sync of this company is in progress at Codat, or the company is not ready."
_REFUSALS = {
    401: "Codat rejects this service's API key (CODAT_API_KEY)",
    402: "Your Codat plan does not allow this: it has ended, or its limit is reached",
    403: "Codat rejects this service's API key (CODAT_API_KEY)",
}


@dataclass
class RateLimitPause:
    """Awaited before a call; raises CodatRateLimited while all calls pause.

    The absence of a pause is cached for a fifth of a second, so that a long list does not cost a
    query per page.
    """

    database: Database
    clock: Callable[[], datetime]
    _unpaused_at: datetime | None = field(default=None, init=False)

    async def __call__(self) -> None:
        """Return when a call may be made."""
        now = self.clock()
        if self._unpaused_at and now - self._unpaused_at < CACHE_FOR:
            return
        until = await read(self.database, rate_limit.paused_until, now)
        if until is not None:
            reason = "Codat's rate limit is reached; all calls are paused"
            raise CodatRateLimited(reason, retry_after=until - now)
        self._unpaused_at = now


@dataclass(frozen=True, slots=True)
class InteractiveCalls:
    """Calls to Codat while a caller waits: one attempt, with errors that can be shown."""

    database: Database
    clock: Callable[[], datetime]

    async def run(self, call: Awaitable[T]) -> T:
        """The call's result.

        Raises NotFound, Conflict, UpstreamRefused, or the CodatError where waiting helps. A 429
        pauses all calls of all replicas, as it does in the worker.
        """
        try:
            return await call
        except CodatRateLimited as error:
            if error.status is not None:
                now = self.clock()
                until = pause_until(error.retry_after, now)
                await write(self.database, rate_limit.pause, until, str(error), now)
            raise
        except CodatRefused as error:
            if error.status in (404, None):
                raise NotFound(_NOT_FOUND) from error
            reason = _REFUSALS.get(error.status, f"Codat refused the request ({error.status})")
            raise UpstreamRefused(reason) from error
        except CodatUnavailable as error:
            if error.status == 409:
                raise Conflict(_CONFLICT) from error
            raise
