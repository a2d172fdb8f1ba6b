"""Deliveries: outgoing messages to their recipients, at least once.

    address → claim → send → complete, or retry by the delivery schedule, or abandon

No transaction is open while a recipient is called. The job pool limits the messages in
flight per recipient, so one that is down does not delay the others.
"""

import asyncio
import random as random_module
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from functools import partial
from typing import Any

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

    async def address(self) -> int:
        """Give messages that have no recipients yet those of this worker; returns how many.

        Raises DatabaseUnavailable.
        """
        if not await read(self.database, outgoing.has_unaddressed, self.channels):
            return 0
        return await write(self.database, outgoing.address, self.channels, self.clock())

    async def handle(self, claim: Claim) -> AttemptResult:
        """Deliver one message and record the result. Raises DatabaseUnavailable."""
        channel = self.channels[claim.group_key]
        message = await read(self.database, outgoing.load, claim.key)
        if message is None:  # erased
            await write(self.database, jobs.discard, claim)
            return "lost"
        logger = _log.bind(
            outgoing_message_id=message.message_id,
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
        text = f"{_noun(message)} delivered to {channel.label} ({message.message_id})"
        end = partial(outgoing.end, claim=claim, now=self.clock())
        record = partial(self._record, result="Delivered")
        if not await asyncio.to_thread(record, message, end, "notify", text):
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
        not_delivered = f"{_noun(message)} not delivered to {label}"
        if isinstance(decision, Retry):
            next_at = f"{decision.at:%Y-%m-%dT%H:%M:%SZ}"
            text = f"{not_delivered} (attempt {claim.attempts}): {error}. Next attempt {next_at}."
            reschedule = partial(jobs.reschedule, claim=claim, run_at=decision.at, error=str(error))
            # Only a retry is something that a reader of the timeline waits for.
            is_logged = message.kind == "retry.requested"
            record = partial(self._record, message, reschedule, "not_delivered", text)
            await asyncio.to_thread(partial(record, result=str(error), is_logged=is_logged))
            logger.warning("outgoing message failed", next_attempt_at=next_at)
            return "retry"
        text = f"{not_delivered}, {decision.reason}: {error} ({message.message_id})"
        end = partial(outgoing.end, claim=claim, now=self.clock(), failure=str(error))
        record = partial(self._record, result=str(error))
        if not await asyncio.to_thread(record, message, end, "not_delivered", text):
            return "lost"
        logger.warning("stopped retrying an outgoing message")
        return "dead"

    def _record(
        self,
        message: OutgoingMessage,
        change: Callable[[Any], bool],
        kind: str,
        text: str,
        *,
        result: str,
        is_logged: bool = True,
    ) -> bool:
        """Change the job of a message, and add an entry to the timeline of its sync.

        False when the lease was lost or the sync erased. The sync is locked before the job, as in
        every writer.
        """
        sync_pk = message.sync_pk
        with self.database.writing() as connection:
            if sync_pk is not None and sync_writer.load_sync(connection, sync_pk) is None:
                return False
            if not change(connection):
                return False
            outgoing.log_attempt(connection, message.id, self.clock(), result)
            if sync_pk is not None and is_logged:
                sync_writer.add_log(connection, sync_pk, LogEntry(self.clock(), kind, text))
        return True


def _noun(message: OutgoingMessage) -> str:
    return "Retry request" if message.kind == "retry.requested" else message.kind
