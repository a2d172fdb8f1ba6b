"""The loop that carries out what is owed, and says that it lives.

It polls once a second and is woken at once when the inbox of the same process owes a fetch. Any
number of workers may run on one database; a dead one's fetches come due again by themselves.
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta

from app import logging as log
from app.db import counted
from app.db import jobs as owed
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.jobs import Claim
from app.errors import StorageUnavailable
from app.worker.fetcher import LEASE, Fetcher

POLL_S = 1.0
BEAT_EVERY = timedelta(seconds=10)
ALIVE_FOR = timedelta(seconds=30)
AT_ONCE = 16
AT_ONCE_OF_ONE = 6  # company: four of them may ask Codat at once (`codat.limits`), two record
GRACE_S = 5.0

_log = log.get(__name__)


class Worker:
    """One worker. `run` returns after `stop`; what is then unfinished is given back."""

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        *,
        clock: Callable[[], datetime],
        poll_s: float = POLL_S,
        duties: Callable[[], Coroutine[None, None, None]] | None = None,
        on_beat: Callable[[int], None] = lambda _alive: None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self._database = database
        self._fetcher = fetcher
        self._clock = clock
        self._poll_s = poll_s
        self._woken = asyncio.Event()
        self._stopping = False
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._beat_at: datetime | None = None
        self._duties = duties
        self._on_beat = on_beat

    def wake(self) -> None:
        """There is work now. Call it from the loop the worker runs in."""
        self._woken.set()

    def stop(self) -> None:
        """Claim nothing more; `run` ends when what is in hand is done or the grace is over."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Work until stopped. A database that is away is waited for."""
        duties = asyncio.create_task(self._duties()) if self._duties else None
        while not self._stopping:
            self._woken.clear()
            claimed = await self._claim()
            for each in claimed:
                self._start(each)
            if not claimed or len(self._running) >= AT_ONCE:
                await self._pause()
        if duties:
            duties.cancel()
        await self._end()
        if duties:
            await asyncio.wait([duties])

    async def _claim(self) -> list[Claim]:
        try:
            held = [each.company_id for each in self._running.values()]
            return await asyncio.to_thread(self._beat_and_claim, held)
        except StorageUnavailable as error:
            _log.warning("the worker waits for the database", reason=str(error))
        except Exception:
            _log.exception("the worker could not look for work; it tries again")
        return []

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):  # `wait_for` may swallow a cancellation
                await self._woken.wait()

    def _beat_and_claim(self, held: list[str]) -> list[Claim]:
        now = self._clock()
        room = AT_ONCE - len(held)
        if self._beat_at is None or now - self._beat_at >= BEAT_EVERY:
            with self._database.writing() as connection:
                store.beat(connection, self.name, now)
                alive = store.workers_alive(connection, now - ALIVE_FOR)
                counted.fold(connection)
            self._on_beat(alive)
            self._beat_at = now
        if room <= 0 or not self._is_anything_due(now):
            return []
        with self._database.writing() as connection:
            return owed.claim(
                connection, now=now, lease=LEASE, limit=room, held=held, of_one=AT_ONCE_OF_ONE
            )

    def _is_anything_due(self, now: datetime) -> bool:
        """A read first: an idle worker must not take SQLite's write lock every second."""
        with self._database.reading() as connection:
            return owed.is_due(connection, now)

    def _start(self, claimed: Claim) -> None:
        task = asyncio.create_task(self._carry_out(claimed))
        self._running[task] = claimed
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._woken.set()

    async def _carry_out(self, claimed: Claim) -> None:
        ids = {"sync_id": claimed.sync_id, "company_id": claimed.company_id}
        try:
            await self._fetcher.fetch(claimed)
        except StorageUnavailable as error:
            _log.warning("a fetch was not recorded; its lease ends", reason=str(error), **ids)
        except Exception:
            _log.exception("a fetch failed in an unforeseen way; its lease runs out", **ids)

    async def _end(self) -> None:
        """Let what is in hand finish for a moment, then give the rest back for another worker."""
        tasks = dict(self._running)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await asyncio.to_thread(self._give_back, [tasks[task] for task in late])
        await asyncio.to_thread(self._forget)

    def _give_back(self, claims: list[Claim]) -> None:
        try:
            with self._database.writing() as connection:
                for claimed in claims:
                    owed.put_off(connection, claimed, until=self._clock(), error=None, free=True)
        except StorageUnavailable as error:
            _log.warning("claims could not be given back", reason=str(error))

    def _forget(self) -> None:
        try:
            with self._database.writing() as connection:
                store.forget_worker(connection, self.name)
        except StorageUnavailable as error:
            _log.warning("the worker could not say goodbye", reason=str(error))
