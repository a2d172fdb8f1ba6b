"""What was said and what became of it: messages, and a log of every attempt to deliver them."""

import random
import string
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

_LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
ARRIVED = "ok"
LOST = "lost"
HELD_BACK = "disabled"
NEVER_SENT = (LOST, HELD_BACK)


def new_message_id(rng: random.Random) -> str:
    """An id in svix's form, `msg_` and 27 letters; it stays the same over all attempts."""
    return "msg_" + "".join(rng.choices(_LETTERS, k=27))


@dataclass(frozen=True)
class Message:
    """One event as it is sent: the body is fixed text, signed anew for each attempt."""

    message_id: str
    event_type: str
    body: str
    created: datetime
    elapsed: float
    sync_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """How a message travels.

    `delay` is simulated seconds before the first attempt; `copies` how often the very same message
    is delivered; `lose` swallows it; `family` overrides the consumer's headers.
    """

    delay: float = 0.0
    copies: int = 1
    lose: bool = False
    family: str | None = None


@dataclass(frozen=True)
class Attempt:
    """One delivery. `result` is ok, failed, timeout, unreachable, or lost/disabled (not sent).

    `trigger` is scheduled, duplicate, resend, recover or replay; `at` the real time; `elapsed` the
    simulated seconds since the start; `next_gap` the simulated seconds until the next attempt.
    """

    message_id: str
    subscription_id: str
    event_type: str
    sync_id: str | None
    number: int
    trigger: str
    family: str
    result: str
    status: int | None
    at: str
    elapsed: float
    milliseconds: float
    retry_after: float | None = None
    next_gap: float | None = None


@dataclass
class DeliveryLog:
    """Every message and every attempt, oldest first."""

    messages: dict[str, Message] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    def about(self, message_id: str = "", sync_id: str = "") -> list[dict[str, Any]]:
        """The attempts for a message and/or a sync; empty texts match all."""
        return [
            asdict(attempt)
            for attempt in self.attempts
            if message_id in ("", attempt.message_id) and sync_id in ("", attempt.sync_id)
        ]

    def of_syncs(self) -> dict[str, list[str]]:
        """The ids of the messages about each sync."""
        told: dict[str, list[str]] = {}
        for message in self.messages.values():
            if message.sync_id is not None:
                told.setdefault(message.sync_id, []).append(message.message_id)
        return told

    def failed(self, subscription_id: str, since: float) -> list[Message]:
        """Messages since that simulated second which were tried and never arrived."""
        return [
            message
            for message, results in self._since(subscription_id, since)
            if ARRIVED not in results and any(r not in NEVER_SENT for r in results)
        ]

    def missing(self, subscription_id: str, since: float) -> list[Message]:
        """Messages since that simulated second which were never sent to this consumer."""
        return [
            message
            for message, results in self._since(subscription_id, since)
            if all(r in NEVER_SENT for r in results)
        ]

    def _since(self, subscription_id: str, since: float) -> list[tuple[Message, list[str]]]:
        results: dict[str, list[str]] = {}
        for attempt in self.attempts:
            if attempt.subscription_id == subscription_id:
                results.setdefault(attempt.message_id, []).append(attempt.result)
        return [
            (message, results.get(message.message_id, []))
            for message in self.messages.values()
            if message.elapsed >= since
        ]
