"""Deliveries: outgoing messages to their recipients, at least once.

    claim → send → complete, or retry by the delivery schedule, or stop, visibly

No transaction is open while a recipient is called. Each recipient has its own few places in the job
pool, so one that is down delays no other.
"""

import asyncio
import random as random_module
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime

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

    @property
    def recipients(self) -> Collection[str]:
        """The names of the recipients that this dispatcher has channels for."""
        return self.channels.keys()

    async def handle(self, claim: Claim) -> AttemptResult:
        """Deliver one message and record the result. Raises DatabaseUnavailable."""
        channel = self.channels[claim.group_key]
        message = await read(self.database, outgoing.load, claim.key)
        if message is None:  # erased
            await write(self.database, jobs.discard, claim)
            return "lost"
        try:
            if claim.attempts > MAX_DELIVERY_ATTEMPTS:
                raise DeliveryFailed("the last attempts ended without a result", final=True)
            await channel.send(message, self.clock())
        except DeliveryFailed as error:
            return await asyncio.to_thread(self._record_failure, claim, message, channel, error)
        return await asyncio.to_thread(self._record_delivery, claim, message, channel)

    def _record_delivery(
        self, claim: Claim, message: OutgoingMessage, channel: Channel
    ) -> AttemptResult:
        text = f"{message.kind} delivered to {channel.label} ({message.message_id})"
        if not self._end(claim, message, text):
            return "lost"
        _log.info("outgoing message delivered", **_fields(message, channel))
        return "done"

    def _record_failure(
        self, claim: Claim, message: OutgoingMessage, channel: Channel, error: DeliveryFailed
    ) -> AttemptResult:
        decision: Retry | Stop = Stop("the recipient wants no further attempts")
        if not error.final:
            decision = next_delivery_attempt(
                claim.attempts,
                now=self.clock(),
                retry_after=error.retry_after,
                random=self.random,
            )
        fields = {"reason": str(error), "attempt": claim.attempts, **_fields(message, channel)}
        if isinstance(decision, Retry):
            with self.database.writing() as connection:
                jobs.reschedule(connection, claim, run_at=decision.at, error=str(error))
            next_at = f"{decision.at:%Y-%m-%dT%H:%M:%SZ}"
            _log.warning("outgoing message failed", next_attempt_at=next_at, **fields)
            return "retry"
        text = f"{message.kind} not delivered to {channel.label}, {decision.reason}: {error}"
        if not self._end(claim, message, f"{text} ({message.message_id})", failure=str(error)):
            return "lost"
        _log.warning("stopped retrying an outgoing message", **fields)
        return "dead"

    def _end(
        self, claim: Claim, message: OutgoingMessage, text: str, *, failure: str | None = None
    ) -> bool:
        """Record that a message was delivered or given up, also in its sync's timeline.

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


def _fields(message: OutgoingMessage, channel: Channel) -> dict[str, object]:
    return {
        "message_id": message.message_id,
        "message_kind": message.kind,
        "recipient": message.recipient,
        "host": channel.label,
    }
