"""What a controller may order over `/_sim`: the JSON bodies, read strictly."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from simulator.deliveries import Plan
from simulator.faults import Fault
from simulator.outcomes import OUTCOMES, Item
from simulator.world import Ending

Shape = Literal[
    "legacy",
    "new",
    "new-without-transactions",
    "status",
    "ruletype-without-space",
    "type-key",
    "camel",
]
Family = Literal["webhook", "svix"]


class Order(BaseModel):
    """A body in which unknown members are refused, so that a typing error shows."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class CompanyOrder(Order):
    """A company to create; the platform decides its accounting connection."""

    name: str
    platform: str = "Xero"
    company_id: str | None = None
    connected: bool = True


class ConnectionOrder(Order):
    """The new state of a company's accounting connection."""

    status: Literal["PendingAuth", "Linked", "Unlinked", "Deauthorized"]


class ItemOrder(Order):
    """One row in Codat's own spelling; any status is allowed, also null."""

    transaction_id: str = Field(alias="transactionId")
    status: str | None = "Completed"
    message: str | None = None
    integration_type: str | None = Field("expense", alias="integrationType")

    def item(self) -> Item:
        """The row it describes."""
        return Item(self.transaction_id, self.status, self.message, self.integration_type)


class PlanOrder(Order):
    """How a message travels: simulated `delay`, `copies` of one message, `lose`, header family."""

    delay: float = Field(0.0, ge=0)
    copies: int = Field(1, ge=1, le=1000)
    lose: bool = False
    family: Family | None = None

    def plan(self) -> Plan:
        """The sender's word for it."""
        return Plan(self.delay, self.copies, self.lose, self.family)


class AdvanceOrder(PlanOrder):
    """The next state of a sync, and in which shapes it is told (none: in silence).

    `outcome` is a name as in `GET /_sim`; `code` overrides its number; `items` are explicit rows,
    `transaction_ids` or `size` let fitting rows be made. `after` puts it off (simulated seconds).
    """

    outcome: str | None = None
    code: int | None = None
    items: list[ItemOrder] | None = None
    transaction_ids: list[str] | None = None
    size: int | None = Field(None, ge=0, le=20_000)
    error_message: str | None = None
    exception_message: str | None = None
    sync_utc: str | None = None
    shapes: list[Shape] = ["legacy", "new"]
    after: float | None = Field(None, ge=0)

    def ending(self) -> Ending | None:
        """What the sync shall become; None when nothing says so. ValueError: unknown outcome."""
        if self.outcome is not None and self.outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {self.outcome!r}; known: {sorted(OUTCOMES)}")
        if self.outcome is None and self.code is None and self.items is None:
            return None
        items = None if self.items is None else [order.item() for order in self.items]
        return Ending(
            self.outcome,
            self.code,
            items,
            self.transaction_ids,
            self.size,
            self.error_message,
            self.exception_message,
            self.sync_utc,
        )


class SyncOrder(AdvanceOrder):
    """A sync to start; with an outcome, a code or items it also ends, at once or `after` a while.

    `retry_of` takes the failed transactions of an earlier sync; `tell_start` sends Sync Started.
    """

    company_id: str
    sync_id: str | None = None
    retry_of: str | None = None
    tell_start: bool = True


class EventOrder(PlanOrder):
    """Something to send: an event of known syncs, or any `body` at all (text is sent as it is).

    Without `event` the sync's own state decides. `times` makes that many messages, `shuffle`
    mixes their order, `subscription_id` sends to that consumer whether it listens or not.
    """

    sync_ids: list[str] = []
    event: Literal["started", "failed", "completed"] | None = None
    shapes: list[Shape] = ["legacy"]
    times: int = Field(1, ge=1, le=10_000)
    shuffle: bool = False
    subscription_id: str | None = None
    body: Any = None
    event_type: str = "raw"
    message_id: str | None = None


class SubscriptionOrder(Order):
    """A consumer to add; no secret means a fresh one, no event types means every event."""

    url: str
    secret: str = ""
    event_types: list[str] = []
    family: Family = "webhook"
    method: Literal["POST", "PUT"] = "POST"
    headers: dict[str, str] = {}


class RotateOrder(Order):
    """A new secret (fresh when absent); the old ones stay valid for so many simulated seconds."""

    secret: str | None = None
    keep_seconds: float = Field(86_400.0, ge=0)


class SinceOrder(Order):
    """From when on, in simulated seconds since the start."""

    since: float = 0.0


class WeatherOrder(Order):
    """Chances for every message: shares from 0 to 1, `delay` the most simulated seconds."""

    duplicate: float = Field(0.0, ge=0, le=1)
    lose: float = Field(0.0, ge=0, le=1)
    delay: float = Field(0.0, ge=0)


class SpeedOrder(Order):
    """Simulated seconds per real second."""

    speed: float = Field(ge=0)


class ExhaustOrder(Order):
    """When the quota comes back, in real seconds; absent: at midnight UTC."""

    reset_after: float | None = Field(None, ge=0)


class SettleOrder(Order):
    """How many real seconds to wait for all deliveries to end."""

    seconds: float = Field(5.0, ge=0, le=600)


class FaultOrder(Order):
    """A rule for API calls that go wrong; see the fields of `Fault`."""

    kind: str
    path: str = ""
    call: str = ""
    method: str = ""
    times: int | None = 1
    skip: int = Field(0, ge=0)
    probability: float = Field(1.0, ge=0, le=1)
    status: int = Field(503, ge=300, le=599)
    error: str | None = None
    retry_after: str | int | None = None
    hold_seconds: float = Field(30.0, ge=0)
    rows: int = Field(1, ge=-1000, le=1000)

    def fault(self) -> Fault:
        """The rule it describes."""
        told = self.model_dump()
        if self.retry_after is not None:
            told["retry_after"] = str(self.retry_after)
        return Fault(**told)
