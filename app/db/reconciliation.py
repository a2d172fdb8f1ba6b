"""Compares what Codat lists with what is stored, and enqueues a fetch for each difference.

List and status of one sync may differ permanently, and a refusal may be final. So a fetch for the
same line of Codat's list is repeated after growing pauses, and the timeline says so once. A fetch
that has used up its attempts is left alone: an event, a refresh or a redrive starts it again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from app.db.many_rows import is_any_of
from app.db.sync_rows import to_sync
from app.db.sync_writer import LogEntry, SyncWrite, load_syncs, lock_companies, write_syncs
from app.db.tables import jobs, sync_log, syncs
from app.domain.models import SyncStatus
from app.domain.status_codes import phase_of
from app.domain.sync_state import Sync, apply_status

FIRST_PAUSE = timedelta(hours=1)
FIRST_PAUSE_AFTER_REFUSAL = timedelta(days=1)
LONGEST_PAUSE = timedelta(days=7)
LOG_KIND = "reconcile"

DifferenceKind = Literal["never_announced", "disagrees", "given_up", "incomplete", "stuck"]
_Found = tuple[DifferenceKind, str] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A sync on which Codat's list and ours differ; `status` is Codat's line.

    `is_due` is False where a fetch for the same line was enqueued lately or attempts are used up.
    `times` counts the fetches for this line, this one included.
    """

    sync_id: str
    kind: DifferenceKind
    reason: str
    status: SyncStatus
    is_due: bool = True
    times: int = 1


class _Known(NamedTuple):
    """A stored sync with the state of its fetch job; `refused_at` is of Codat's final refusal."""

    sync: Sync
    job: str | None
    refused_at: datetime | None
    line: str | None
    times: int
    asked_at: datetime | None


_MARKS = ("reconciled_line", "reconciled_times", "reconciled_at")
_JOB = ("state", "refused_at", *_MARKS)
_MARK_JOB = (
    update(jobs)
    .where(jobs.c.kind == "fetch", jobs.c.key == bindparam("pk"))
    .values({name: bindparam(name) for name in _MARKS})
)


def differences(
    connection: Connection,
    company_id: str,
    statuses: Sequence[SyncStatus],
    *,
    now: datetime,
    stuck_after: timedelta,
) -> list[Difference]:
    """What differs between Codat's list of a company's syncs and what is stored. Writes nothing."""
    listed = {status.sync_id: status for status in statuses if status.sync_id}
    known = _load(connection, company_id, list(listed))
    found = []
    for sync_id, status in listed.items():
        ours = known.get(sync_id)
        difference = _compare(ours, status, now, stuck_after)
        if difference and ours:
            times = ours.times + 1 if ours.line == _digest(status) else 1
            is_due = _is_due(ours, status, now)
            found.append(Difference(sync_id, *difference, status, is_due, times))
        elif difference:
            found.append(Difference(sync_id, *difference, status))
    return found


def _load(connection: Connection, company_id: str, sync_ids: Sequence[str]) -> dict[str, _Known]:
    is_fetch = and_(jobs.c.kind == "fetch", jobs.c.key == syncs.c.id)
    rows = connection.execute(
        select(syncs, *(jobs.c[name].label(f"job_{name}") for name in _JOB))
        .outerjoin(jobs, is_fetch)
        .where(syncs.c.company_id == company_id, is_any_of(connection, syncs.c.sync_id, sync_ids))
    ).mappings()
    return {
        row["sync_id"]: _Known(
            to_sync(row),
            row["job_state"],
            row["job_refused_at"],
            row["job_reconciled_line"],
            row["job_reconciled_times"] or 0,
            row["job_reconciled_at"],
        )
        for row in rows
    }


def _compare(
    known: _Known | None, status: SyncStatus, now: datetime, stuck_after: timedelta
) -> _Found:
    """None when both agree, or a fetch is already queued."""
    listed = f"Codat lists it with {status.status_code}"
    phase = phase_of(status.status_code)
    if known is None:
        return "never_announced", f"{listed}, and no webhook reported it"
    if known.job == "pending":
        return None
    if phase == "running":
        return _compare_running(known.sync, status.status_code, now - stuck_after)
    if known.job == "dead":
        return "given_up", f"{listed}, and its fetch was abandoned"
    if known.sync.verified_at is None or _contradicts(status, known.sync):
        stored = known.sync.status_code or known.sync.state
        return "disagrees", f"{listed}; stored here: {stored}"
    if phase and not known.sync.transactions_complete:  # of an unknown code no list is read
        return "incomplete", f"{listed}, and its transaction list was never read completely"
    # a retry in the Portal changes the texts
    texts = (known.sync.error_message, known.sync.exception_message)
    if known.job == "done" and texts != (status.error_message, status.exception_message):
        return "disagrees", f"Codat lists it as “{status.error_message}”"
    return None


def _is_due(known: _Known, status: SyncStatus, now: datetime) -> bool:
    """Whether a fetch may bring anything new."""
    is_refused = known.job == "dead" and known.refused_at is not None
    if known.job == "dead" and not is_refused:
        return False
    if known.asked_at and known.line == _digest(status):
        first = FIRST_PAUSE_AFTER_REFUSAL if is_refused else FIRST_PAUSE
        pause: timedelta = min(first * 2 ** min(known.times - 1, 10), LONGEST_PAUSE)
        return now >= known.asked_at + pause
    is_news = known.line is not None or (
        known.sync.verified_at is not None and _contradicts(status, known.sync)
    )
    refused_at = known.refused_at if is_refused else None
    return is_news or refused_at is None or now >= refused_at + FIRST_PAUSE_AFTER_REFUSAL


def _compare_running(sync: Sync, code: int | None, stuck_before: datetime) -> _Found:
    if sync.state != "started":
        return "disagrees", f"Codat lists it with {code}; stored here: {sync.state}"
    since = sync.started_at or sync.first_seen_at
    last_verified = sync.verified_at or since
    if since and last_verified and since < stuck_before and last_verified < stuck_before:
        return "stuck", f"in progress since {since:%Y-%m-%d %H:%M}, Codat lists {code}"
    return None


def _contradicts(status: SyncStatus, sync: Sync) -> bool:
    """Whether Codat's line says otherwise than its status did; an absent member says nothing."""
    facts = ("status_code", "data_pushed", "sync_utc")
    return any(getattr(status, name) not in (None, getattr(sync, name)) for name in facts)


def _digest(status: SyncStatus) -> str:
    return hashlib.sha256(repr(status).encode()).hexdigest()[:16]


def correct(
    connection: Connection, company_id: str, found: Sequence[Difference], *, now: datetime
) -> None:
    """Store the syncs that only Codat lists, enqueue a fetch for each difference, and log why.

    Give it those that are due, a chunk at a time (`engine.chunked`).
    """
    by_key = {(company_id, difference.sync_id): difference for difference in found}
    is_news = any(difference.kind == "never_announced" for difference in found)
    lock_companies(connection, [company_id], insert_missing=is_news)
    stored = load_syncs(connection, by_key.keys())
    writes, marks = [], []
    for key, difference in sorted(by_key.items()):
        before = stored.get(key)
        if before is None and difference.kind != "never_announced":
            continue  # it was erased meanwhile
        if before:
            after = before.sync
        else:  # what Codat's line says, if anything; the fetch completes it
            after = Sync(*key, first_seen_at=now)
            line = difference.status
            if line.status_code is not None:
                after = apply_status(after, line, requested_at=now, has_newer_events=False)
        log = [LogEntry(now, LOG_KIND, difference.reason)] if difference.times == 1 else []
        writes.append(SyncWrite(before, after, log=log, fetch="enqueue"))
        marks.append((_digest(difference.status), difference.times, now))
    pks = write_syncs(connection, writes, now=now)
    _mark_jobs(connection, dict(zip(pks, marks, strict=True)))


def _mark_jobs(connection: Connection, marks: Mapping[int, tuple[str, int, datetime]]) -> None:
    """Remember why, how often and when these syncs' fetches were enqueued here."""
    if marks:
        rows = [dict(zip(_MARKS, mark, strict=True)) | {"pk": pk} for pk, mark in marks.items()]
        connection.execute(_MARK_JOB, rows)


def enqueue_stuck(
    connection: Connection, *, before: datetime, now: datetime, limit: int = 200
) -> int:
    """Enqueue a fetch for syncs in progress since before a time; returns how many.

    Left out are those whose fetch waits or was abandoned, and those that were verified since.
    """
    unasked = or_(syncs.c.verified_at.is_(None), syncs.c.verified_at < before)
    has_job = and_(jobs.c.kind == "fetch", jobs.c.key == syncs.c.id, jobs.c.state != "done")
    candidates = (
        select(syncs.c.company_id, syncs.c.sync_id)
        .outerjoin(jobs, has_job)
        # a sync in progress has one of these outcomes, and they have an index
        .where(syncs.c.outcome.in_(("in_progress", "unknown")), syncs.c.state == "started")
        .where(syncs.c.updated_at < before, unasked, jobs.c.id.is_(None))
        .order_by(syncs.c.updated_at)
    )
    keys = {(row.company_id, row.sync_id) for row in connection.execute(candidates.limit(limit))}
    lock_companies(connection, [company_id for company_id, _ in keys], insert_missing=False)
    in_order = [stored for _, stored in sorted(load_syncs(connection, keys).items())]
    stuck = [stored for stored in in_order if stored.sync.state == "started"]
    logged = _logged_as_stuck(connection, [stored.pk for stored in stuck])
    entry = LogEntry(now, "stuck", "In progress for a long time; checked with Codat")
    writes = [
        SyncWrite(stored, stored.sync, log=[] if stored.pk in logged else [entry], fetch="enqueue")
        for stored in stuck
    ]
    pks = write_syncs(connection, writes, now=now)
    _mark_jobs(connection, {pk: ("stuck", 1 + (pk in logged), now) for pk in pks})
    return len(writes)


def _logged_as_stuck(connection: Connection, pks: Sequence[int]) -> set[int]:
    """Those of these syncs whose timeline says so, and that have not changed since."""
    logged = (
        select(sync_log.c.sync_pk)
        .join(syncs, syncs.c.id == sync_log.c.sync_pk)
        .where(is_any_of(connection, sync_log.c.sync_pk, pks))
        .where(sync_log.c.kind == "stuck", sync_log.c.at >= syncs.c.updated_at)
    )
    return set(connection.execute(logged).scalars())
