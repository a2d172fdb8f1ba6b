"""The worker: runs the projector, the job queue and the periodic tasks, and sends heartbeats.

Any number of workers share one database. A dead worker is detected by its heartbeat, and the
others take over its jobs. It polls, and is woken when the web server of the same process has
stored events or enqueued jobs.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from app import logging as log
from app.db import workers
from app.db.engine import Database
from app.db.jobs import Kind
from app.errors import DatabaseDown, DatabaseUnavailable
from app.worker.dispatcher import Dispatcher
from app.worker.fetcher import Fetcher
from app.worker.job_pool import AttemptResult, Handle, JobPool
from app.worker.projector import Projector
from app.worker.scheduler import PeriodicTask, run_periodic_tasks

HEARTBEAT_EVERY_S = 3.0
DEAD_AFTER = timedelta(seconds=10)
EVENT_POLL_S = 0.25
JOB_POLL_S = 1.0
DOWN_POLL_S = 1.0
GRACE_S = 5.0

FETCHES = 16
FETCHES_PER_COMPANY = 6  # four of them may call Codat (`codat.rate_limiter`), two record
MESSAGES_PER_RECIPIENT = 4

_log = log.get(__name__)
T = TypeVar("T")


class Heartbeats:
    """Finds out which workers are silent: their heartbeat has not changed for `DEAD_AFTER`.

    Only this worker's clock counts, so those of the hosts need not agree. A worker that has just
    started, or could not read the heartbeats for as long, has to watch the others first.
    """

    def __init__(self) -> None:
        self._unchanged_since: dict[tuple[str, datetime | None], datetime] = {}
        self._read_at: datetime | None = None

    def find_silent(self, latest: Mapping[str, datetime | None], now: datetime) -> list[str]:
        """The silent workers; `latest` are all heartbeats as they are stored now."""
        if self._read_at is None or now - self._read_at >= DEAD_AFTER:
            self._unchanged_since = {}
        self._read_at = now
        since = self._unchanged_since
        self._unchanged_since = {beat: since.get(beat, now) for beat in latest.items()}
        return [
            worker_id
            for (worker_id, _), unchanged_since in self._unchanged_since.items()
            if now - unchanged_since >= DEAD_AFTER
        ]


class Runner:
    """One worker process. `run` it until `stop`; unfinished jobs are then released."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        projector: Projector,
        fetcher: Fetcher,
        dispatcher: Dispatcher | None = None,
        periodic_tasks: Sequence[PeriodicTask] = (),
        on_heartbeat: Callable[[int], None] = lambda _alive: None,
        on_attempt: Callable[[Kind, AttemptResult], None] | None = None,
        trace_job: Callable[[Handle], Handle] | None = None,
    ) -> None:
        """`on_heartbeat` receives how many workers are alive; `on_attempt` each job's result.
        `trace_job` wraps the handlers of jobs.

        Without a dispatcher, outgoing messages wait.
        """
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self._database = database
        self._clock = clock
        self._projector = projector
        self._periodic_tasks = periodic_tasks
        self._on_heartbeat = on_heartbeat
        trace = trace_job or (lambda handle: handle)
        make_pool = partial(
            JobPool,
            database,
            clock=clock,
            worker_id=self.worker_id,
            on_attempt=on_attempt,
        )
        self._pools = [
            make_pool("fetch", trace(fetcher.handle), limit=FETCHES, per_group=FETCHES_PER_COMPANY)
        ]
        if dispatcher:
            messages = make_pool(
                "message",
                trace(dispatcher.handle),
                limit=MESSAGES_PER_RECIPIENT * len(dispatcher.channels),
                per_group=MESSAGES_PER_RECIPIENT,
                groups=dispatcher.channels.keys(),
                before_claim=dispatcher.address,
            )
            self._pools.append(messages)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._is_alive = asyncio.Event()
        self._heartbeats = Heartbeats()
        self._is_database_down = False
        # a thread of its own: a worker whose other threads are busy is not dead
        self._heartbeat_thread = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")

    def wake(self) -> None:
        """Look for events and jobs now. May be called from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._woken.set)

    def stop(self) -> None:
        """Claim nothing more and let `run` end. Call it from the event loop."""
        self._stopping.set()
        self._woken.set()
        self._is_alive.set()
        for pool in self._pools:
            pool.wakeup.set()

    async def run(self) -> None:
        """Work until stopped or cancelled. A database that is down is waited for."""
        self._loop = asyncio.get_running_loop()
        heartbeat = asyncio.create_task(self._send_heartbeats())
        periodic = run_periodic_tasks(self._database, self._periodic_tasks, self._clock)
        scheduler = asyncio.create_task(periodic)
        loops = [asyncio.create_task(self._project_events())]
        loops += [asyncio.create_task(self._consume(pool)) for pool in self._pools]
        try:
            await self._stopping.wait()
        finally:
            self.stop()
            scheduler.cancel()
            await self._finish(loops)
            heartbeat.cancel()
            await asyncio.wait([heartbeat, scheduler])
            await self._attempt(partial(self._in_heartbeat_thread, self._remove_heartbeat))
            self._heartbeat_thread.shutdown(wait=False)

    async def _finish(self, loops: Sequence["asyncio.Task[None]"]) -> None:
        """Let the loops end, and the jobs in hand; not longer than the grace in all."""
        deadline = asyncio.get_running_loop().time() + GRACE_S
        _, late = await asyncio.wait(loops, timeout=GRACE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        await asyncio.gather(*(pool.shut_down(left) for pool in self._pools))

    async def _project_events(self) -> None:
        while not self._stopping.is_set():
            was_woken = self._woken.is_set()
            self._woken.clear()
            project = partial(asyncio.to_thread, self._projector.project_pending)
            handled = await self._attempt(project)
            if handled or was_woken:
                for pool in self._pools:
                    pool.wakeup.set()
            if not handled:
                await _wait(self._woken, EVENT_POLL_S if handled == 0 else DOWN_POLL_S)

    async def _consume(self, pool: JobPool) -> None:
        await self._is_alive.wait()
        while not self._stopping.is_set():
            pool.wakeup.clear()
            started = await self._attempt(pool.claim_due)
            if not started or pool.is_full:
                await _wait(pool.wakeup, JOB_POLL_S)

    async def _send_heartbeats(self) -> None:
        while True:
            await self._attempt(self._send_heartbeat)
            await asyncio.sleep(HEARTBEAT_EVERY_S)

    async def _send_heartbeat(self) -> None:
        alive = await self._in_heartbeat_thread(self._beat)
        if self._is_database_down:
            _log.info("the database is available again")
        self._is_database_down = False
        self._is_alive.set()
        self._on_heartbeat(alive)

    def _beat(self) -> int:
        """Record that this worker is alive, and take over the jobs of those that are not."""
        with self._database.writing(priority=True) as connection:
            now = self._clock()
            workers.beat(connection, self.worker_id, now)
            silent = self._heartbeats.find_silent(workers.heartbeats(connection), now)
            taken = workers.take_over(connection, silent)
            alive = workers.alive(connection, now - workers.LIVE_FOR)
        if taken:
            _log.warning("took over jobs of a worker that is gone", count=taken)
            self.wake()
        return alive

    def _remove_heartbeat(self) -> None:
        with self._database.writing(priority=True) as connection:
            workers.remove(connection, self.worker_id)

    async def _in_heartbeat_thread(self, function: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._heartbeat_thread, function)

    async def _attempt(self, step: Callable[[], Awaitable[T]]) -> T | None:
        """The step's result; None when it failed. Logs the start of an outage once."""
        try:
            return await step()
        except DatabaseDown as error:
            if not self._is_database_down:
                _log.warning("the database is down; waiting for it", reason=str(error))
            self._is_database_down = True
        except DatabaseUnavailable as error:
            _log.warning("a database transaction failed; trying again", reason=str(error))
        except Exception:
            _log.exception("the worker failed unexpectedly; trying again")
        return None


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):  # `wait_for` may swallow a cancellation
            await event.wait()
