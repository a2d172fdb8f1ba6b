"""Fetches: one sync's status and whole transaction list, from Codat into the database.

    claim → status → transactions, if the sync has ended → record → complete, retry or stop

No transaction is open while Codat is called. Status and transactions are recorded together or not
at all, so nobody ever reads half of a list.
"""

import asyncio
import random as random_module
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection

from app import logging as log
from app.codat.client import CodatClient
from app.db import jobs, rate_limit, sync_writer
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.sync_writer import CodatAnswer, LogEntry, RecordedAnswer
from app.domain.retry_policy import Failure, Retry, Stop, next_fetch_attempt, pause_until
from app.domain.status_codes import phase_of, status_text
from app.domain.sync_state import reason_to_fetch_again
from app.domain.transactions import TransactionCounts
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.job_pool import AttemptResult
from app.worker.threads import read, write

_log = log.get(__name__)


class _LeaseLost(Exception):
    """Another worker has this fetch by now, or the sync was erased: nothing is written."""


@dataclass(frozen=True, slots=True)
class _Fetch:
    """A claimed fetch with the sync it is for."""

    claim: Claim
    sync_id: str

    @property
    def fields(self) -> dict[str, str]:
        return {"sync_id": self.sync_id, "company_id": self.claim.group_key}


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Carries out claimed fetch jobs. `random` gives numbers in [0, 1) for the jitter."""

    database: Database
    codat: CodatClient
    clock: Callable[[], datetime]
    _: KW_ONLY
    max_attempts: int
    random: Callable[[], float] = random_module.random

    async def handle(self, claim: Claim) -> AttemptResult:
        """Carry out one fetch and record its result. Raises DatabaseUnavailable.

        Unforeseen errors are retried later, like other failures.
        """
        sync_id = await read(self.database, sync_writer.sync_id_of, claim.key)
        if sync_id is None:  # erased
            await write(self.database, jobs.discard, claim)
            return "lost"
        fetch = _Fetch(claim, sync_id)
        try:
            if claim.attempts > self.max_attempts:
                raise CodatUnavailable("the last attempts ended without a result")
            record = partial(self._record_answer, fetch, *await self._request(fetch))
        except CodatError as error:
            record = partial(self._record_failure, fetch, error)
        except Exception as error:
            _log.exception("fetch failed unexpectedly", **fetch.fields)
            unexpected = CodatUnavailable(f"internal error ({type(error).__name__})")
            record = partial(self._record_failure, fetch, unexpected)
        try:
            return await asyncio.to_thread(record)
        except _LeaseLost:
            _log.warning("another worker has taken over a fetch", **fetch.fields)
            return "lost"

    async def _request(self, fetch: _Fetch) -> tuple[CodatAnswer, CodatError | None]:
        """Codat's answer, and why the list is missing when only the status was answered."""
        ids, asked_at = (fetch.claim.group_key, fetch.sync_id), self.clock()
        status = await self.codat.get_status(*ids)
        if phase_of(status.status_code) not in ("completed", "failed"):
            return CodatAnswer(status, asked_at), None
        try:
            listed = await self.codat.list_transactions(*ids)
        except CodatRateLimited:
            raise
        except CodatError as error:
            return CodatAnswer(status, asked_at), error
        answer = CodatAnswer(status, asked_at, listed.transactions, listed.expected, listed.steady)
        return answer, None

    def _record_answer(
        self, fetch: _Fetch, answer: CodatAnswer, list_error: CodatError | None
    ) -> AttemptResult:
        claim, now = fetch.claim, self.clock()
        failure: CodatError | None = None
        decision: Retry | Stop | None = None

        def settle(recorded: RecordedAnswer) -> list[LogEntry]:
            """Decide what becomes of the job. One that was enqueued meanwhile is due again."""
            nonlocal failure, decision
            log_entries = [LogEntry(now, "fetch", _describe(recorded))]
            if not recorded.has_newer_events:
                reason = reason_to_fetch_again(recorded.after)
                failure = list_error or (CodatUnavailable(reason) if reason else None)
            if failure is None:
                jobs.complete(connection, claim)
                return log_entries
            decision = self._decide(claim, failure, now)
            if isinstance(decision, Retry):
                jobs.reschedule(connection, claim, run_at=decision.at, error=str(failure))
                log_entries.append(_retry_entry(failure, decision.at, now))
            return log_entries

        with self.database.writing() as connection:
            recorded = sync_writer.record_answer(connection, claim, answer, now=now, settle=settle)
            if recorded is None:
                raise _LeaseLost
            if isinstance(decision, Stop) and failure:
                return self._give_up(connection, fetch, failure, now)
        _log.info("sync fetched", outcome=recorded.after.outcome, **fetch.fields)
        return "retry" if decision else "done"

    def _record_failure(self, fetch: _Fetch, error: CodatError) -> AttemptResult:
        claim, now = fetch.claim, self.clock()
        decision = self._decide(claim, error, now)
        is_paused = isinstance(error, CodatRateLimited)
        with self.database.writing() as connection:
            if isinstance(decision, Stop):
                return self._give_up(connection, fetch, error, now)
            # after a rate limit the job is due soon, but no call is made before the pause ends
            next_at = pause_until(error.retry_after, now) if is_paused else decision.at
            # in the order in which every writer locks: the sync, the pause, the job
            if sync_writer.load_sync(connection, claim.key) is None:
                raise _LeaseLost
            if is_paused and error.status is not None:
                rate_limit.pause(connection, next_at, str(error), now)
            is_ours = jobs.reschedule(
                connection,
                claim,
                run_at=decision.at,
                error=str(error),
                refund_attempt=decision.refund_attempt,
            )
            if not is_ours:
                raise _LeaseLost
            sync_writer.add_log(connection, claim.key, _retry_entry(error, next_at, now))
        _log.warning(
            "Codat request failed",
            reason=str(error),
            attempt=claim.attempts,
            next_attempt_at=_format(next_at),
            **fetch.fields,
        )
        return "paused" if is_paused else "retry"

    def _give_up(
        self, connection: Connection, fetch: _Fetch, error: CodatError, now: datetime
    ) -> AttemptResult:
        """Stop retrying, unless the fetch was enqueued again meanwhile."""
        refused_at = now if isinstance(error, CodatRefused) else None
        claim, reason = fetch.claim, str(error)
        if not sync_writer.give_up(connection, claim, reason, now=now, refused_at=refused_at):
            return "retry"
        fields = {"reason": reason, "attempts": claim.attempts, **fetch.fields}
        _log.warning("stopped retrying a fetch", **fields)
        return "dead"

    def _decide(self, claim: Claim, error: CodatError, now: datetime) -> Retry | Stop:
        kind: Failure = "final" if isinstance(error, CodatRefused) else "transient"
        return next_fetch_attempt(
            "rate_limited" if isinstance(error, CodatRateLimited) else kind,
            attempts=claim.attempts,
            max_attempts=self.max_attempts,
            now=now,
            retry_after=error.retry_after,
            random=self.random,
        )


def _describe(recorded: RecordedAnswer) -> str:
    """The answer as a line of the timeline."""
    before, after = recorded.before, recorded.after
    text = status_text(after.status_code) or "none"
    line = f"Codat status {after.status_code} ({text[:1].lower()}{text[1:]})"
    if after.codat_counts:
        line += f": {_describe_counts(after.codat_counts)}"
    if before.counts and before.transactions_source == "webhook" and before.counts != after.counts:
        line += f" (the webhook listed: {_describe_counts(before.counts)})"
    return line


def _describe_counts(counts: TransactionCounts) -> str:
    return f"{counts.failed} of {counts.total} items failed" if counts.total else "no items"


def _retry_entry(error: CodatError, next_at: datetime, now: datetime) -> LogEntry:
    text = str(error)
    return LogEntry(now, "fetch", f"{text[:1].upper()}{text[1:]}. Next attempt {_format(next_at)}")


def _format(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
