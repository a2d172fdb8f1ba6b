"""The job pool: claims due jobs of one kind, and has them carried out within limits."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from app import logging as log
from app.db import jobs
from app.db.engine import Database
from app.db.jobs import Claim, Kind
from app.errors import DatabaseDown, DatabaseUnavailable
from app.worker.threads import write

LEASE = timedelta(seconds=60)
RENEW_EVERY_S = LEASE.total_seconds() / 3
FINISH_WITHIN_S = 1.0
RETRY_AFTER_ERROR = timedelta(seconds=5)

AttemptResult = Literal["done", "retry", "paused", "dead", "lost", "error"]
"""How an attempt of a job ended. `paused`: calls to Codat pause, the attempt does not count;
`lost`: another worker has the job; `error`: the result could not be recorded."""
Handle = Callable[[Claim], Awaitable[AttemptResult]]
"""Carries out one job and records its result, or raises DatabaseUnavailable."""

_log = log.get(__name__)


@dataclass(eq=False)
class JobPool:
    """Consumes one kind of job: claims, renews leases while the handler runs, respects limits.

    At most `limit` jobs are in hand, and at most `per_group` of one group, so that a slow company
    or recipient does not delay the others. With `groups`, jobs of other groups are left alone.
    `before_claim` is awaited before each claim.
    `handle` carries out one job and records its result, or raises DatabaseUnavailable. `wakeup` is
    set when a job has ended.
    """

    database: Database
    kind: Kind
    handle: Handle
    clock: Callable[[], datetime]
    worker_id: str
    limit: int
    per_group: int
    groups: Collection[str] | None = None
    before_claim: Callable[[], Awaitable[object]] | None = None
    on_attempt: Callable[[Kind, AttemptResult], None] | None = None
    wakeup: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _running: dict[asyncio.Task[None], Claim] = field(default_factory=dict, init=False)

    @property
    def is_full(self) -> bool:
        """True when no further job can be in hand."""
        return len(self._running) >= self.limit

    async def claim_due(self) -> int:
        """Claim due jobs as far as there is room, and start them; returns how many."""
        if self.is_full:
            return 0
        if self.before_claim:
            await self.before_claim()
        in_hand = Counter(claim.group_key for claim in self._running.values())
        claims = await asyncio.to_thread(self._claim, in_hand)
        for claim in claims:
            task = asyncio.create_task(self._run(claim))
            self._running[task] = claim
            task.add_done_callback(self._finish)
        return len(claims)

    def _claim(self, in_hand: Mapping[str, int]) -> list[Claim]:
        now = self.clock()
        with self.database.reading() as connection:  # spares an idle worker SQLite's write lock
            if not jobs.is_due(connection, self.kind, now, groups=self.groups):
                return []
        with self.database.writing() as connection:
            return jobs.claim(
                connection,
                self.kind,
                now=now,
                lease=LEASE,
                limit=self.limit - sum(in_hand.values()),
                worker_id=self.worker_id,
                in_hand=in_hand,
                per_group=self.per_group,
                groups=self.groups,
            )

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self.wakeup.set()

    async def _run(self, claim: Claim) -> None:
        with log.bound(**claim.origin._asdict()):
            handling = asyncio.create_task(self._handle(claim))
        result: AttemptResult = "lost"
        try:
            if await self._renew_until_done(claim, handling):
                result = handling.result()
        finally:
            handling.cancel()
            await asyncio.wait([handling])
        if self.on_attempt:
            self.on_attempt(self.kind, result)

    async def _renew_until_done(self, claim: Claim, handling: asyncio.Task[AttemptResult]) -> bool:
        """Renew the lease while the handler runs; False when another worker has the job."""
        while not (await asyncio.wait([handling], timeout=RENEW_EVERY_S))[0]:
            try:
                until = self.clock() + LEASE
                is_ours = await write(self.database, jobs.renew, claim, until)
            except DatabaseUnavailable:
                continue  # no other worker can claim it now; if one did, recording the result fails
            # a handler whose lease is lost may have ended the job at this very moment
            if not is_ours and not (await asyncio.wait([handling], timeout=FINISH_WITHIN_S))[0]:
                _log.warning("lost the lease of a job", **_fields(claim))
                return False
        return True

    async def _handle(self, claim: Claim) -> AttemptResult:
        reason, is_down = "internal error, see the log", False
        try:
            return await self.handle(claim)
        except DatabaseUnavailable as error:
            reason, fields = "the result could not be stored", _fields(claim)
            is_down = isinstance(error, DatabaseDown)
            _log.warning("could not record the result of a job", reason=str(error), **fields)
        except Exception:
            _log.exception("job failed unexpectedly", **_fields(claim))
        reschedule = partial(jobs.reschedule, error=reason, refund_attempt=is_down)
        with suppress(DatabaseUnavailable):  # then its lease expires
            run_at = self.clock() + RETRY_AFTER_ERROR
            await write(self.database, reschedule, claim, run_at=run_at)
        return "error"

    async def shut_down(self, grace_s: float) -> None:
        """Let running jobs finish for a moment; release the others for another worker."""
        tasks = dict(self._running)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        claims = sorted((tasks[task] for task in late), key=lambda claim: claim.key)

        def release(connection: Any) -> None:
            for claim in claims:
                jobs.release(connection, claim)

        try:
            if claims:
                await write(self.database, release)
        except DatabaseUnavailable as error:
            _log.warning("could not release jobs", count=len(claims), reason=str(error))


def _fields(claim: Claim) -> dict[str, object]:
    return {"kind": claim.kind, "key": claim.key, "group": claim.group_key}
