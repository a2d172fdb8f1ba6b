"""Delivers what is owed to others: at least once, each message by one worker at a time.

    claim → send → finish, or put off by rules.retry, or give up visibly

No transaction is open while a receiver is spoken to. A receiver that is down takes up only its own
few places, so it delays nobody else.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from app import logging as log
from app.db import outgoing
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.outgoing import Message
from app.domain import retry_policy as retry
from app.domain.retry_policy import Again
from app.errors import StorageUnavailable
from app.worker.channels import NotDelivered, Send

POLL_S = 1.0
AT_ONCE = 4  # to one recipient
LEASE = timedelta(seconds=60)  # longer than any sender takes
GRACE_S = 3.0

_log = log.get(__name__)


class Notifier:
    """Delivers to the recipients it has senders for. `run` it until it is cancelled."""

    def __init__(
        self,
        database: Database,
        senders: Mapping[str, Send],
        clock: Callable[[], datetime],
        *,
        luck: Callable[[], float] = random.random,
        poll_s: float = POLL_S,
    ) -> None:
        self._database = database
        self._senders = senders
        self._clock = clock
        self._luck = luck
        self._poll_s = poll_s
        self._running: dict[asyncio.Task[None], Message] = {}

    async def run(self) -> None:
        """Until cancelled; then what is in hand gets a moment, and the rest is given back."""
        try:
            while True:
                await self.look()
                await self._pause()
        finally:
            await self._end()

    async def look(self) -> int:
        """Start to deliver what is due, as far as there is room; returns how many."""
        try:
            claimed = await asyncio.to_thread(self._claim)
        except StorageUnavailable as error:
            _log.warning("messages wait for the database", reason=str(error))
            return 0
        except Exception:
            _log.exception("messages could not be looked for; it is tried again")
            return 0
        for message in claimed:
            task = asyncio.create_task(self._deliver(message))
            self._running[task] = message
            task.add_done_callback(self._running.pop)
        return len(claimed)

    async def settle(self) -> None:
        """Wait until nothing is in hand."""
        await asyncio.gather(*self._running)

    async def _pause(self) -> None:
        """A poll's time, or until there is room again."""
        if self._running:
            await asyncio.wait(
                self._running, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED
            )
        else:
            await asyncio.sleep(self._poll_s)

    def _claim(self) -> list[Message]:
        now = self._clock()
        busy = Counter(message.recipient for message in list(self._running.values()))
        free = [name for name in self._senders if busy[name] < AT_ONCE]
        with self._database.reading() as connection:
            due = outgoing.are_due(connection, free, now)
        claimed = []
        for name in due:
            with self._database.writing() as connection:
                claimed += outgoing.claim(
                    connection, name, now=now, lease=LEASE, limit=AT_ONCE - busy[name]
                )
        return claimed

    async def _deliver(self, message: Message) -> None:
        ids = {"message_id": message.message_id, "kind": message.kind, "to": message.recipient}
        try:
            if message.attempts > retry.MOST_MESSAGE_ATTEMPTS:
                raise NotDelivered("its last attempts ended without any answer", final=True)
            await self._senders[message.recipient](message, self._clock())
        except NotDelivered as error:
            await self._write(self._not_delivered, message, error)
            _log.warning("a message was not delivered", reason=str(error), **ids)
        except Exception:
            _log.exception("a message failed in an unforeseen way; its lease runs out", **ids)
        else:
            await self._write(self._delivered, message)
            _log.info("a message was delivered", **ids)

    async def _write(self, write: Callable[..., None], *given: object) -> None:
        try:
            await asyncio.to_thread(write, *given)
        except StorageUnavailable as error:
            _log.warning("a delivery was not recorded; it comes again", reason=str(error))

    def _delivered(self, message: Message) -> None:
        now = self._clock()
        with self._database.writing() as connection:
            mine = outgoing.finish(connection, message, now)
            if mine and message.sync is not None:
                said = f"{message.kind} was delivered ({message.message_id})"
                store.note(connection, message.sync, "notify", said, now)

    def _not_delivered(self, message: Message, error: NotDelivered) -> None:
        now = self._clock()
        decision = retry.decide_message(
            message.attempts, now=now, retry_after=error.retry_after, luck=self._luck
        )
        with self._database.writing() as connection:
            if isinstance(decision, Again) and not error.final:
                outgoing.put_off(connection, message, until=decision.at, error=str(error))
                return
            reason = f"{error} (given up after {message.attempts} attempts)"
            mine = outgoing.give_up(connection, message, reason, now)
            if mine and message.sync is not None:
                said = f"{message.kind} could not be delivered ({message.message_id}): {reason}"
                store.note(connection, message.sync, "notify", said, now)

    async def _end(self) -> None:
        tasks = dict(self._running)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=GRACE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await self._write(self._give_back, [tasks[task] for task in late])

    def _give_back(self, messages: list[Message]) -> None:
        with self._database.writing() as connection:
            for message in messages:
                outgoing.give_back(connection, message, self._clock())
