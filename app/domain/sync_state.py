"""What a sync is, and how two pieces of news about it merge.

A sync is known from two sides. What webhooks *tell* only accumulates: flags are joined, times go
to the earliest, so the order, number and timing of deliveries cannot matter. What Codat's status
endpoint *says* (the verdict) replaces the verdict before it. News that came after the verdict was
asked for is *unsettled*: it is believed, failure first, until Codat is asked again.

    told:     nothing → started → completed → failed          (never back)
    verdict:  running | completed | failed                    (as Codat says, at `asked_at`)
    state:    unsettled failure > verdict > unsettled completion > started
"""

from datetime import UTC, datetime
from typing import Literal, NamedTuple

from app.domain.models import SYNC_COMPLETED, SYNC_FAILED, SYNC_STARTED, CodatStatus, Event, Item
from app.domain.status_codes import NOTHING_WRITTEN, Phase, phase_of
from app.domain.transactions import Counts, count

State = Literal["started", "completed", "failed"]
Outcome = Literal[
    "in_progress", "all_written", "nothing_to_write", "partly_failed", "failed", "unknown"
]
ErrorsState = Literal["not_needed", "waiting", "fetched", "incomplete", "given_up"]
FetchState = Literal["owed", "settled", "dead"]
ItemsFrom = Literal["webhook", "codat"]


class Heard:
    """Which of the three sync events have been heard, as bits of a number.

    Plain numbers: an enumeration of flags makes an object for every `&` and `|`.
    """

    NOTHING = 0
    STARTED = 1
    FAILED = 2
    COMPLETED = 4


TERMINAL = Heard.FAILED | Heard.COMPLETED
ENDINGS = frozenset({SYNC_FAILED, SYNC_COMPLETED})
_FLAGS = {
    SYNC_STARTED: Heard.STARTED,
    SYNC_FAILED: Heard.FAILED,
    SYNC_COMPLETED: Heard.COMPLETED,
}


class Sync(NamedTuple):
    """Everything known of one sync. Times are UTC; None is "not known".

    A tuple, because every delivery makes several: a frozen dataclass takes four times as long.
    """

    company_id: str
    sync_id: str
    heard: int = Heard.NOTHING
    unsettled: int = Heard.NOTHING
    failure_stage: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    first_seen_at: datetime | None = None
    status_code: int | None = None
    status: str | None = None
    error_message: str | None = None
    exception_message: str | None = None
    data_pushed: bool | None = None
    codat_utc: datetime | None = None
    asked_at: datetime | None = None
    items_from: ItemsFrom | None = None
    items_key: str | None = None
    items_complete: bool = False
    counts: Counts | None = None
    expected: int | None = None
    fetched_at: datetime | None = None

    @property
    def verdict(self) -> Phase | None:
        """The phase Codat's status endpoint gave, None before it was asked or when unreadable."""
        return phase_of(self.status_code) if self.asked_at else None

    @property
    def state(self) -> State:
        """Failed beats completed until Codat's own status, asked later, says otherwise.

        A sync with any failed item counts as failed (Codat docs, "Monitor sync health").
        """
        verdict = self.verdict
        if self.unsettled & Heard.FAILED or verdict == "failed" or self._has_failed_items:
            return "failed"
        if self.unsettled & Heard.COMPLETED or verdict == "completed":
            return "completed"
        return "started"

    @property
    def _has_failed_items(self) -> bool:
        """By Codat's own list; what a webhook lists is only believed as long as it is news."""
        return self.items_from == "codat" and self.counts is not None and self.counts.failed > 0

    @property
    def finished_at(self) -> datetime | None:
        """Codat's own time once its verdict is final, else the earliest terminal event's."""
        if self.state == "started":
            return None
        if self.verdict in ("completed", "failed") and self.codat_utc:
            return self.codat_utc
        return self.ended_at

    @property
    def occurred_at(self) -> datetime | None:
        """When it happened, as well as we know: its start, else its end, else when we heard."""
        return self.started_at or self.finished_at or self.first_seen_at

    @property
    def day(self) -> str | None:
        """The UTC day on which it happened, as `2026-01-31`."""
        return day_of(self.occurred_at)

    @property
    def outcome(self) -> Outcome:
        """What a person wants to know. Nothing unproved is ever shown as written."""
        if self.state == "started":
            odd = self.asked_at is not None and self.verdict is None
            return "unknown" if odd else "in_progress"
        if self.state == "failed":
            return _failed_outcome(self.counts)
        return _completed_outcome(self)


def day_of(at: datetime | None) -> str | None:
    """The UTC day of a moment, as `2026-01-31`."""
    return at.astimezone(UTC).date().isoformat() if at else None


def _failed_outcome(counts: Counts | None) -> Outcome:
    partly = counts is not None and counts.failed > 0 and counts.completed > 0
    return "partly_failed" if partly else "failed"


def _completed_outcome(sync: Sync) -> Outcome:
    if sync.verdict != "completed":
        return "unknown"
    counts = sync.counts if sync.items_from == "codat" else None
    if sync.status_code == NOTHING_WRITTEN:
        return "nothing_to_write"
    proved = counts is not None and sync.items_complete and counts.completed == counts.total
    return "all_written" if proved else "unknown"


def tell(sync: Sync, event: Event, received_at: datetime) -> Sync:
    """The sync after one event about it. Idempotent, and the order of events does not matter."""
    flag = _FLAGS[event.event]
    at = event.generated_at or (event.status and event.status.sync_utc) or received_at
    told = sync._replace(
        heard=sync.heard | flag,
        unsettled=sync.unsettled | (flag & TERMINAL),
        failure_stage=_greatest(sync.failure_stage, event.failure_stage),
        started_at=_earliest(sync.started_at, at if flag == Heard.STARTED else None),
        ended_at=_earliest(sync.ended_at, at if flag & TERMINAL else None),
        first_seen_at=_earliest(sync.first_seen_at, received_at),
    )
    return _in_order(_hinted(told, event.status) if event.status else told)


def _in_order(sync: Sync) -> Sync:
    """An old body has no time of its own, and a late one says nothing of when the sync started.

    Only once Codat has said when it ended: what webhooks tell of that may still change.
    """
    started, finished = sync.started_at, sync.finished_at if sync.asked_at else None
    late = started is not None and finished is not None and started > finished
    return sync._replace(started_at=None) if late else sync


def _hinted(sync: Sync, status: CodatStatus) -> Sync:
    """A status that came by webhook counts only while Codat itself has not been asked."""
    if sync.asked_at or _hint_key(status) <= _hint_key(sync):
        return sync
    return _with_status(sync, status)


def _hint_key(told: CodatStatus | Sync) -> tuple[datetime, int]:
    at = told.codat_utc if isinstance(told, Sync) else told.sync_utc
    return (at or datetime.min.replace(tzinfo=UTC), told.status_code or 0)


def _with_status(sync: Sync, status: CodatStatus) -> Sync:
    return sync._replace(
        status_code=status.status_code,
        status=status.status,
        error_message=status.error_message,
        exception_message=status.exception_message,
        data_pushed=status.data_pushed,
        codat_utc=status.sync_utc,
    )


def settle(sync: Sync, status: CodatStatus, *, asked_at: datetime, fresh: bool) -> Sync:
    """The sync after Codat's own status, asked for at `asked_at`.

    `fresh` says that an event came in after the question was put: then nothing is settled by the
    answer. An answer older than the verdict we have changes nothing.
    """
    if sync.asked_at and asked_at < sync.asked_at:
        return sync
    said = _with_status(sync, status)._replace(asked_at=asked_at)
    if said.verdict == "running":
        return said._replace(started_at=_earliest(said.started_at, status.sync_utc))
    settled = said.verdict is not None and not fresh
    return _in_order(said._replace(unsettled=Heard.NOTHING) if settled else said)


def with_items(
    sync: Sync,
    items: tuple[Item, ...],
    *,
    source: ItemsFrom,
    key: str | None = None,
    expected: int | None = None,
    steady: bool = True,
    at: datetime | None = None,
) -> Sync:
    """The sync with this whole item set in place of the one before.

    A set from Codat is complete when the list held still, has as many rows as Codat counts, and
    none of them is still pending.
    """
    counts = count(items)
    whole = source == "codat" and steady and expected in (None, counts.total)
    return sync._replace(
        items_from=source,
        items_key=key,
        items_complete=whole and counts.pending == 0,
        counts=counts,
        expected=expected,
        fetched_at=at,
    )


def inline_key(event: Event, message_id: str) -> str:
    """Orders the item lists that webhooks carry: the latest told wins, a failure among equals."""
    at = event.generated_at.isoformat() if event.generated_at else ""
    return f"{at}|{int(event.event == SYNC_FAILED)}|{message_id}"


def inline_wins(sync: Sync, key: str) -> bool:
    """True when a webhook's item list with this key should stand in for the one we have."""
    return sync.items_from != "codat" and (sync.items_key or "") < key


def still_owed(sync: Sync) -> str | None:
    """Why Codat must be asked again about this sync, or None when its truth is known."""
    if sync.unsettled & TERMINAL and sync.verdict not in ("completed", "failed"):
        return f"Codat still says {sync.status or sync.status_code}, a webhook said it finished"
    if sync.state == "started" or sync.items_complete:
        return None
    if sync.counts is None or sync.items_from != "codat":
        return "its list of items has not been read yet"
    if sync.counts.pending:
        return f"{sync.counts.pending} of {sync.counts.total} items are still pending"
    if sync.expected == sync.counts.total:
        return "its list of items moved while it was read"
    return f"Codat counts {sync.expected} items and listed {sync.counts.total}"


def errors_state(sync: Sync, fetch: FetchState | None) -> ErrorsState:
    """How much is known about a sync's item errors, for people who must not be misled."""
    if sync.state == "started":
        return "not_needed"
    if sync.items_from == "codat" and sync.items_complete and _agrees(sync):
        clean = sync.state == "completed" and not (sync.counts and sync.counts.failed)
        return "not_needed" if clean else "fetched"
    if fetch == "dead":
        return "given_up"
    return "incomplete" if sync.items_from == "codat" and _agrees(sync) else "waiting"


def _agrees(sync: Sync) -> bool:
    """True when no unsettled news contradicts Codat's verdict."""
    if sync.verdict not in ("completed", "failed"):
        return False
    contrary = Heard.COMPLETED if sync.verdict == "failed" else Heard.FAILED
    return not sync.unsettled & contrary


def _earliest(a: datetime | None, b: datetime | None) -> datetime | None:
    return min(a, b) if a and b else a or b


def _greatest(a: str | None, b: str | None) -> str | None:
    return max(a, b) if a and b else a or b
