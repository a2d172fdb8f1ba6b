"""Start a sync at Codat for a caller who waits: one at a time per company.

    acquire the lock → does Codat list a sync in progress? → start → store it → release the lock

Codat decides whether one is in progress, because a start or end that no webhook reported would
mislead us. Only for a sync that is new here and not in Codat's list yet, our own state counts.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from app import logging as log
from app.codat.client import CALL_TIMEOUT_S, CodatClient
from app.db import start_lock
from app.db.engine import Database
from app.domain.status_codes import phase_of
from app.errors import (
    BadRequest,
    CodatRefused,
    CodatUnavailable,
    Conflict,
    DatabaseUnavailable,
    ServiceError,
)
from app.worker.codat_calls import InteractiveCalls
from app.worker.threads import read, write

LOCKED_FOR = timedelta(seconds=120)  # longer than both calls may take
LISTED_WITHIN = timedelta(minutes=10)

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class SyncStarter:
    """Starts syncs, one at a time per company over all replicas."""

    database: Database
    codat: CodatClient
    clock: Callable[[], datetime]

    async def start(self, company_id: str, dataset_ids: Sequence[str], *, actor: str | None) -> str:
        """Start a sync and return its id; `actor` is the name of the caller's API key.

        Raises Conflict while one is in progress or being started, BadRequest when Codat refuses the
        datasets or the company's connections, and what `InteractiveCalls.run` raises.
        """
        async with self._locked(company_id, dataset_ids) as key:
            calls = InteractiveCalls(self.database, self.clock)
            known, running = await calls.run(self._list_syncs(company_id))
            await self._require_none_in_progress(company_id, known, running)
            sync_id = await calls.run(self._initiate(company_id, dataset_ids, key))
            await self._record(company_id, sync_id, len(dataset_ids), actor)
        return sync_id

    @asynccontextmanager
    async def _locked(self, company_id: str, dataset_ids: Sequence[str]) -> AsyncIterator[str]:
        """Hold the company's start lock; gives the idempotency key."""
        now = self.clock()
        digest = hashlib.sha256(" ".join(sorted(dataset_ids)).encode()).hexdigest()
        key = await write(
            self.database, start_lock.acquire, company_id, digest, now=now, until=now + LOCKED_FOR
        )
        if key is None:
            raise Conflict("Another request is starting a sync of this company.")
        is_outcome_known = False
        try:
            yield key
            is_outcome_known = True
        except ServiceError as error:
            is_outcome_known = not isinstance(error, CodatUnavailable)
            raise
        finally:
            release = partial(
                start_lock.release, now=self.clock(), is_outcome_known=is_outcome_known
            )
            try:
                await write(self.database, release, company_id, key)
            except DatabaseUnavailable as error:
                problem = "could not release a start lock; it expires"
                _log.warning(problem, company_id=company_id, reason=str(error))

    async def _list_syncs(self, company_id: str) -> tuple[set[str], list[str]]:
        """The ids of all syncs that Codat knows, and of those that it lists as running."""
        known: set[str] = set()
        running: list[str] = []
        listed = self.codat.list_statuses(company_id, within_s=CALL_TIMEOUT_S)
        async with aclosing(listed) as parts:
            async for status in (status async for part in parts for status in part):
                sync_id = status.sync_id or ""
                known.add(sync_id)
                running += [sync_id] if phase_of(status.status_code) == "running" else []
        return known, running

    async def _require_none_in_progress(
        self, company_id: str, known_to_codat: Collection[str], running: Sequence[str]
    ) -> None:
        since = self.clock() - LISTED_WITHIN
        ours = await read(self.database, start_lock.syncs_in_progress, company_id, since)
        unlisted = [sync_id for sync_id in ours if sync_id not in known_to_codat]
        if in_progress := [*running, *unlisted]:
            raise Conflict(f"A sync of this company is in progress: {in_progress[0]}")

    async def _initiate(self, company_id: str, dataset_ids: Sequence[str], key: str) -> str:
        try:
            return await self.codat.initiate_sync(company_id, dataset_ids, idempotency_key=key)
        except CodatRefused as error:
            if error.status == 400:
                raise BadRequest("dataset_ids", "Codat does not accept them") from error
            if error.status == 422:
                reason = "has no valid set of connections at Codat"
                raise BadRequest("company_id", reason) from error
            raise

    async def _record(
        self, company_id: str, sync_id: str, datasets: int, actor: str | None
    ) -> None:
        """Store the sync. Codat has started it in any case, so the caller never sees a failure."""
        ids = {"sync_id": sync_id, "company_id": company_id}
        _log.info("sync started", **ids)
        detail = f"{datasets} dataset{'s' if datasets > 1 else ''}"
        detail += f", requested by {actor}" if actor else ""
        now = self.clock()
        try:
            await write(
                self.database, start_lock.record_started, company_id, sync_id, detail, now=now
            )
        except DatabaseUnavailable as error:
            problem = "could not store a started sync; reconciliation will add it"
            _log.warning(problem, **ids, reason=str(error))
