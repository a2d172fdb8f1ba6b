"""Asks Codat on behalf of somebody who waits for the answer, and says plainly why there is none."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from app.db import rate_limit as gate
from app.db.engine import Database
from app.domain import retry_policy as retry
from app.errors import (
    CodatRateLimited,
    CodatRefused,
    CodatUnavailable,
    Conflicting,
    Declined,
    NotKnown,
    ServiceError,
)

T = TypeVar("T")
_NOTHING = "Codat has nothing under this id: no such company, or no Sync for Expenses set up for it"
_NOT_NOW = "Codat cannot do this now: a sync of this company is in progress, or it is not ready"
_NO_KEY = "Codat does not accept this service's key: see CODAT_API_KEY"
_PLAN = "Codat's plan does not allow this: its limit is reached or it has ended"


class HasConfigs(Protocol):
    """What is needed of the Codat client to read a configuration."""

    async def get_config(self, company_id: str) -> dict[str, Any]:
        """A company's sync configuration; raises CodatError."""


class Asking:
    """Asks while a caller waits: one call, no retrying, a plain reason when it fails."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def plainly(self, call: Awaitable[T]) -> T:
        """What the call answers. Raises NotKnown, Conflicting, Declined, or CodatError to pass on.

        A 429 closes the gate for all callers, as it does wherever it is met.
        """
        try:
            return await call
        except CodatRateLimited as error:
            if error.status is not None:
                await asyncio.to_thread(self._close_gate, error)
            raise
        except CodatRefused as error:
            raise _declined(error) from error
        except CodatUnavailable as error:
            if error.status == 409:
                raise Conflicting(_NOT_NOW) from error
            raise

    def _close_gate(self, error: CodatRateLimited) -> None:
        now = self._clock()
        with self._database.writing() as connection:
            gate.close(connection, retry.rest_until(error.retry_after, now), str(error), now)


def _declined(error: CodatRefused) -> ServiceError:
    if error.status in (404, None):
        return NotKnown(_NOTHING)
    if error.status in (401, 403):
        return Declined(_NO_KEY)
    if error.status == 402:
        return Declined(_PLAN)
    return Declined(f"Codat refuses this ({error.status})")
