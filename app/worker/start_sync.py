"""Starts a sync at Codat for a caller who waits: one at a time per company.

    take the company's turn → does Codat list one in progress? → start → know it, give the turn back

Codat says whether one is in progress: a start or an end that no webhook told us would mislead us.
Only for a sync that we heard of just now and that Codat does not list yet our own word is taken.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app import logging as log
from app.db import start_lock as starting
from app.db.engine import Database
from app.db.start_lock import Turn
from app.domain.models import CodatStatus
from app.domain.status_codes import phase_of
from app.errors import (
    BadRequest,
    CodatRefused,
    CodatUnavailable,
    Conflicting,
    ServiceError,
    StorageUnavailable,
)
from app.worker.user_calls import Asking

TURN = timedelta(seconds=120)  # longer than both calls may take
LISTED_WITHIN = timedelta(minutes=10)

_log = log.get(__name__)


class StartsSyncs(Protocol):
    """What is needed of the Codat client to start a sync."""

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        """All syncs of a company; raises CodatError."""

    async def initiate_sync(
        self, company_id: str, dataset_ids: Sequence[str], *, idempotency_key: str
    ) -> str:
        """The id of the sync that was started; raises CodatError."""


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts syncs, one at a time per company."""

    database: Database
    codat: StartsSyncs
    clock: Callable[[], datetime]

    async def start(self, company_id: str, dataset_ids: Sequence[str]) -> str:
        """The new sync's id.

        Raises Conflicting while one is in progress or being started, BadRequest when Codat refuses
        the datasets or the company's connections, and what `Asking.plainly` raises.
        """
        async with self._turn(company_id, " ".join(sorted(dataset_ids))) as turn:
            asking = Asking(self.database, self.clock)
            told = await asking.plainly(self.codat.list_statuses(company_id))
            await asyncio.to_thread(self._require_rest, company_id, told)
            sync_id = await asking.plainly(self._initiate(company_id, dataset_ids, turn.key))
            await self._keep(company_id, sync_id, len(dataset_ids))
        return sync_id

    @asynccontextmanager
    async def _turn(self, company_id: str, wanted: str) -> AsyncIterator[Turn]:
        turn = await asyncio.to_thread(self._take, company_id, wanted)
        if turn is None:
            raise Conflicting("a sync of this company is just being started")
        known = False
        try:
            yield turn
            known = True
        except ServiceError as error:
            known = not isinstance(error, CodatUnavailable)
            raise
        finally:
            await asyncio.to_thread(self._end, turn, known)

    def _take(self, company_id: str, wanted: str) -> Turn | None:
        now = self.clock()
        digest = hashlib.sha256(wanted.encode()).hexdigest()
        with self.database.writing() as connection:
            return starting.take_turn(connection, company_id, digest, now=now, until=now + TURN)

    def _end(self, turn: Turn, known: bool) -> None:
        try:
            with self.database.writing() as connection:
                starting.end_turn(connection, turn, self.clock(), known=known)
        except StorageUnavailable as error:
            _log.warning("a turn ends by itself", company_id=turn.company_id, reason=str(error))

    def _require_rest(self, company_id: str, told: Sequence[CodatStatus]) -> None:
        running = [each.sync_id for each in told if phase_of(each.status_code) == "running"]
        listed = {each.sync_id for each in told}
        with self.database.reading() as connection:
            ours = starting.running_since(connection, company_id, self.clock() - LISTED_WITHIN)
        running += [sync_id for sync_id in ours if sync_id not in listed]
        if running:
            raise Conflicting(f"a sync of this company is in progress: {running[0]}")

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

    async def _keep(self, company_id: str, sync_id: str, datasets: int) -> None:
        """Know it from now on. Codat has started it in any case: it is never answered as failed."""
        reason = f"started here, with {datasets} dataset{'s' if datasets > 1 else ''}"
        _log.info("a sync was started", sync_id=sync_id, company_id=company_id)
        try:
            await asyncio.to_thread(self._write, company_id, sync_id, reason)
        except StorageUnavailable as error:
            why = "a started sync was not kept; reconciliation will find it"
            _log.warning(why, sync_id=sync_id, company_id=company_id, reason=str(error))

    def _write(self, company_id: str, sync_id: str, reason: str) -> None:
        with self.database.writing() as connection:
            starting.keep_started(connection, company_id, sync_id, reason, self.clock())
