"""Deliveries: outgoing messages to their recipients, at least once.

    claim → send → complete, or retry by the delivery schedule, or abandon

No transaction is open while a recipient is called. The job pool limits the messages in
flight per recipient, so one that is down does not delay the others.
"""

import asyncio
import random as random_module
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from functools import partial

from structlog.typing import FilteringBoundLogger

from app import logging as log
from app.db import jobs, outgoing, sync_writer
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.outgoing import OutgoingMessage
from app.db.sync_writer import LogEntry
from app.domain.retry_policy import MAX_DELIVERY_ATTEMPTS, Retry, Stop, next_delivery_attempt
from app.worker.channels import Channel, DeliveryFailed
from app.worker.job_pool import AttemptResult
from app.worker.threads import read, write

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Carries out claimed message jobs; `channels` are the recipients that are configured here.

    `random` gives numbers in [0, 1) for the jitter.
    """

    database: Database
    channels: Mapping[str, Channel]
    clock: Callable[[], datetime]
    _: KW_ONLY
    random: Callable[[], float] = random_module.random

    async def handle(self, claim: Claim) -> AttemptResult:
        """Deliver one message and record the result. Raises DatabaseUnavailable."""
        channel = self.channels[claim.group_key]
        message = await read(self.database, outgoing.load, claim.key)
        if message is None:  # erased
            await write(self.database, jobs.discard, claim)
            return "lost"
        logger = _log.bind(
            message_id=message.message_id,
            message_kind=message.kind,
            recipient=message.recipient,
            host=channel.label,
        )
        try:
            if claim.attempts > MAX_DELIVERY_ATTEMPTS:
                raise DeliveryFailed("the last attempts ended without a result", final=True)
            await channel.send(message, self.clock())
        except DeliveryFailed as error:
            return await self._record_failure(claim, message, channel.label, error, logger)
        noun = "Retry request" if message.kind == "retry.requested" else message.kind
        text = f"{noun} delivered to {channel.label} ({message.message_id})"
        if not await asyncio.to_thread(self._end, claim, message, text):
            return "lost"
        logger.info("outgoing message delivered")
        return "done"

    async def _record_failure(
        self,
        claim: Claim,
        message: OutgoingMessage,
        label: str,
        error: DeliveryFailed,
        logger: FilteringBoundLogger,
    ) -> AttemptResult:
        decision: Retry | Stop = Stop("the recipient accepts no further attempts")
        if not error.final:
            decision = next_delivery_attempt(
                claim.attempts,
                now=self.clock(),
                retry_after=error.retry_after,
                random=self.random,
            )
        logger = logger.bind(reason=str(error), attempt=claim.attempts)
        if isinstance(decision, Retry):
            reschedule = partial(jobs.reschedule, run_at=decision.at, error=str(error))
            await write(self.database, reschedule, claim)
            next_at = f"{decision.at:%Y-%m-%dT%H:%M:%SZ}"
            logger.warning("outgoing message failed", next_attempt_at=next_at)
            return "retry"
        text = f"{message.kind} not delivered to {label}, {decision.reason}: {error}"
        text += f" ({message.message_id})"
        if not await asyncio.to_thread(self._end, claim, message, text, failure=str(error)):
            return "lost"
        logger.warning("stopped retrying an outgoing message")
        return "dead"

    def _end(
        self, claim: Claim, message: OutgoingMessage, text: str, *, failure: str | None = None
    ) -> bool:
        """Record that a message was delivered or abandoned, also in its sync's timeline.

        False when the lease was lost or the sync erased. The sync is locked before the job, as in
        every writer.
        """
        now, sync_pk = self.clock(), message.sync_pk
        with self.database.writing() as connection:
            if sync_pk is not None and sync_writer.load_sync(connection, sync_pk) is None:
                return False
            if not outgoing.end(connection, claim, now, failure=failure):
                return False
            if sync_pk is not None:
                sync_writer.add_log(connection, sync_pk, LogEntry(now, "notify", text))
        return True
