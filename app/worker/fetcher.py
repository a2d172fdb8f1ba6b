"""Fetches: one sync's status and whole transaction list, from Codat into the database.

    claim → status → transactions, if the sync has ended → record → complete, retry or stop

No transaction is open while Codat is called. Status and transactions are recorded together or not
at all, so no reader sees half of a list.
"""

import asyncio
import random as random_module
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection
from structlog.typing import FilteringBoundLogger

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
        logger = _log.bind(sync_id=sync_id, company_id=claim.group_key)
        try:
            if claim.attempts > self.max_attempts:
                raise CodatUnavailable("the last attempts ended without a result")
            answer, list_error = await self._request(claim.group_key, sync_id)
            record = partial(self._record_answer, claim, logger, answer, list_error)
        except CodatError as error:
            record = partial(self._record_failure, claim, logger, error)
        except Exception as error:
            logger.exception("fetch failed unexpectedly")
            unexpected = CodatUnavailable(f"internal error ({type(error).__name__})")
            record = partial(self._record_failure, claim, logger, unexpected)
        result = await asyncio.to_thread(record)
        if result == "lost":
            logger.warning("another worker has taken over a fetch")
        return result

    async def _request(
        self, company_id: str, sync_id: str
    ) -> tuple[CodatAnswer, CodatError | None]:
        """Codat's answer, and why the list is missing when only the status was answered."""
        requested_at = self.clock()
        status = await self.codat.get_status(company_id, sync_id)
        if phase_of(status.status_code) not in ("completed", "failed"):
            return CodatAnswer(status, requested_at), None
        try:
            listed = await self.codat.list_transactions(company_id, sync_id)
        except CodatRateLimited:
            raise
        except CodatError as error:
            return CodatAnswer(status, requested_at), error
        rows = (listed.transactions, listed.expected, listed.steady)
        return CodatAnswer(status, requested_at, *rows), None

    def _record_answer(
        self,
        claim: Claim,
        logger: FilteringBoundLogger,
        answer: CodatAnswer,
        list_error: CodatError | None,
    ) -> AttemptResult:
        now = self.clock()
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
                return "lost"
            if isinstance(decision, Stop) and failure:
                return _give_up(connection, claim, logger, failure, now)
        logger.info("sync fetched", outcome=recorded.after.outcome)
        return "retry" if decision else "done"

    def _record_failure(
        self, claim: Claim, logger: FilteringBoundLogger, error: CodatError
    ) -> AttemptResult:
        now = self.clock()
        decision = self._decide(claim, error, now)
        is_paused = isinstance(error, CodatRateLimited)
        with self.database.writing() as connection:
            if isinstance(decision, Stop):
                return _give_up(connection, claim, logger, error, now)
            # after a rate limit the job is due soon, but no call is made before the pause ends
            next_at = pause_until(error.retry_after, now) if is_paused else decision.at
            # in the order in which every writer locks: the sync, the pause, the job
            if sync_writer.load_sync(connection, claim.key) is None:
                return "lost"
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
                return "lost"
            sync_writer.add_log(connection, claim.key, _retry_entry(error, next_at, now))
        logger.warning(
            "Codat request failed",
            reason=str(error),
            attempt=claim.attempts,
            next_attempt_at=_format(next_at),
        )
        return "paused" if is_paused else "retry"

    def _decide(self, claim: Claim, error: CodatError, now: datetime) -> Retry | Stop:
        failure: Failure = "final" if isinstance(error, CodatRefused) else "transient"
        return next_fetch_attempt(
            "rate_limited" if isinstance(error, CodatRateLimited) else failure,
            attempts=claim.attempts,
            max_attempts=self.max_attempts,
            now=now,
            retry_after=error.retry_after,
            random=self.random,
        )


def _give_up(
    connection: Connection,
    claim: Claim,
    logger: FilteringBoundLogger,
    error: CodatError,
    now: datetime,
) -> AttemptResult:
    """Stop retrying, unless the fetch was enqueued again meanwhile."""
    refused_at, reason = now if isinstance(error, CodatRefused) else None, str(error)
    if not sync_writer.give_up(connection, claim, reason, now=now, refused_at=refused_at):
        return "retry"
    logger.warning("stopped retrying a fetch", reason=reason, attempts=claim.attempts)
    return "dead"


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
