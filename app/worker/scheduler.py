"""Periodic tasks: each runs on exactly one of any number of replicas per period."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app import logging as log
from app.db import workers
from app.db.engine import Database
from app.errors import DatabaseDown, ServiceError
from app.worker.threads import read, write

CHECK_EVERY_S = 5.0

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """A task that runs once per period; `name` is the same on all replicas.

    `run` returns a result that is logged. A worker for which `may_run`, a read, is false leaves the
    task to the others.
    """

    name: str
    every: timedelta
    run: Callable[[], Awaitable[object]]
    may_run: Callable[[Any], bool] = lambda _connection: True


async def run_periodic_tasks(
    database: Database, tasks: Sequence[PeriodicTask], clock: Callable[[], datetime]
) -> None:
    """Check every few seconds which tasks are due, and run them one by one, until cancelled.

    A task that fails is logged and runs again in its next period.
    """
    while True:
        for task in tasks:
            try:
                await _run_if_due(database, task, clock())
            except DatabaseDown:
                pass  # the runner's heartbeat reports it
            except ServiceError as error:
                _log.warning("periodic task failed", task=task.name, reason=str(error))
            except Exception:
                _log.exception("periodic task failed unexpectedly", task=task.name)
        await asyncio.sleep(CHECK_EVERY_S)


async def _run_if_due(database: Database, task: PeriodicTask, now: datetime) -> None:
    if not await read(database, task.may_run):
        return
    if not await read(database, workers.is_task_due, task.name, now):
        return
    if await write(database, workers.take_task, task.name, now=now, every=task.every):
        try:
            result = await task.run()
        except DatabaseDown as error:  # which may be a statement that took too long
            _log.warning("periodic task failed", task=task.name, reason=str(error))
            return
        _log.info("periodic task finished", task=task.name, result=str(result))
