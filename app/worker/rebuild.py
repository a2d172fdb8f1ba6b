"""Rebuild: recomputes all derived data, without calls to Codat.

    events → payloads → syncs (with the statuses and lists that Codat's API gave)
                      → transactions' causes → failed transactions → missing fetch jobs
                      → companies that cannot sync

It may run while the service does: it compares a few syncs at a time without a lock, and what
differs once more under the locks that every writer takes.
Events that the projector has yet to apply are left to it; those that it could not apply are marked
as pending, because the present code may be able to. Of a sync whose events' bodies retention
has removed, what they reported stays as it is.
"""

from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from app import logging
from app.codat.webhooks import payloads
from app.db import companies, company_state, failed_transactions, rebuilding
from app.db.engine import Database
from app.db.failed_transactions import TransactionKey
from app.db.rebuilding import LoadedSync, StoredEvent
from app.db.sync_writer import SyncKey, SyncWrite, lock_companies, write_syncs
from app.domain.models import Transaction, WebhookEvent, WebhookPayload
from app.domain.sync_state import (
    STATUS_FIELDS,
    Sync,
    apply_event_with_list,
    reason_to_fetch_again,
)
from app.domain.transactions import count
from app.worker.threads import read_blocking, retry_conflicts, write_blocking

REPORTED_FIELDS = (
    *("started_received_at", "failed_received_at", "completed_received_at"),
    *("failure_stage", "reported_started_at", "reported_ended_at"),
)
EVENTS_PER_STEP = 500
SYNCS_PER_STEP = 50
FAILURES_PER_STEP = 500
MAX_BODY_BYTES = 2_000_000
MAX_TRANSACTIONS = 5000
REPORT_EVERY = 10_000
MAX_EXAMPLES = 5

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.get(__name__)


@dataclass
class RebuildReport:
    """What a rebuild read, and what differed from what was stored."""

    events: int = 0
    syncs: int = 0
    events_marked_pending: int = 0
    events_differed: int = 0
    syncs_differed: int = 0
    failed_transactions_differed: int = 0
    companies_differed: int = 0
    fetches_enqueued: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """How many rows were wrong or missing."""
        rows = (self.events_differed, self.syncs_differed, self.failed_transactions_differed)
        return sum(rows) + self.companies_differed

    def __str__(self) -> str:
        text = (
            f"{self.events} events and {self.syncs} syncs: {self.events_differed} events, "
            f"{self.syncs_differed} syncs and {self.failed_transactions_differed} failed "
            f"transactions differed; {self.fetches_enqueued} fetches enqueued"
        )
        if self.companies_differed:
            text += f"; {self.companies_differed} companies differed"
        if self.events_marked_pending:
            text += f"; {self.events_marked_pending} failed events are applied again"
        return f"{text} (for example sync {', '.join(self.examples)})" if self.examples else text


@dataclass
class Rebuilder:
    """Rebuilds; `report` gets a line of progress now and then."""

    database: Database
    clock: Callable[[], datetime]
    report: Callable[[str], None] = lambda _: None

    def run(self) -> RebuildReport:
        """Rebuild everything. What is done stays done when it is stopped halfway."""
        result = RebuildReport()
        while marked := self._write(rebuilding.mark_failed_pending, EVENTS_PER_STEP):
            result.events_marked_pending += marked
        missing = self._rebuild_events(result)
        self._rebuild_syncs(result)
        for key in sorted(missing):
            self._rebuild_step([key], result)
        self._rebuild_failures(result)
        _log.info("rebuild finished", result=str(result))
        return result

    def _write(
        self, change: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `change` in a transaction, and again after a conflict."""
        return retry_conflicts(partial(write_blocking, self.database, change, *args, **kwargs))

    def _read(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return read_blocking(self.database, query, *args, **kwargs)

    def _rebuild_events(self, result: RebuildReport) -> set[SyncKey]:
        """Parse bodies again, apply names and connections; returns syncs that have no row."""
        missing: set[SyncKey] = set()
        last_id = 0
        while events := self._read(
            rebuilding.events_after, last_id, EVENTS_PER_STEP, MAX_BODY_BYTES
        ):
            parsed = [
                (event, payloads.parse(event.body)) for event in events if event.body is not None
            ]
            result.events_differed += self._write(_write_events, parsed)
            keys = {
                (payload.company_id or "", payload.sync_id or "")
                for _, payload in parsed
                if payload.is_sync_event
            }
            missing |= self._read(rebuilding.missing_keys, keys)
            last_id = events[-1].id
            self._progress("events", result.events, len(events))
            result.events += len(events)
        return missing

    def _rebuild_syncs(self, result: RebuildReport) -> None:
        limits = (SYNCS_PER_STEP, MAX_TRANSACTIONS, MAX_BODY_BYTES)
        last_id = 0
        while found := self._read(rebuilding.sync_keys_after, last_id, *limits):
            self._rebuild_step([key for _, key in found], result)
            last_id = found[-1][0]

    def _rebuild_step(self, keys: Sequence[SyncKey], result: RebuildReport) -> None:
        """Compare these syncs without a lock; only where one differs is a writer held up."""
        now = self.clock()
        if not self._read(_are_current, keys):
            writes, failures_differed = self._write(_write_syncs, keys, now=now)
            differed = [write.after.sync_id for write in writes if _differs(write)]
            result.syncs_differed += len(differed)
            result.examples += differed[: MAX_EXAMPLES - len(result.examples)]
            result.fetches_enqueued += sum(write.fetch is not None for write in writes)
            result.failed_transactions_differed += failures_differed
        self._progress("syncs", result.syncs, len(keys))
        result.syncs += len(keys)

    def _rebuild_failures(self, result: RebuildReport) -> None:
        last_company = ""
        while company_ids := self._read(rebuilding.companies_after, last_company, 100):
            for company_id in company_ids:
                self._rebuild_company_failures(company_id, result)
            result.companies_differed += self._write(_write_company_states, company_ids)
            last_company = company_ids[-1]

    def _rebuild_company_failures(self, company_id: str, result: RebuildReport) -> None:
        find, last = rebuilding.failed_ids_after, ""
        while ids := self._read(find, company_id, last, FAILURES_PER_STEP):
            keys = {(company_id, transaction_id) for transaction_id in ids}
            if not self._read(failed_transactions.is_current, keys):
                result.failed_transactions_differed += self._write(_write_failures, keys)
            last = ids[-1]

    def _progress(self, what: str, before: int, more: int) -> None:
        if before // REPORT_EVERY != (before + more) // REPORT_EVERY:
            self.report(f"{before + more} {what}")


def _write_events(
    connection: Connection, parsed: Sequence[tuple[StoredEvent, WebhookPayload]]
) -> int:
    """Store what these events say, unless they were erased; returns of how many it differed."""
    stored = rebuilding.lock_events(connection, [event.id for event, _ in parsed])
    differed = 0
    reported = []
    for event, payload in parsed:
        if event.id not in stored:
            continue
        if any(getattr(payload, name) != value for name, value in event.parsed.items()):
            rebuilding.store_payload(connection, event.id, payload)
            differed += 1
        if payload.parse_status == "ok":
            reported.append(WebhookEvent(event.message_id, event.received_at, payload))
    lock_companies(connection, filter(None, {event.payload.company_id for event in reported}))
    companies.record_events(connection, reported)
    return differed


def _are_current(connection: Connection, keys: Collection[SyncKey]) -> bool:
    """True when nothing must be written of these syncs, and of what they failed as a whole."""
    writes, pks = _compare(connection, keys, lock=False)
    return not writes and failed_transactions.is_unnamed_current(connection, pks)


def _write_syncs(
    connection: Connection, keys: Collection[SyncKey], *, now: datetime
) -> tuple[list[SyncWrite], int]:
    """Rebuild these syncs; returns what was written, and how many unnamed failures differed.

    Of a company that was erased meanwhile nothing is found, and its row is not brought back.
    """
    lock_companies(connection, {company_id for company_id, _ in keys}, insert_missing=False)
    writes, pks = _compare(connection, keys, lock=True)
    lock_companies(connection, {write.after.company_id for write in writes})
    write_syncs(connection, writes, now=now)
    return writes, failed_transactions.recompute_unnamed(connection, pks)


def _compare(
    connection: Connection, keys: Collection[SyncKey], *, lock: bool
) -> tuple[list[SyncWrite], list[int]]:
    """What must be written of these syncs, and the keys of those that are stored."""
    events = rebuilding.events_of(connection, keys)
    loaded = rebuilding.load_syncs(connection, keys, lock=lock)
    writes = []
    for key in sorted(keys):
        before = loaded.get(key)
        if before is None and not events[key]:  # erased meanwhile
            continue
        write = _rebuild_sync(connection, key, before, events[key])
        has_job = before is not None and before.row["has_job"]
        # a terminal event or a status requires a fetch
        if not has_job and write.after.state != "started" and reason_to_fetch_again(write.after):
            write.fetch = "enqueue"
        if _differs(write) or write.fetch:
            writes.append(write)
    return writes, [sync.stored.pk for sync in loaded.values()]


def _rebuild_sync(
    connection: Connection, key: SyncKey, before: LoadedSync | None, events: Sequence[StoredEvent]
) -> SyncWrite:
    after, transactions = _replay(key, before, events)
    if before is None:
        return SyncWrite(None, after, transactions or None)
    write = SyncWrite(before.stored, after)
    if rebuilding.list_differs(connection, before, after, transactions):
        write.transactions = transactions
    row_differs = rebuilding.row_differs(connection, before, after)
    write.rewrite = row_differs or write.transactions is not None
    return write


def _differs(write: SyncWrite) -> bool:
    return write.before is None or write.rewrite


def _write_failures(connection: Connection, keys: Set[TransactionKey]) -> int:
    """Recompute the latest failures of these transactions; returns how many rows differed."""
    company_ids = {company_id for company_id, _ in keys}
    lock_companies(connection, company_ids, insert_missing=False)
    return failed_transactions.recompute(connection, keys)[0]


def _write_company_states(connection: Connection, company_ids: Sequence[str]) -> int:
    """Recompute which of these companies cannot sync; returns how many differed."""
    lock_companies(connection, company_ids, insert_missing=False)
    return company_state.recompute(connection, company_ids)


def _replay(
    key: SyncKey, before: LoadedSync | None, events: Sequence[StoredEvent]
) -> tuple[Sync, Sequence[Transaction]]:
    """The sync and its list by its events and what Codat's API gave."""
    listed = before.transactions if before else []
    has_lost_bodies = any(event.body is None for event in events)
    sync = _what_codat_gave(before, listed, keep_reported=has_lost_bodies) or Sync(*key)
    transactions: Sequence[Transaction] = listed if sync.transactions_source else ()
    for stored in events:
        if stored.body is None:
            continue
        payload = payloads.parse(stored.body)
        if not payload.is_sync_event or (payload.company_id, payload.sync_id) != key:
            continue
        event = WebhookEvent(stored.message_id, stored.received_at, payload)
        sync, transactions = apply_event_with_list(sync, transactions, event)
    return sync, transactions


def _what_codat_gave(
    before: LoadedSync | None, listed: Sequence[Transaction], *, keep_reported: bool
) -> Sync | None:
    """The stored sync without what its events reported, unless their bodies are gone."""
    if before is None:
        return None
    sync = before.stored.sync
    if sync.transactions_source == "codat":
        sync = sync._replace(counts=count(listed))
    if keep_reported:
        return sync
    names = [*REPORTED_FIELDS]
    if sync.verified_at is None:
        names += STATUS_FIELDS
    if sync.transactions_source == "webhook":
        names += ["transactions_source", "transactions_key", "counts"]
    blank = Sync(sync.company_id, sync.sync_id)
    return sync._replace(**{name: getattr(blank, name) for name in names})
