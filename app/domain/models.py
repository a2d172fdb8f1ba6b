"""Values that the layers exchange: a webhook event, a sync status, a transaction.

Independent of HTTP, JSON and SQL. Times are aware and in UTC; `None` means unknown.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

SYNC_STARTED = "sync.started"
SYNC_FAILED = "sync.failed"
SYNC_COMPLETED = "sync.completed"
RATE_LIMIT_REACHED = "client.rateLimit.reached"
RATE_LIMIT_RESET = "client.rateLimit.reset"
UNKNOWN = "unknown"

SYNC_EVENTS = frozenset({SYNC_STARTED, SYNC_FAILED, SYNC_COMPLETED})

ParseStatus = Literal["ok", "unknown", "unreadable"]


class Transaction(NamedTuple):
    """One row of a sync's transaction list, as Codat returns it.

    Rows repeat: one transaction id may come once per integration type, and even twice the same.
    Texts are open: an unknown enum member is stored as it is. A tuple, because a list has thousands
    of them and a frozen dataclass takes three times as long to make and to compare.
    """

    transaction_id: str | None
    status: str | None
    message: str | None = None
    integration_type: str | None = None


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """Codat's own status of a sync (`CompanySyncStatus`). Empty texts are None.

    `sync_utc` is Codat's single time of the sync; None where it is absent or unreadable.
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
class PlatformConnection:
    """A company's connection to a platform, as a connection event or the companies list has it."""

    connection_id: str | None
    platform_name: str | None
    source_type: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class Company:
    """A company as Codat's list of companies has it.

    `connections` to platforms is None when the list does not say: absent is not empty.
    """

    company_id: str
    name: str | None
    connections: tuple[PlatformConnection, ...] | None = None


@dataclass(frozen=True, slots=True)
class WebhookPayload:
    """The parsed body of a webhook. Always made, never raised.

    `event_type` is the canonical name (`sync.failed`, `connection.created`, …), `unknown` for a
    type that is in no catalog; `raw_type` is the spelling in the body. `parse_status` is
    `unreadable` when the body is no JSON object, or is a sync event without its ids; `parse_error`
    has the reason. `transactions` is None when the body listed none: absent is not empty.
    """

    event_type: str = UNKNOWN
    parse_status: ParseStatus = "unknown"
    parse_error: str | None = None
    raw_type: str | None = None
    body_id: str | None = None
    company_id: str | None = None
    company_name: str | None = None
    sync_id: str | None = None
    generated_at: datetime | None = None
    failure_stage: str | None = None
    status: SyncStatus | None = None
    transactions: tuple[Transaction, ...] | None = None
    connection: PlatformConnection | None = None
    quota_expires_at: datetime | None = None

    @property
    def is_sync_event(self) -> bool:
        """True when the event changes what is known about one sync."""
        return self.parse_status == "ok" and self.event_type in SYNC_EVENTS


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """A stored webhook event with its payload: what the projector applies.

    `message_id` is the id from the signature headers; Codat repeats it over its retries.
    """

    message_id: str
    received_at: datetime
    payload: WebhookPayload
