"""Periodic tasks: each runs on exactly one of any number of replicas per period."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app import logging as log
from app.db import workers
from app.db.engine import Database
from app.errors import DatabaseDown, ServiceError
from app.worker.threads import read, write

CHECK_EVERY_S = 5.0

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """Work to do every so often; `name` is the same on all replicas.

    `run` returns a result that is logged.
    """

    name: str
    every: timedelta
    run: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Checks every few seconds which tasks are due, and runs them one after the other."""

    database: Database
    tasks: Sequence[PeriodicTask]
    clock: Callable[[], datetime]

    async def run(self) -> None:
        """Run until cancelled. A task that fails is logged and runs again in its next period."""
        while True:
            for task in self.tasks:
                await self._run_if_due(task)
            await asyncio.sleep(CHECK_EVERY_S)

    async def _run_if_due(self, task: PeriodicTask) -> None:
        try:
            now = self.clock()
            if not await read(self.database, workers.is_task_due, task.name, now):
                return
            if await write(self.database, workers.take_task, task.name, now=now, every=task.every):
                result = await task.run()
                _log.info("periodic task finished", task=task.name, result=str(result))
        except DatabaseDown:
            pass  # the runner's heartbeat reports it
        except ServiceError as error:
            _log.warning("periodic task failed", task=task.name, reason=str(error))
        except Exception:
            _log.exception("periodic task failed unexpectedly", task=task.name)
