"""What a simulator is told at its start: keys, speeds, limits and who receives its webhooks."""

from dataclasses import dataclass, field

LEGACY_EVENTS = ("SyncStarted", "SyncFailed", "SyncCompleted")
NEW_EVENTS = ("expenses.sync.successful", "expenses.sync.unsuccessful")
OTHER_EVENTS = (
    "client.rateLimit.reached",
    "client.rateLimit.reset",
    "connection.connected",
    "connection.disconnected",
)


@dataclass(frozen=True)
class SubscriptionSettings:
    """One webhook consumer: where it listens, which events, which secret, which header family.

    No event types means every event, in both payload generations, as in Codat's Portal
    (docs.codat.io/using-the-api/webhooks/create-consumer).
    """

    url: str
    secret: str
    event_types: tuple[str, ...] = ()
    family: str = "webhook"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SimulatorSettings:
    """Everything a simulator is built from.

    `speed` makes durations shorter: retry gaps, sync durations, the five days to disablement.
    `behind_seconds` is how far the world's clock starts in the past; it never overtakes the wall.
    `daily_quota` None means Codat's rule, 1,000 x (1 + connected companies).
    `retry_after_form` is `seconds` or `date`. `finish_initiated_after` (simulated seconds) ends
    syncs that were started over the API by themselves; None leaves them in progress.
    """

    key: str = "simulated-api-key"
    seed: int = 1
    speed: float = 1.0
    behind_seconds: float = 0.0
    subscriptions: tuple[SubscriptionSettings, ...] = ()
    scenario: str = "none"
    daily_quota: int | None = None
    minute_limit: int = 1000
    concurrency_per_company: int = 10
    retry_after_form: str = "seconds"
    timeout_seconds: float = 15.0
    refuse_while_running: bool = True
    completed_after_failure: bool = False
    finish_initiated_after: float | None = None
    client_id: str = "30e0f9d2-52c0-4c9f-a806-bcd98a3bcd7e"
    client_name: str = "Expense Sync"
