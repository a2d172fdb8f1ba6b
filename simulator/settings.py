"""Settings of a simulator and the webhook subscriptions it starts with."""

import uuid
from dataclasses import dataclass, field

LEGACY_EVENTS = ("SyncStarted", "SyncFailed", "SyncCompleted")
NEW_EVENTS = ("expenses.sync.successful", "expenses.sync.unsuccessful")
OTHER_EVENTS = (
    "client.rateLimit.reached",
    "client.rateLimit.reset",
    "connection.connected",
    "connection.disconnected",
    "expenses.policy.changed",  # not a Codat event: receivers must accept unknown types
)


@dataclass(frozen=True)
class Subscription:
    """A webhook consumer: its URL, signing secret and event types.

    No event types means every event, in both payload generations, as in Codat's Portal
    (docs.codat.io/using-the-api/webhooks/create-consumer).
    """

    url: str
    secret: str
    event_types: tuple[str, ...] = ()
    subscription_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def accepts(self, event_type: str) -> bool:
        """Whether events of this type are sent to it."""
        return not self.event_types or event_type in self.event_types


@dataclass(frozen=True)
class SimulatorSettings:
    """Everything a simulator is built from.

    `speed` is simulated seconds per real second; it shortens retry gaps and sync durations.
    `backdate_seconds` is how far in the past the simulated time of day starts.
    `daily_quota` None means Codat's rule, 1,000 x (1 + connected companies).
    `timeout_seconds` (real) limits one webhook delivery.
    `finish_initiated_after` (simulated seconds) ends syncs that were started through the API; None
    leaves them in progress.
    """

    key: str = "simulated-api-key"
    seed: int = 1
    speed: float = 1.0
    backdate_seconds: float = 0.0
    subscriptions: tuple[Subscription, ...] = ()
    scenario: str = "none"
    daily_quota: int | None = None
    minute_limit: int = 1000
    concurrency_per_company: int = 10
    timeout_seconds: float = 15.0
    finish_initiated_after: float | None = None
