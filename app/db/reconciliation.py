"""Compares what Codat lists with what is stored, and enqueues a fetch for each difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import Connection, and_, or_, select

from app.db.many_rows import is_any_of
from app.db.sync_rows import to_sync
from app.db.sync_writer import LogEntry, SyncWrite, load_syncs, lock_companies, write_syncs
from app.db.tables import jobs, sync_log, syncs
from app.domain.models import SyncStatus
from app.domain.status_codes import phase_of
from app.domain.sync_state import Sync, apply_status

ASK_AGAIN_AFTER = timedelta(days=1)  # where another fetch may not change anything
LOG_KIND = "reconcile"

DifferenceKind = Literal["never_announced", "disagrees", "given_up", "incomplete", "stuck"]
_Found = tuple[DifferenceKind, str] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A sync on which Codat's list and ours differ; `status` is Codat's line."""

    sync_id: str
    kind: DifferenceKind
    reason: str
    status: SyncStatus


class _Known(NamedTuple):
    """A stored sync with the state of its fetch job; `refused_at` is of Codat's final refusal."""

    pk: int
    sync: Sync
    job: str | None
    refused_at: datetime | None


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
        if difference is None and ours and _has_other_texts(connection, ours, status, now):
            difference = "disagrees", f"Codat lists it as “{status.error_message}”"
        if difference:
            found.append(Difference(sync_id, *difference, status))
    return found


def _load(connection: Connection, company_id: str, sync_ids: Sequence[str]) -> dict[str, _Known]:
    is_fetch = and_(jobs.c.kind == "fetch", jobs.c.key == syncs.c.id)
    rows = connection.execute(
        select(syncs, jobs.c.state.label("job"), jobs.c.refused_at)
        .outerjoin(jobs, is_fetch)
        .where(syncs.c.company_id == company_id, is_any_of(connection, syncs.c.sync_id, sync_ids))
    ).mappings()
    return {
        row["sync_id"]: _Known(row["id"], to_sync(row), row["job"], row["refused_at"])
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
        is_refused = _was_refused_lately(known, status, now)
        return None if is_refused else ("given_up", f"{listed}, and its fetch was abandoned")
    if known.sync.verified_at is None or _facts(known.sync) != _facts(status):
        stored = known.sync.status_code or known.sync.state
        return "disagrees", f"{listed}; stored here: {stored}"
    if phase and not known.sync.transactions_complete:  # of an unknown code no list is read
        return "incomplete", f"{listed}, and its transaction list was never read completely"
    return None


def _was_refused_lately(known: _Known, status: SyncStatus, now: datetime) -> bool:
    """Codat's refusal was final not long ago, and its line has not changed since."""
    if known.refused_at is None or known.refused_at <= now - ASK_AGAIN_AFTER:
        return False
    return known.sync.verified_at is None or _facts(known.sync) == _facts(status)


def _compare_running(sync: Sync, code: int | None, stuck_before: datetime) -> _Found:
    if sync.state != "started":
        return "disagrees", f"Codat lists it with {code}; stored here: {sync.state}"
    since = sync.started_at or sync.first_seen_at
    last_verified = sync.verified_at or since
    if since and last_verified and since < stuck_before and last_verified < stuck_before:
        return "stuck", f"in progress since {since:%Y-%m-%d %H:%M}, Codat lists {code}"
    return None


def _facts(source: Sync | SyncStatus) -> tuple[object, ...]:
    """What must agree; texts are compared separately (`_has_other_texts`)."""
    return (source.status_code, source.data_pushed, source.sync_utc)


def _has_other_texts(
    connection: Connection, known: _Known, status: SyncStatus, now: datetime
) -> bool:
    """Whether Codat's list has other texts than its status had, and no recent fetch was due to it.

    A retry in the Portal changes the texts, but list and status may also differ permanently.
    """
    texts = (known.sync.error_message, known.sync.exception_message)
    if known.job != "done" or texts == (status.error_message, status.exception_message):
        return False
    lately = select(sync_log.c.id).where(
        sync_log.c.sync_pk == known.pk,
        sync_log.c.kind == LOG_KIND,
        sync_log.c.at > now - ASK_AGAIN_AFTER,
    )
    return connection.execute(lately.limit(1)).first() is None


def correct(
    connection: Connection, company_id: str, found: Sequence[Difference], *, now: datetime
) -> None:
    """Store the syncs that only Codat lists, enqueue a fetch for each difference, and log why.

    Give it a chunk at a time (`engine.chunked`).
    """
    by_key = {(company_id, difference.sync_id): difference for difference in found}
    is_news = any(difference.kind == "never_announced" for difference in found)
    lock_companies(connection, [company_id], insert_missing=is_news)
    stored = load_syncs(connection, by_key.keys())
    writes = []
    for key, difference in sorted(by_key.items()):
        before = stored.get(key)
        if before is None and difference.kind != "never_announced":
            continue  # it was erased meanwhile
        if before:
            after = before.sync
        else:  # what Codat's line says; the fetch completes it
            blank = Sync(*key, first_seen_at=now)
            after = apply_status(blank, difference.status, requested_at=now, has_newer_events=False)
        log = [LogEntry(now, LOG_KIND, difference.reason)]
        writes.append(SyncWrite(before, after, log=log, fetch="enqueue"))
    write_syncs(connection, writes, now=now)


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
    keys = set(connection.execute(candidates.limit(limit)).all())
    lock_companies(connection, [company_id for company_id, _ in keys], insert_missing=False)
    entry = LogEntry(now, "stuck", "In progress for a long time; checked with Codat")
    writes = [
        SyncWrite(stored, stored.sync, log=[entry], fetch="enqueue")
        for _, stored in sorted(load_syncs(connection, keys).items())
        if stored.sync.state == "started"
    ]
    write_syncs(connection, writes, now=now)
    return len(writes)
