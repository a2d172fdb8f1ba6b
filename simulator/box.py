"""The box: one world with its clock, limits, faults and sender, and what happens between them."""

import json
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx

from simulator import wording
from simulator.bodies import Scribe
from simulator.clock import Clock
from simulator.counters import Counters
from simulator.deliveries import Message, Plan, new_message_id
from simulator.faults import FaultPlan
from simulator.quota import Quota
from simulator.sender import Sender
from simulator.settings import SimulatorSettings
from simulator.subscriptions import Subscription, subscribe
from simulator.world import Company, Ending, Sync, World

BOTH = ("legacy", "new")
CALLS_PER_COMPANY = 1000


def _dice(seed: int, subject: str) -> random.Random:
    # Repeatable, not secret: every subject has its own stream, so one does not disturb another.
    return random.Random(f"{seed}/{subject}")  # noqa: S311


class Box:
    """Everything a simulator knows; the routes only translate HTTP to its methods."""

    def __init__(
        self, settings: SimulatorSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """An empty world as `settings` say; `transport` replaces the network for webhooks."""
        self.settings = settings
        self.clock = Clock(settings.speed, settings.behind_seconds)
        self.dice = _dice(settings.seed, "events")
        self.scribe = Scribe(self.dice, self.clock, settings)
        self.correlations = _dice(settings.seed, "correlation")
        self.world = World(self.clock, _dice(settings.seed, "world"))
        self.quota = Quota(self.clock, self.daily_quota, settings.retry_after_form)
        self.counters = Counters()
        self.faults = FaultPlan(_dice(settings.seed, "faults"))
        self.initiated: dict[str, tuple[bytes, str]] = {}
        sender_dice = _dice(settings.seed, "sender")
        self.sender = Sender(self.clock, sender_dice, settings.timeout_seconds, transport)
        for wanted in settings.subscriptions:
            self.add_subscription(subscribe(wanted, self.dice))

    def daily_quota(self) -> int:
        """Codat's allowance: 1,000 x (1 + connected companies), unless set."""
        connected = sum(company.connected for company in self.world.companies.values())
        return self.settings.daily_quota or CALLS_PER_COMPANY * (1 + connected)

    def concurrency(self) -> int:
        """How many calls may be in flight at once: 10 per connected company."""
        connected = sum(company.connected for company in self.world.companies.values())
        return self.settings.concurrency_per_company * max(1, connected)

    def correlation_id(self) -> str:
        """A correlation id for an error body: 32 hexadecimal digits."""
        return f"{self.correlations.getrandbits(128):032x}"

    def add_subscription(self, subscription: Subscription) -> Subscription:
        """Put a consumer into service."""
        self.sender.subscriptions[subscription.subscription_id] = subscription
        return subscription

    def message(
        self, event_type: str, body: Any, sync_id: str | None = None, message_id: str | None = None
    ) -> Message:
        """A message ready to send; a text body is sent as it is, anything else as JSON."""
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        return Message(
            message_id or new_message_id(self.dice),
            event_type,
            text,
            self.clock.now(),
            self.clock.elapsed(),
            sync_id,
        )

    def start_sync(
        self,
        company_id: str,
        size: int = 3,
        sync_id: str | None = None,
        transaction_ids: list[str] | None = None,
        shapes: Sequence[str] = BOTH,
    ) -> Sync:
        """Start a sync and tell it (only the legacy generation has a word for that)."""
        sync = self.world.start(company_id, size, sync_id, transaction_ids)
        self.tell(sync, "started", [shape for shape in shapes if not shape.startswith("new")])
        return sync

    def advance_sync(
        self, sync_id: str, ending: Ending, shapes: Sequence[str] = BOTH, plan: Plan | None = None
    ) -> Sync:
        """Give a sync its next state and tell it once it has ended; KeyError if unknown."""
        sync = self.world.advance(sync_id, ending)
        if not sync.running:
            self.tell(sync, "completed" if sync.succeeded else "failed", shapes, plan)
        if self.settings.completed_after_failure and sync.code >= 4000:
            self.tell(sync, "completed", [shape for shape in shapes if shape == "legacy"], plan)
        return sync

    def tell(
        self,
        sync: Sync,
        event: str,
        shapes: Sequence[str] = BOTH,
        plan: Plan | None = None,
        to: list[Subscription] | None = None,
    ) -> list[Message]:
        """Send one message per shape about a sync: `started`, `failed` or `completed`."""
        told = [self.sync_message(sync, event, shape) for shape in shapes]
        for message in told:
            self.sender.send(message, plan, to)
        return told

    def sync_message(self, sync: Sync, event: str, shape: str) -> Message:
        """An event of a sync in one of the shapes, not sent. KeyError: no such event there."""
        company = self.world.companies[sync.company_id]
        event_type, body = self.scribe.of_sync(sync, company, event, shape)
        return self.message(event_type, body, sync.sync_id)

    def exhaust_quota(self, reset_after: float | None = None) -> None:
        """Use up the quota, tell it, and tell the reset when it comes (real seconds)."""
        self.quota.exhaust(reset_after)
        self.quota_reached()
        if reset_after is not None:
            self.sender.spawn(self._reset_later(reset_after))

    def quota_reached(self) -> None:
        """Tell `client.rateLimit.reached`."""
        self._tell_quota("reached")

    def reset_quota(self) -> None:
        """Start a new quota now and tell `client.rateLimit.reset`."""
        self.quota.reset()
        self._tell_quota("reset")

    def set_connection(self, company_id: str, status: str) -> Company:
        """Change a company's accounting connection and tell it; KeyError if unknown."""
        company = self.world.connect(company_id, status)
        event = "connected" if status == "Linked" else "disconnected"
        self.sender.send(self.message(*self.scribe.of_connection(event, company)))
        return company

    def unknown_event(self, event_type: str = "expenses.policy.changed") -> Message:
        """Tell every consumer of an event that no receiver can know."""
        payload = {"policyId": wording.new_id(self.dice)}
        message = self.message(*self.scribe.envelope(event_type, payload))
        self.sender.send(message, to=list(self.sender.subscriptions.values())[:1])
        return message

    async def finish_later(
        self,
        sync_id: str,
        delay: float,
        ending: Ending,
        shapes: Sequence[str] = BOTH,
        plan: Plan | None = None,
    ) -> None:
        """End a sync after so many simulated seconds and tell it."""
        await self.clock.sleep(delay)
        self.advance_sync(sync_id, ending, shapes, plan)

    def _tell_quota(self, event: str) -> None:
        quota = self.quota
        written = self.scribe.of_quota(event, quota.limit, quota.remaining, quota.reset_at)
        self.sender.send(self.message(*written))

    async def _reset_later(self, seconds: float) -> None:
        due = self.clock.wall() + timedelta(seconds=seconds)
        while (left := (due - self.clock.wall()).total_seconds()) > 0:
            await self.clock.real_sleep(left)
        self.reset_quota()
