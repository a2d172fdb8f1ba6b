"""A fetch: ask Codat for one sync's status and its whole transaction list, and record both.

    claim → status → list, if the sync has ended → record and settle, or put off, or give up

No transaction is open while Codat is asked. Status and item set are recorded together or not at
all, so nobody ever reads half of a list.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Connection

from app import logging as log
from app.db import jobs as owed
from app.db import rate_limit as gate
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.sync_writer import Answer, Recorded
from app.domain import retry_policy as retry
from app.domain.models import CodatStatus, Item
from app.domain.retry_policy import Again, GiveUp
from app.domain.status_codes import phase_of, status_text
from app.domain.sync_state import still_owed
from app.errors import (
    CodatError,
    CodatRateLimited,
    CodatRefused,
    CodatUnavailable,
    StorageUnavailable,
)

LEASE = timedelta(seconds=60)
RENEW_EVERY_S = LEASE.total_seconds() / 3

_log = log.get(__name__)


class Listing(Protocol):
    """A transaction list as the client read it."""

    @property
    def items(self) -> tuple[Item, ...]:
        """All rows, in Codat's order."""

    @property
    def expected(self) -> int | None:
        """Codat's own count of rows."""

    @property
    def steady(self) -> bool:
        """False when the list moved while its pages were read."""


class AsksCodat(Protocol):
    """What a fetch needs of the Codat client."""

    async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
        """The status of one sync; raises CodatError."""

    async def list_transactions(self, company_id: str, sync_id: str) -> Listing:
        """The whole list; raises CodatError."""


class LeaseLost(Exception):
    """Another worker has taken this fetch over: stop, and write nothing."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Carries out claimed fetches. `clock` gives aware UTC times, `luck` numbers in [0, 1)."""

    database: Database
    codat: "AsksCodat"
    max_attempts: int
    clock: Callable[[], datetime]
    luck: Callable[[], float] = random.random

    async def fetch(self, claimed: Claim) -> None:
        """Carry out one claimed fetch to a recorded end. Raises StorageUnavailable.

        What nobody foresaw is a reason to ask again later, like any other failure to answer.
        """
        if claimed.attempts > self.max_attempts:
            reason = f"given up: {claimed.attempts - 1} attempts ended without any answer"
            await asyncio.to_thread(self._give_up, claimed, reason)
            return
        try:
            answer, refusal = await self._held(claimed)
        except LeaseLost:
            _log.warning("a fetch was taken over by another worker", **_ids(claimed))
        except CodatError as error:
            await asyncio.to_thread(self._no_answer, claimed, error)
        except Exception as error:
            _log.exception("Codat could not be asked, in an unforeseen way", **_ids(claimed))
            unforeseen = CodatUnavailable(f"asking failed: {type(error).__name__}")
            await asyncio.to_thread(self._no_answer, claimed, unforeseen)
        else:
            await asyncio.to_thread(self._record, claimed, answer, refusal)

    async def _ask(self, claimed: Claim) -> tuple[Answer, CodatError | None]:
        """Codat's answer, and why the list is missing when only the status was given."""
        asked_at = self.clock()
        status = await self.codat.get_status(claimed.company_id, claimed.sync_id)
        if phase_of(status.status_code) not in ("completed", "failed"):
            return Answer(status, asked_at), None
        try:
            listing = await self.codat.list_transactions(claimed.company_id, claimed.sync_id)
        except CodatRateLimited:
            raise
        except CodatError as refusal:
            return Answer(status, asked_at), refusal
        return Answer(status, asked_at, listing.items, listing.expected, listing.steady), None

    async def _held(self, claimed: Claim) -> tuple[Answer, CodatError | None]:
        """Ask, and renew the lease meanwhile: the wait for a turn may be longer than a lease."""
        asking = asyncio.create_task(self._ask(claimed))
        try:
            while not (await asyncio.wait([asking], timeout=RENEW_EVERY_S))[0]:
                if not await asyncio.to_thread(self._renew, claimed, self.clock() + LEASE):
                    raise LeaseLost
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    def _renew(self, claimed: Claim, until: datetime) -> bool:
        try:
            with self.database.writing() as connection:
                return owed.renew(connection, claimed, until)
        except StorageUnavailable:
            return True  # nobody else could take it over now either; at the latest the record fails

    def _record(self, claimed: Claim, answer: Answer, refusal: CodatError | None) -> None:
        now = self.clock()
        with self.database.writing() as connection:
            recorded = store.record(connection, claimed, answer, now=now)
            if recorded is None:
                _log.warning("a fetch was taken over by another worker", **_ids(claimed))
                return
            store.note(connection, claimed.sync, "fetch", _told(recorded), now)
            self._settle(connection, claimed, recorded, refusal, now)
        _log.info("a sync was read from Codat", outcome=recorded.after.outcome, **_ids(claimed))

    def _settle(
        self,
        connection: Connection,
        claimed: Claim,
        recorded: Recorded,
        refusal: CodatError | None,
        now: datetime,
    ) -> None:
        """Say what becomes of the fetch once its answer is recorded."""
        reason = still_owed(recorded.after)
        if recorded.fresh:
            owed.ask_once_more(connection, claimed, now)
        elif refusal:
            self._carry_out(connection, claimed, refusal, now)
        elif reason is None:
            owed.finish(connection, claimed)
        else:
            self._carry_out(connection, claimed, CodatError(reason), now)

    def _no_answer(self, claimed: Claim, error: CodatError) -> None:
        now = self.clock()
        with self.database.writing() as connection:
            self._carry_out(connection, claimed, error, now)
            if isinstance(error, CodatRateLimited) and error.status is not None:
                # after the fetch, as the inbox does: else the two could wait for each other
                gate.close(connection, retry.rest_until(error.retry_after, now), str(error), now)
        _log.info("Codat gave no answer", reason=str(error), **_ids(claimed))

    def _carry_out(
        self, connection: Connection, claimed: Claim, error: CodatError, now: datetime
    ) -> None:
        decision = retry.decide(
            _trouble(error),
            attempts=claimed.attempts,
            max_attempts=self.max_attempts,
            now=now,
            retry_after=error.retry_after,
            luck=self.luck,
        )
        mine = _apply(connection, claimed, decision, error, now)
        if mine:
            store.note(connection, claimed.sync, "fetch", _decided(decision, error, now), now)

    def _give_up(self, claimed: Claim, reason: str) -> None:
        with self.database.writing() as connection:
            if owed.give_up(connection, claimed, reason):
                store.note(connection, claimed.sync, "fetch", reason, self.clock())


def _apply(
    connection: Connection,
    claimed: Claim,
    decision: Again | GiveUp,
    error: CodatError,
    now: datetime,
) -> bool:
    if isinstance(decision, GiveUp):
        refused_at = now if isinstance(error, CodatRefused) else None
        reason = f"{error} ({decision.reason})"
        return owed.give_up(connection, claimed, reason, refused_at=refused_at)
    return owed.put_off(
        connection, claimed, until=decision.at, error=str(error), free=decision.free
    )


def _trouble(error: CodatError) -> retry.Trouble:
    if isinstance(error, CodatRateLimited):
        return "rate_limited"
    return "final" if isinstance(error, CodatRefused) else "passing"


def _told(recorded: Recorded) -> str:
    after = recorded.after
    said = f"Codat says {after.status_code}: {status_text(after.status_code)}"
    if after.counts and after.items_from == "codat":
        said += f"; {after.counts.total} items, {after.counts.failed} failed"
    before = recorded.before
    if before.counts and before.items_from == "webhook" and before.counts != after.counts:
        said += f" (the webhook had listed {before.counts.total}, {before.counts.failed} failed)"
    return said


def _decided(decision: Again | GiveUp, error: CodatError, now: datetime) -> str:
    if isinstance(decision, GiveUp):
        return f"given up: {error} ({decision.reason})"
    # due again at once, but the gate lets nothing through before that time
    until = retry.rest_until(error.retry_after, now) if decision.free else decision.at
    return f"put off until {until:%Y-%m-%dT%H:%M:%SZ}: {error}"


def _ids(claimed: Claim) -> dict[str, str]:
    return {"sync_id": claimed.sync_id, "company_id": claimed.company_id}
