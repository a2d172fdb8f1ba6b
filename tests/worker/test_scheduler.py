"""Periodic tasks: one replica per period, and a failing task stops no other."""

import asyncio

import pytest

from app.db.engine import Database
from app.errors import CodatUnavailable
from app.worker import scheduler as scheduler_module
from app.worker.scheduler import PeriodicTask, run_periodic_tasks
from tests.factories import after
from tests.worker.fakes import Clock
from tests.worker.tasks.test_reconcile import HOUR


def test_a_task_that_fails_does_not_stop_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with a known error nor with an unexpected one; it runs again in its next period."""
    monkeypatch.setattr(scheduler_module, "CHECK_EVERY_S", 0.01)
    clock = Clock()
    runs: list[str] = []

    async def unavailable() -> None:
        runs.append("unavailable")
        raise CodatUnavailable("down")

    async def broken() -> None:
        runs.append("broken")
        raise KeyError("unexpected")

    async def works() -> None:
        runs.append("works")

    async def run() -> None:
        tasks = [PeriodicTask(task.__name__, HOUR, task) for task in (unavailable, broken, works)]
        running = asyncio.create_task(run_periodic_tasks(database, tasks, clock))
        async with asyncio.timeout(20):
            while len(runs) < 3:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            clock.now = after(hours=1)
            while len(runs) < 6:
                await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(run())
    assert runs[:3] == ["unavailable", "broken", "works"]
    assert sorted(runs[3:]) == ["broken", "unavailable", "works"]
