"""The simulation: state, limits, faults and sender, and the operations that involve several."""

import json
import random
from collections.abc import Iterable

import httpx

from simulator.clock import Clock, format_time
from simulator.faults import Fault
from simulator.limits import CallCounters, DailyQuota
from simulator.outcomes import random_uuid
from simulator.payloads import Shape, SyncEvent, new_payload, reference_company, sync_payload
from simulator.settings import SimulatorSettings
from simulator.state import Company, Json, State, Sync
from simulator.webhooks import DeliveryOptions, Message, Sender, new_message_id

BOTH_SHAPES: tuple[Shape, ...] = ("legacy", "new")
CALLS_PER_COMPANY = 1000


class Simulation:
    """One simulated Codat, without its HTTP interface."""

    def __init__(
        self, settings: SimulatorSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Start empty; `transport` replaces the network for webhooks."""
        self.settings = settings
        self.clock = Clock(settings.speed, settings.backdate_seconds)
        self.rng = _seeded(settings, "events")
        self.state = State(self.clock, _seeded(settings, "world"))
        self.faults: list[Fault] = []
        self._fault_rng = _seeded(settings, "faults")
        self.quota = DailyQuota(self.daily_limit)
        self.counters = CallCounters()
        self.initiated: dict[str, tuple[bytes, str]] = {}  # by Idempotency-Key: body, sync id
        self.sender = Sender(
            self.clock, _seeded(settings, "sender"), settings.timeout_seconds, transport
        )
        self.sender.subscriptions += settings.subscriptions

    def daily_limit(self) -> int:
        """Return the API calls allowed per day."""
        by_companies = CALLS_PER_COMPANY * (1 + self.state.connected_companies())
        return self.settings.daily_quota or by_companies

    def concurrency_limit(self) -> int:
        """Return the API calls allowed at the same time."""
        return self.settings.concurrency_per_company * max(1, self.state.connected_companies())

    def draw_fault(self, call: str) -> Fault | None:
        """Return the first fault that hits a call of this kind, if any."""
        return next((fault for fault in self.faults if fault.hit(call, self._fault_rng)), None)

    def start_sync(
        self,
        company_id: str,
        size: int = 3,
        transaction_ids: list[str] | None = None,
        shapes: Iterable[Shape] = BOTH_SHAPES,
    ) -> Sync:
        """Start a sync and send its started event in the legacy shapes among `shapes`."""
        sync = self.state.start_sync(company_id, size, transaction_ids)
        self.send_sync_event(sync, "started", [s for s in shapes if not s.startswith("new")])
        return sync

    def advance_sync(
        self,
        sync_id: str,
        outcome: str,
        shapes: Iterable[Shape] = BOTH_SHAPES,
        options: DeliveryOptions | None = None,
    ) -> Sync:
        """Give a sync its next status and, once it has ended, send the event."""
        sync = self.state.advance_sync(sync_id, outcome)
        if not sync.running:
            self.send_sync_event(sync, final_event(sync), shapes, options)
        return sync

    async def finish_later(self, sync_id: str, outcome: str, delay: float) -> None:
        """Advance a sync after so many simulated seconds."""
        await self.clock.sleep(delay)
        self.advance_sync(sync_id, outcome)

    def send_sync_event(
        self,
        sync: Sync,
        event: SyncEvent,
        shapes: Iterable[Shape],
        options: DeliveryOptions | None = None,
    ) -> None:
        """Send one message per shape about a sync."""
        for shape in shapes:
            self.sender.send(self.sync_message(sync, event, shape), options)

    def sync_message(self, sync: Sync, event: SyncEvent, shape: Shape) -> Message:
        """Build a message about a sync. Raises ValueError if the shape has no such event."""
        company = self.state.company(sync.company_id)
        payload = sync_payload(sync, company, event, shape, self.rng, self.clock.now())
        return self._message(*payload)

    def send_quota_event(self, event: str) -> None:
        """Send `client.rateLimit.reached` or `.reset`, which concern the whole client."""
        payload = {
            "dailyQuota": self.quota.limit(),
            "quotaRemaining": self.quota.remaining,
            "expiryDate": format_time(self.quota.reset_at),
        }
        self._send_new(f"client.rateLimit.{event}", payload)

    def set_connection_status(self, company: Company, status: str) -> None:
        """Set the status of the accounting connection (Linked, Deauthorized) and send the event."""
        connection = company.connections[0]
        connection["status"] = status
        payload = {"referenceCompany": reference_company(company), "connection": connection}
        event = "connected" if status == "Linked" else "disconnected"
        self._send_new(f"connection.{event}", payload)

    def send_unknown_event(self) -> None:
        """Send an event of a type that Codat does not document."""
        self._send_new("expenses.policy.changed", {"policyId": random_uuid(self.rng)})

    def _send_new(self, event_type: str, payload: Json) -> None:
        body = new_payload(event_type, payload, self.rng, self.clock.now())
        self.sender.send(self._message(*body))

    def _message(self, event_type: str, body: Json) -> Message:
        text = json.dumps(body, ensure_ascii=False)
        return Message(new_message_id(self.rng), event_type, text)


def final_event(sync: Sync) -> SyncEvent:
    """Return the event that announces the end of a sync."""
    return "completed" if sync.succeeded else "failed"


def _seeded(settings: SimulatorSettings, subject: str) -> random.Random:
    # One generator per subject: draws for one do not change the others. Not for secrets.
    return random.Random(f"{settings.seed}/{subject}")  # noqa: S311
