"""Writes syncs and everything derived from them; no other module does.

Projector, fetcher, refresh, reconciliation and rebuild end here. For each sync it takes the state
before and after, and the new transaction list if there is one, and writes, in the caller's
transaction: the row, whether the company can sync (`company_state`), the transactions and
`failed_transactions` (`transaction_lists`), the fetch job, the timeline, the outgoing messages and,
last, the change feed.

Every caller locks the companies first (`lock_companies`), then the syncs (`load_syncs`). Rows are
locked in this order everywhere: webhook events, companies, syncs, rate-limit pause, jobs, outgoing
messages, change feed; within a table by key. So writers wait for each other and do not deadlock.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, and_, select

from app.db import change_feed, company_state, jobs, outgoing
from app.db.engine import classifier_of, insert
from app.db.jobs import UNKNOWN_ORIGIN, Claim, Origin
from app.db.many_rows import insert_many, is_any_of, update_many
from app.db.sync_rows import CAUSE_COLUMNS, StoredSync, sync_row, to_stored
from app.db.tables import companies, sync_log, syncs
from app.db.tables import jobs as jobs_table
from app.db.transaction_lists import ListWrite, load_lists, write_lists
from app.domain.models import SyncStatus, Transaction
from app.domain.sync_state import Sync, apply_status, with_transactions
from app.logging import bound

SyncKey = tuple[str, str]
"""Company id and sync id."""

MAX_REASON = 1000
# Columns that no caller sees: a change in them alone leaves `updated_at` and the change feed alone.
_INTERNAL = frozenset(
    {
        "updated_at",
        "started_received_at",
        "failed_received_at",
        "completed_received_at",
        "reported_started_at",
        "reported_ended_at",
        "codat_started_at",
        "verified_at",
        "events_verified_at",
        "fetch_attempts",
        "transactions_key",
        "fingerprint",
        "rules_version",
    }
)
_INTERNAL_UNLESS_FAILED = _INTERNAL | {"failure_stage"}


class LogEntry(NamedTuple):
    """An entry of a sync's timeline; `message_id` names the webhook event that it was, if any."""

    at: datetime
    kind: str
    reason: str
    message_id: str | None = None


@dataclass(slots=True)
class SyncWrite:
    """A sync to write.

    `before` is None for a new one. `transactions` is the whole new list, None where the list stays.
    `fetch` is for its fetch job: `enqueue` it, or `restart` it if it is unfinished or dead.
    `rewrite` writes the row and the list even where they are the same: what is derived is wrong.
    `origin` is what caused the job and the messages.
    """

    before: StoredSync | None
    after: Sync
    transactions: Sequence[Transaction] | None = None
    log: list[LogEntry] = field(default_factory=list)
    fetch: Literal["enqueue", "restart"] | None = None
    rewrite: bool = False
    origin: Origin = UNKNOWN_ORIGIN

    @property
    def is_moved(self) -> bool:
        """True when the time changes that orders it among other syncs."""
        before = self.before
        return before is not None and before.sync.occurred_at != self.after.occurred_at

    @property
    def is_recoded(self) -> bool:
        """True when its code changes: the cause of a transaction whose message says nothing."""
        before = self.before
        return before is not None and before.sync.status_code != self.after.status_code

    @property
    def needs_stored_list(self) -> bool:
        """True when the stored list is replaced, or affected by a change of the sync."""
        if self.before is None or self.before.sync.counts is None:
            return False
        return self.transactions is not None or self.is_recoded or self.is_moved


@dataclass(frozen=True, slots=True)
class CodatAnswer:
    """What Codat's API answered about one sync to a request made at `requested_at`.

    `transactions` is None when the list was not requested (the sync is still running) or refused.
    """

    status: SyncStatus
    requested_at: datetime
    transactions: tuple[Transaction, ...] | None = None
    expected: int | None = None
    steady: bool = True


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What an answer made of a sync; `has_newer_events`: events arrived during the request."""

    before: Sync
    after: Sync
    has_newer_events: bool


def lock_companies(
    connection: Connection, company_ids: Iterable[str], *, insert_missing: bool = True
) -> None:
    """Lock these companies' rows until the transaction ends.

    Rows that are missing are inserted, also one that an erasure deletes meanwhile. A caller that
    only works with stored data sets `insert_missing` to False: where the row is missing, nothing
    else is stored (`erasure` deletes it last), and no row may be added.
    Inserts come first: a transaction that waits for another's insert holds no locked row.
    """
    ids = sorted(set(company_ids))
    while ids:
        these = select(companies.c.company_id).where(
            is_any_of(connection, companies.c.company_id, ids)
        )
        if insert_missing:
            stored = set(connection.execute(these).scalars())
            missing = [{"company_id": company_id} for company_id in ids if company_id not in stored]
            if missing:
                connection.execute(insert(connection, companies).on_conflict_do_nothing(), missing)
        in_order = these.order_by(companies.c.company_id).with_for_update(key_share=True)
        locked = set(connection.execute(in_order).scalars())
        ids = [company_id for company_id in ids if insert_missing and company_id not in locked]


def load_syncs(connection: Connection, keys: Collection[SyncKey]) -> dict[SyncKey, StoredSync]:
    """These syncs, locked until the transaction ends; those that are not stored are left out."""
    found: dict[SyncKey, StoredSync] = {}
    if not keys:
        return found
    rows = connection.execute(
        select(syncs)
        .where(is_any_of(connection, syncs.c.sync_id, {sync_id for _, sync_id in keys}))
        .order_by(syncs.c.id)
        .with_for_update(key_share=True)
    ).mappings()
    for row in rows:
        key = (row["company_id"], row["sync_id"])
        if key in keys:
            found[key] = to_stored(row)
    return found


def load_sync(connection: Connection, sync_pk: int) -> StoredSync | None:
    """One sync by its key, locked until the transaction ends."""
    return load_syncs_by_pk(connection, [sync_pk]).get(sync_pk)


def load_syncs_by_pk(connection: Connection, pks: Collection[int]) -> dict[int, StoredSync]:
    """Syncs by their keys, locked until the transaction ends; missing ones are left out."""
    these = select(syncs).where(is_any_of(connection, syncs.c.id, pks))
    ordered = these.order_by(syncs.c.id).with_for_update(key_share=True)
    return {row["id"]: to_stored(row) for row in connection.execute(ordered).mappings()}


def sync_id_of(connection: Connection, sync_pk: int) -> str | None:
    """Codat's id of a sync; None when it was erased."""
    return connection.execute(select(syncs.c.sync_id).where(syncs.c.id == sync_pk)).scalar()


def write_syncs(connection: Connection, writes: Sequence[SyncWrite], *, now: datetime) -> list[int]:
    """Write these syncs and everything derived from them; returns their keys, in order."""
    if not writes:
        return []
    old_lists = _load_old_lists(connection, writes)
    rows_before, rows = _rows(connection, writes, now)
    pks = _write_rows(connection, writes, rows)
    payload = change_feed.sync_payload
    changes = [
        change_feed.sync_change(row, now)
        for before, row in zip(rows_before, rows, strict=True)
        if before is None or payload(before) != payload(row)
    ]
    _update_companies(connection, rows_before, rows)
    list_changes, resolved = write_lists(connection, _list_writes(writes, pks, old_lists), now)
    _write_jobs_and_log(connection, writes, pks, now)
    for write, pk in zip(writes, pks, strict=True):
        if write.before is None or write.before.sync != write.after:
            digest = write.before.announced_digest if write.before else None
            stored = StoredSync(pk, write.after, now, digest)
            with bound(**write.origin._asdict()):
                outgoing.sync_ended(connection, stored, "pending", now)
    outgoing.transactions_resolved(connection, resolved, now)
    change_feed.append(connection, changes + list_changes)
    return pks


def _load_old_lists(
    connection: Connection, writes: Sequence[SyncWrite]
) -> dict[int, list[Transaction]]:
    """The stored lists that are replaced or affected; one that came again has its first time."""
    stored = {write.before.pk: write for write in writes if write.before}
    needed = [pk for pk, write in stored.items() if write.needs_stored_list]
    old_lists = load_lists(connection, needed)
    for pk, write in stored.items():
        if write.before and write.transactions is not None and not write.rewrite:
            before, after = write.before.sync, write.after
            is_same = list(write.transactions) == old_lists.get(pk, [])
            if is_same and before.fetched_at and before.transactions_source == "codat":
                write.after = after._replace(fetched_at=before.fetched_at)
    return old_lists


def _rows(
    connection: Connection, writes: Sequence[SyncWrite], now: datetime
) -> tuple[list[dict[str, Any] | None], list[dict[str, Any]]]:
    """The rows before (None for a new sync) and after; `updated_at` moves only visibly."""
    classifier = classifier_of(connection)
    rows_before: list[dict[str, Any] | None] = []
    rows = []
    for write in writes:
        row = sync_row(write.after, updated_at=now, classifier=classifier)
        row_before = None
        if write.before is not None:
            updated_at = write.before.updated_at
            row_before = sync_row(write.before.sync, updated_at=updated_at, classifier=classifier)
            if not write.rewrite and all(row[name] == row_before[name] for name in CAUSE_COLUMNS):
                row |= write.before.cause  # it may be by newer rules than this process has
                row_before |= write.before.cause
            internal = _INTERNAL if row["state"] == "failed" else _INTERNAL_UNLESS_FAILED
            if all(row_before[name] == row[name] for name in row.keys() - internal):
                row["updated_at"] = updated_at
                row["fetch_attempts"] = row_before["fetch_attempts"] or row["fetch_attempts"]
        rows_before.append(row_before)
        rows.append(row)
    return rows_before, rows


def _write_rows(
    connection: Connection, writes: Sequence[SyncWrite], rows: Sequence[dict[str, Any]]
) -> list[int]:
    new = [row for write, row in zip(writes, rows, strict=True) if write.before is None]
    ids: dict[SyncKey, int] = {}
    if new:
        insert_many(connection, syncs, new)
        found = connection.execute(
            select(syncs.c.company_id, syncs.c.sync_id, syncs.c.id).where(
                is_any_of(connection, syncs.c.sync_id, [row["sync_id"] for row in new])
            )
        )
        ids = {(row.company_id, row.sync_id): row.id for row in found}
    changed = [
        {"id": write.before.pk} | row
        for write, row in zip(writes, rows, strict=True)
        if write.before is not None and (write.rewrite or write.before.sync != write.after)
    ]
    update_many(connection, syncs, changed)
    return [
        write.before.pk if write.before else ids[row["company_id"], row["sync_id"]]
        for write, row in zip(writes, rows, strict=True)
    ]


def _update_companies(
    connection: Connection,
    rows_before: Sequence[dict[str, Any] | None],
    rows: Sequence[dict[str, Any]],
) -> None:
    """Bring up to date which companies cannot sync."""
    affected, ended = set(), set()
    for before, row in zip(rows_before, rows, strict=True):
        if company_state.may_change(before, row):
            affected.add(row["company_id"])
        elif row["state"] != "started":
            ended.add(row["company_id"])
    if ended - affected:
        affected |= company_state.among(connection, ended - affected)
    company_state.recompute(connection, affected)


def _list_writes(
    writes: Sequence[SyncWrite], pks: Sequence[int], old_lists: Mapping[int, list[Transaction]]
) -> list[ListWrite]:
    """The transaction lists that are new, or are affected by what changes of their sync."""
    lists = []
    for pk, write in zip(pks, writes, strict=True):
        old = old_lists.get(pk, [])
        new = old if write.transactions is None else list(write.transactions)
        is_rewritten = write.rewrite and write.transactions is not None
        is_replaced = new != old or is_rewritten or (bool(old) and write.is_recoded)
        is_moved = bool(old) and write.is_moved
        if is_replaced or is_moved:
            lists.append(ListWrite(pk, write.after, old, new, is_replaced, is_moved))
    return lists


def _write_jobs_and_log(
    connection: Connection, writes: Sequence[SyncWrite], pks: Sequence[int], now: datetime
) -> None:
    enqueue, restart, log = [], [], []
    origins = {pk: write.origin for write, pk in zip(writes, pks, strict=True) if any(write.origin)}
    for write, pk in zip(writes, pks, strict=True):
        if write.fetch == "enqueue":
            enqueue.append((pk, write.after.company_id))
        elif write.fetch == "restart":
            restart.append(pk)
        log += [_log_row(pk, entry) for entry in write.log]
    jobs.enqueue(connection, "fetch", enqueue, now=now, origins=origins)
    if restart:
        jobs.restart(connection, "fetch", restart, now=now, origins=origins)
    insert_many(connection, sync_log, log)


def _log_row(pk: int, entry: LogEntry) -> dict[str, Any]:
    return {"sync_pk": pk, **entry._asdict(), "reason": entry.reason[:MAX_REASON]}


def add_log(connection: Connection, sync_pk: int, entry: LogEntry) -> None:
    """Add an entry to a sync's timeline."""
    connection.execute(sync_log.insert(), _log_row(sync_pk, entry))


def add_logs(connection: Connection, entries: Iterable[tuple[int, LogEntry]]) -> None:
    """Add an entry to the timeline of each of these syncs."""
    insert_many(connection, sync_log, [_log_row(pk, entry) for pk, entry in entries])


def record_answer(
    connection: Connection,
    claim: Claim,
    answer: CodatAnswer,
    *,
    now: datetime,
    settle: Callable[[RecordedAnswer], Sequence[LogEntry]],
) -> RecordedAnswer | None:
    """Write Codat's answer; returns None when another worker holds the job by now.

    `settle` completes or reschedules the job, in this transaction, and returns entries for the
    timeline. A fetch that reconciliation repeats has one only if it brought anything new.
    """
    lock_companies(connection, [claim.group_key], insert_missing=False)
    stored = load_sync(connection, claim.key)
    generation = jobs.current_generation(connection, claim)
    if stored is None or generation is None:
        return None
    has_newer_events = generation != claim.generation
    # The claim's holder made the latest request, even if another host's clock was ahead.
    requested_at = max(answer.requested_at, stored.sync.verified_at or answer.requested_at)
    after = apply_status(
        stored.sync, answer.status, requested_at=requested_at, has_newer_events=has_newer_events
    )
    if answer.transactions is not None:
        after = with_transactions(
            after,
            answer.transactions,
            source="codat",
            expected=answer.expected,
            steady=answer.steady,
            at=now,
        )
    after = after._replace(fetch_attempts=claim.attempts)
    recorded = RecordedAnswer(stored.sync, after, has_newer_events)
    repeated = _newest_entry_if_repeated(connection, claim)
    log = [entry for entry in settle(recorded) if (entry.kind, entry.reason) != repeated]
    write_syncs(connection, [SyncWrite(stored, after, answer.transactions, log)], now=now)
    return recorded


def _newest_entry_if_repeated(connection: Connection, claim: Claim) -> tuple[str, str] | None:
    """Kind and reason of the newest timeline entry, if reconciliation repeats this fetch."""
    is_repeated = and_(
        jobs_table.c.id == claim.job_id,
        jobs_table.c.reconciled_times > 1,
        jobs_table.c.run_at == jobs_table.c.reconciled_at,  # not enqueued otherwise since
    )
    newest = (
        select(sync_log.c.kind, sync_log.c.reason)
        .join(jobs_table, is_repeated)
        .where(sync_log.c.sync_pk == claim.key)
        .order_by(sync_log.c.at.desc(), sync_log.c.id.desc())
        .limit(1)
    )
    row = connection.execute(newest).first()
    return (row.kind, row.reason) if row else None


def give_up(
    connection: Connection,
    claim: Claim,
    reason: str,
    *,
    now: datetime,
    refused_at: datetime | None = None,
) -> bool:
    """Stop fetching a sync until it is revived; False when the claim was lost or enqueued again.

    A failed sync is then announced with what is known about it.
    """
    lock_companies(connection, [claim.group_key], insert_missing=False)
    stored = load_sync(connection, claim.key)
    if stored is None or not jobs.bury(connection, claim, reason, refused_at=refused_at):
        return False
    entry = LogEntry(now, "fetch", f"Stopped retrying: {reason}"[:MAX_REASON])
    if (entry.kind, entry.reason) != _newest_entry_if_repeated(connection, claim):
        add_log(connection, stored.pk, entry)
    outgoing.sync_ended(connection, stored, "dead", now)
    return True


def refresh(connection: Connection, sync_pk: int, *, now: datetime, actor: str | None) -> bool:
    """Enqueue a fetch of a stored sync; False when it is erased.

    `actor` is the name of the API key of the one who asks; None for a key without a name.
    """
    stored = load_sync(connection, sync_pk)  # locked before the job, as in every writer
    if stored is None:
        return False
    jobs.enqueue(connection, "fetch", [(sync_pk, stored.sync.company_id)], now=now)
    reason = f"Requested by {actor}" if actor else "From the page or the API"
    add_log(connection, sync_pk, LogEntry(now, "refresh", reason))
    return True
