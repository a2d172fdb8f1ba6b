"""The state of a sync, and how webhook events and Codat's answers combine into it.

A sync has two sources. *Webhook events* only accumulate: for each kind of event the latest time at
which one was received, for the sync's own times the earliest; so order, number and timing of
deliveries do not matter. *Codat's status endpoint* replaces its earlier answer and covers every
event received up to then. An event received later is *unverified*: it counts, failure first, until
the next fetch.

    received:  nothing → started → completed → failed        (never back)
    verified:  running | completed | failed                  (Codat's status, at `verified_at`)
    state:     unverified failure > verified status > unverified completion > started
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeVar

from app.domain.models import (
    SYNC_COMPLETED,
    SYNC_FAILED,
    SYNC_STARTED,
    SyncStatus,
    Transaction,
    WebhookEvent,
)
from app.domain.status_codes import NO_DATA_WRITTEN, Phase, phase_of
from app.domain.transactions import TransactionCounts, count

State = Literal["started", "completed", "failed"]
Outcome = Literal[
    "in_progress", "all_written", "nothing_to_write", "partly_failed", "failed", "unknown"
]
ErrorsState = Literal["not_needed", "waiting", "fetched", "incomplete", "given_up"]
JobState = Literal["pending", "done", "dead"]
TransactionsSource = Literal["webhook", "codat"]

TERMINAL_EVENTS = frozenset({SYNC_FAILED, SYNC_COMPLETED})
STATUS_FIELDS = tuple(f.name for f in fields(SyncStatus) if not f.name.endswith("_id"))
"""What a `SyncStatus` says of a sync: fields of both."""
_RECEIVED_AND_REPORTED = {
    SYNC_STARTED: ("started_received_at", "reported_started_at"),
    SYNC_FAILED: ("failed_received_at", "reported_ended_at"),
    SYNC_COMPLETED: ("completed_received_at", "reported_ended_at"),
}
_NEVER = datetime.min.replace(tzinfo=UTC)
T = TypeVar("T", datetime, str)
Listed = TypeVar("Listed", bound=Sequence[Transaction] | None)


class Sync(NamedTuple):
    """Everything known about one sync, as values. Derived facts are properties.

    A tuple, because every event makes several: a frozen dataclass takes four times as long.
    `…_received_at` is when the latest event of that kind was received; `reported_…_at` the earliest
    start and end that events report. `events_verified_at` is the time up to which received events
    are covered by Codat's answer; `codat_started_at` is the start by Codat's API: the time of a
    running status, or of a start that it accepted. `transactions_key` orders the lists that
    webhooks carry. `fetched_at` is when Codat first returned the list as it is; `fetch_attempts`
    how many attempts the fetch took that last changed anything.
    """

    company_id: str
    sync_id: str
    started_received_at: datetime | None = None
    failed_received_at: datetime | None = None
    completed_received_at: datetime | None = None
    failure_stage: str | None = None
    reported_started_at: datetime | None = None
    reported_ended_at: datetime | None = None
    first_seen_at: datetime | None = None
    status_code: int | None = None
    status: str | None = None
    error_message: str | None = None
    exception_message: str | None = None
    data_pushed: bool | None = None
    sync_utc: datetime | None = None
    codat_started_at: datetime | None = None
    verified_at: datetime | None = None
    events_verified_at: datetime | None = None
    transactions_source: TransactionsSource | None = None
    transactions_key: str | None = None
    transactions_complete: bool = False
    counts: TransactionCounts | None = None
    expected: int | None = None
    fetched_at: datetime | None = None
    fetch_attempts: int | None = None

    @property
    def events_received_at(self) -> list[datetime]:
        """When the latest event of each kind was received; empty when no webhook reported it."""
        times = (self.started_received_at, self.failed_received_at, self.completed_received_at)
        return [at for at in times if at]

    @property
    def was_reported(self) -> bool:
        """True when any webhook reported this sync."""
        return bool(self.events_received_at)

    @property
    def codat_counts(self) -> TransactionCounts | None:
        """The counts of Codat's own list; a webhook's list proves nothing."""
        return self.counts if self.transactions_source == "codat" else None

    @property
    def verified_phase(self) -> Phase | None:
        """The phase that Codat's status endpoint gave; None before it answered or when unknown."""
        return phase_of(self.status_code) if self.verified_at else None

    @property
    def has_unverified_failure(self) -> bool:
        """True when a failed event was received that no answer of Codat covers."""
        return self._is_unverified(self.failed_received_at)

    @property
    def has_unverified_completion(self) -> bool:
        """True when a completed event was received that no answer of Codat covers."""
        return self._is_unverified(self.completed_received_at)

    def _is_unverified(self, received_at: datetime | None) -> bool:
        covered = self.events_verified_at
        return received_at is not None and (covered is None or received_at > covered)

    @property
    def state(self) -> State:
        """`failed` overrides `completed` until a later request of Codat's status shows otherwise.

        A sync with any failed transaction counts as failed (Codat docs, "Monitor sync health").
        """
        phase = self.verified_phase
        has_failed_transactions = self.codat_counts is not None and self.codat_counts.failed > 0
        if self.has_unverified_failure or phase == "failed" or has_failed_transactions:
            return "failed"
        if self.has_unverified_completion or phase == "completed":
            return "completed"
        return "started"

    @property
    def started_at(self) -> datetime | None:
        """The earliest start that is known; None where it would lie after Codat's own end.

        A body of the older generation has no time of its own, so a late one gets the time at which
        it was received.
        """
        started_at = _earliest(self.reported_started_at, self.codat_started_at)
        finished_at = self.finished_at if self.verified_at else None
        return None if started_at and finished_at and started_at > finished_at else started_at

    @property
    def finished_at(self) -> datetime | None:
        """Codat's time once its status is final, else that of the earliest terminal event."""
        if self.state == "started":
            return None
        if self.verified_phase in ("completed", "failed") and self.sync_utc:
            return self.sync_utc
        return self.reported_ended_at

    @property
    def occurred_at(self) -> datetime | None:
        """The time that orders syncs: the start, else the end, else when it was first seen."""
        return self.started_at or self.finished_at or self.first_seen_at

    @property
    def outcome(self) -> Outcome:
        """The result for people. Nothing unproved is ever shown as written."""
        if self.state == "started":
            has_unknown_code = self.verified_at is not None and self.verified_phase is None
            return "unknown" if has_unknown_code else "in_progress"
        if self.state == "failed":
            some_written = self.counts is not None and self.counts.failed and self.counts.completed
            return "partly_failed" if some_written else "failed"
        return self._completed_outcome()

    def _completed_outcome(self) -> Outcome:
        if self.verified_phase != "completed":
            return "unknown"
        if self.status_code == NO_DATA_WRITTEN:
            return "nothing_to_write"
        counts = self.codat_counts if self.transactions_complete else None
        return "all_written" if counts and counts.completed == counts.total else "unknown"


def day_of(at: datetime) -> str:
    """The UTC day of a moment, as `2026-01-31`."""
    return at.astimezone(UTC).date().isoformat()


def apply_event(sync: Sync, event: WebhookEvent) -> Sync:
    """The sync after one event about it. Idempotent and commutative."""
    payload, received_at = event.payload, event.received_at
    status = payload.status
    at = payload.generated_at or (status and status.sync_utc) or received_at
    received, reported = _RECEIVED_AND_REPORTED[payload.event_type]
    times: dict[str, Any] = {
        received: _latest(getattr(sync, received), received_at),
        reported: _earliest(getattr(sync, reported), at),
    }
    after = sync._replace(
        failure_stage=_latest(sync.failure_stage, payload.failure_stage),
        first_seen_at=_earliest(sync.first_seen_at, received_at),
        **times,
    )
    if status is not None:
        after = _apply_reported_status(after, status)
    if payload.transactions is not None:
        key = _inline_key(event)
        # the latest of the lists that webhooks carry counts, until Codat has given its own
        if after.transactions_source != "codat" and (after.transactions_key or "") < key:
            after = with_transactions(after, payload.transactions, source="webhook", key=key)
    return after


def apply_event_with_list(
    sync: Sync, listed: Listed, event: WebhookEvent
) -> tuple[Sync, Listed | Sequence[Transaction]]:
    """The sync after one event about it, and its transaction list: `listed`, or the event's own."""
    after, carried = apply_event(sync, event), event.payload.transactions
    if carried is None or after.transactions_key == sync.transactions_key:
        return after, listed
    return after, carried


def _apply_reported_status(sync: Sync, status: SyncStatus) -> Sync:
    """A status in a webhook's body counts only until Codat's API has answered."""
    if sync.verified_at or _rank(status) <= _rank(sync):
        return sync
    return _with_status(sync, status)


def _rank(status: SyncStatus | Sync) -> tuple[object, ...]:
    """Orders reported statuses: the latest wins, then the higher code; all else breaks ties."""
    others = (repr(getattr(status, name)) for name in STATUS_FIELDS)
    return (status.sync_utc or _NEVER, status.status_code or 0, *others)


def _with_status(sync: Sync, status: SyncStatus) -> Sync:
    return sync._replace(**{name: getattr(status, name) for name in STATUS_FIELDS})


def apply_status(
    sync: Sync, status: SyncStatus, *, requested_at: datetime, has_newer_events: bool
) -> Sync:
    """The sync after the answer of Codat's status endpoint, requested at `requested_at`.

    `has_newer_events` is true when an event was projected after the request was sent: then the
    answer covers only the events received before. Otherwise it covers all of them, even where the
    clock of another host stamped one later. An answer older than the one at hand changes nothing.
    """
    if sync.verified_at and requested_at < sync.verified_at:
        return sync
    after = _with_status(sync, status)._replace(verified_at=requested_at)
    phase = after.verified_phase
    if phase == "running":
        return after._replace(codat_started_at=_earliest(after.codat_started_at, status.sync_utc))
    if phase is None:
        return after
    received = [] if has_newer_events else after.events_received_at
    return after._replace(events_verified_at=max([requested_at, *received]))


def with_transactions(
    sync: Sync,
    transactions: Sequence[Transaction],
    *,
    source: TransactionsSource,
    key: str | None = None,
    expected: int | None = None,
    steady: bool = True,
    at: datetime | None = None,
) -> Sync:
    """The sync with this whole list in place of the one before.

    A list from Codat is complete when it did not change while its pages were read (`steady`), has
    as many rows as Codat counts (`expected`), and none of them is still pending.
    """
    counts = count(transactions)
    whole = source == "codat" and steady and expected in (None, counts.total)
    return sync._replace(
        transactions_source=source,
        transactions_key=key,
        transactions_complete=whole and counts.pending == 0,
        counts=counts,
        expected=expected,
        fetched_at=at,
    )


def _inline_key(event: WebhookEvent) -> str:
    """Orders the lists that webhooks carry: the latest wins, a failure among equals."""
    at = event.payload.generated_at.isoformat() if event.payload.generated_at else ""
    return f"{at}|{int(event.payload.event_type == SYNC_FAILED)}|{event.message_id}"


def reason_to_fetch_again(sync: Sync) -> str | None:
    """Why this sync must be fetched again, or None when everything about it is verified."""
    has_unverified_end = sync.has_unverified_failure or sync.has_unverified_completion
    if has_unverified_end and sync.verified_phase not in ("completed", "failed"):
        status = sync.status or sync.status_code
        return f"Codat's status is still {status}, a webhook reported the end"
    if sync.state == "started" or sync.transactions_complete:
        return None
    counts = sync.codat_counts
    if counts is None:
        return "the transaction list has not been read yet"
    if counts.pending:
        return f"{counts.pending} of {counts.total} transactions are still pending"
    if sync.expected == counts.total:
        return "the transaction list changed while it was read"
    return f"Codat counts {sync.expected} transactions and listed {counts.total}"


def errors_state(sync: Sync, job: JobState | None) -> ErrorsState:
    """How much is known about the errors of a sync's transactions; `job` is its fetch job."""
    if sync.state == "started":
        return "not_needed"
    if sync.verified_phase == "failed":
        agrees = not sync.has_unverified_completion
    else:  # no unverified event may contradict Codat's status
        agrees = sync.verified_phase == "completed" and not sync.has_unverified_failure
    is_listed = agrees and sync.transactions_source == "codat"
    if is_listed and sync.transactions_complete:
        is_clean = sync.state == "completed" and not (sync.counts and sync.counts.failed)
        return "not_needed" if is_clean else "fetched"
    if job == "dead":
        return "given_up"
    return "incomplete" if is_listed else "waiting"


def _earliest(a: datetime | None, b: datetime | None) -> datetime | None:
    return min(a, b) if a and b else a or b


def _latest(a: T | None, b: T | None) -> T | None:
    return max(a, b) if a and b else a or b
