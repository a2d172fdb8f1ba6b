"""Periodic duties: each is done by exactly one of any number of replicas per period."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import logging as log
from app.db import reconciliation as compare
from app.db.engine import Database
from app.errors import ServiceError

LOOK_EVERY_S = 5.0

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to do every so often; `name` is shared by all replicas."""

    name: str
    every: timedelta
    run: Callable[[], Awaitable[object]]


class Duties:
    """Looks every few seconds for a duty that is due, and does it."""

    def __init__(
        self, database: Database, duties: Sequence[Duty], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._duties = duties
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled. A duty that fails is logged and comes due again in its own time."""
        while True:
            for duty in self._duties:
                await self._do(duty)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _do(self, duty: Duty) -> None:
        try:
            if await asyncio.to_thread(self._take, duty):
                done = await duty.run()
                _log.info("a duty was done", duty=duty.name, result=str(done))
        except ServiceError as error:
            _log.warning("a duty could not be done", duty=duty.name, reason=str(error))
        except Exception:
            _log.exception("a duty failed in an unforeseen way", duty=duty.name)

    def _take(self, duty: Duty) -> bool:
        now = self._clock()
        with self._database.reading() as connection:
            if not compare.is_due(connection, duty.name, now):
                return False
        with self._database.writing() as connection:
            return compare.take_duty(connection, duty.name, now=now, every=duty.every)
