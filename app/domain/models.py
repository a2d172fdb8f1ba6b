"""What reaches us about a sync, as values: an event, a status, an item.

These are the words in which the walls (`app.codat`, `app.db`) talk to each other through
the rooms above them. Nothing here knows HTTP, JSON or SQL.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

SYNC_STARTED = "sync.started"
SYNC_FAILED = "sync.failed"
SYNC_COMPLETED = "sync.completed"
RATE_LIMIT_REACHED = "client.rateLimit.reached"
RATE_LIMIT_RESET = "client.rateLimit.reset"
UNKNOWN = "unknown"

SYNC_EVENTS = frozenset({SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED})

Reading = Literal["ok", "unknown", "unreadable"]


class Item(NamedTuple):
    """One row of a sync's transaction list, as Codat tells it.

    Rows repeat: one transaction id may come once per integration type, and even twice the same.
    Every text is open: an enum member unknown to us is kept as it is. A tuple, because a list has
    thousands of them, and frozen dataclasses take three times as long to make and to compare.
    """

    transaction_id: str | None
    status: str | None
    message: str | None = None
    integration_type: str | None = None


@dataclass(frozen=True, slots=True)
class CodatStatus:
    """Codat's own status of a sync (`CompanySyncStatus`). Empty texts are None.

    `sync_utc` is Codat's single time of the sync, in UTC; None where it is absent or unreadable.
    """

    company_id: str | None
    sync_id: str | None
    status_code: int | None
    status: str | None = None
    error_message: str | None = None
    exception_message: str | None = None
    data_pushed: bool | None = None
    sync_utc: datetime | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A company's link to a platform, as a connection event tells it."""

    connection_id: str | None
    platform_name: str | None
    source_type: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """The meaning of one verified webhook body. Always made, never raised.

    `event` is the canonical name (`sync.failed`, `connection.created`, …), `unknown` for a type
    that is in no catalog; `event_type` is the spelling that came. `reading` is `unreadable` when
    the body is no JSON object or a sync event without its ids, with the reason in `reason`.
    `transactions` is None when the body did not list any: absent is not empty.
    """

    event: str = UNKNOWN
    reading: Reading = "unknown"
    reason: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    company_id: str | None = None
    company_name: str | None = None
    sync_id: str | None = None
    generated_at: datetime | None = None
    failure_stage: str | None = None
    status: CodatStatus | None = None
    transactions: tuple[Item, ...] | None = None
    connection: Connection | None = None
    quota_expires_at: datetime | None = None

    @property
    def speaks_of_a_sync(self) -> bool:
        """True when this event changes what we know of one sync."""
        return self.reading == "ok" and self.event in SYNC_EVENTS


@dataclass(frozen=True, slots=True)
class Delivery:
    """One authentic HTTP delivery: the message id Codat keeps over its retries, and the bytes."""

    message_id: str
    received_at: datetime
    body: bytes
    event: Event = field(default_factory=Event)
