"""Requests to retry failed transactions: of one sync, or of all syncs that a filter selects.

Each is one `retry.requested` message per sync, with the failed rows that no later sync has
completed. The same rows requested again within a minute, or before the request is delivered, are
one request. The syncs are locked, so that two callers do not send it twice.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, or_, select

from app.db import outgoing
from app.db.many_rows import is_any_of
from app.db.outgoing import IS_ITS_JOB, Draft
from app.db.queries.syncs import in_range
from app.db.queries.transactions import TransactionRecord, open_rows
from app.db.sync_rows import StoredSync
from app.db.sync_writer import LogEntry, add_logs, load_syncs_by_pk
from app.db.tables import failed_transactions, outgoing_messages
from app.db.tables import jobs as job_table
from app.domain.outgoing import DeliveryState, MessageKind
from app.errors import Conflict, NotFound

SAME_REQUEST = timedelta(seconds=60)
SYNCS_PER_STEP = 100
_messages = outgoing_messages.c
_KIND: MessageKind = "retry.requested"
DELIVERY_STATES: Mapping[str, DeliveryState] = {
    "pending": "waiting",
    "done": "delivered",
    "dead": "given_up",
}


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """A request to retry failed transactions; `already_requested`: it had been sent before.

    `bulk_id` is of the request for many syncs that it is part of.
    """

    message_id: str
    transactions: int
    already_requested: bool
    bulk_id: str | None = None


@dataclass(frozen=True, slots=True)
class LastRetry:
    """The latest request to retry a sync's failed transactions, and its delivery.

    `attempts` includes one that is running; then, and once the delivery has ended,
    `next_attempt_at` is None.
    """

    message_id: str
    recipient: str
    requested_at: datetime
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    last_error: str | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class RetryFilter:
    """Which open transactions to retry; an empty one selects all.

    `since` (inclusive) and `until` (exclusive) are compared with the time of the latest failure.
    """

    cause: str | None = None
    company_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class RetryPreview(NamedTuple):
    """What a filter selects: open transactions, and syncs and companies that have them."""

    syncs: int
    items: int
    companies: int


@dataclass(frozen=True, slots=True)
class BulkRetry:
    """How far the messages of one request for many syncs have been delivered."""

    requested_at: datetime
    syncs: int
    waiting: int
    delivered: int
    given_up: int
    next_attempt_at: datetime | None
    last_error: str | None


def request_retry(
    connection: Connection, sync_pk: int, at: datetime, *, to: str, actor: str | None = None
) -> RetryRequest:
    """Request a retry of one sync. Raises Conflict when it has no open failed rows."""
    requests = _request(connection, [sync_pk], RetryFilter(), at, to, actor)
    if not requests:
        raise Conflict("All items of this sync have been recorded since.")
    return requests[0]


def request_step(
    connection: Connection,
    criteria: RetryFilter,
    after_pk: int,
    at: datetime,
    *,
    to: str,
    actor: str | None,
    bulk_id: str,
) -> tuple[list[RetryRequest], int | None]:
    """Request a retry of the next few syncs after one; and where to continue, None at the end."""
    found = _open(criteria, failed_transactions.c.sync_pk).distinct()
    found = found.where(failed_transactions.c.sync_pk > after_pk)
    ordered = found.order_by(failed_transactions.c.sync_pk).limit(SYNCS_PER_STEP)
    pks = connection.execute(ordered).scalars().all()
    requests = _request(connection, pks, criteria, at, to, actor, bulk_id) if pks else []
    return requests, pks[-1] if len(pks) == SYNCS_PER_STEP else None


def preview(connection: Connection, criteria: RetryFilter) -> RetryPreview:
    """Count what a filter selects."""
    failed = failed_transactions.c
    numbers = (failed.sync_pk.distinct(), failed.transaction_key, failed.company_id.distinct())
    counts = connection.execute(_open(criteria, *map(func.count, numbers)))
    return RetryPreview(*counts.one())


def _open(criteria: RetryFilter, *columns: ColumnElement[Any]) -> Select[Any]:
    failed = failed_transactions.c
    conditions = [
        failed.resolved_by.is_(None),
        *in_range(failed.last_failed_at, criteria.since, criteria.until),
    ]
    if criteria.cause is not None:
        conditions.append(failed.cause_key == criteria.cause)
    if criteria.company_id is not None:
        conditions.append(failed.company_id == criteria.company_id)
    return select(*columns).where(*conditions)


def _request(
    connection: Connection,
    pks: Collection[int],
    criteria: RetryFilter,
    at: datetime,
    to: str,
    actor: str | None,
    bulk_id: str | None = None,
) -> list[RetryRequest]:
    """Send what has not been requested yet, and add entries to the timelines."""
    stored = load_syncs_by_pk(connection, pks)
    rows: defaultdict[int, list[TransactionRecord]] = defaultdict(list)
    for sync_pk, row in open_rows(connection, list(stored), cause=criteria.cause):
        rows[sync_pk].append(row)
    digests = {pk: outgoing.digest_of([], failed) for pk, failed in rows.items()}
    sent = _sent(connection, digests, at)
    new = [pk for pk in rows if pk not in sent]
    drafts = [_draft(connection, stored[pk], rows[pk], digests[pk], at) for pk in new]
    ids = outgoing.send(connection, drafts, at, to=to, bulk_id=bulk_id)
    requests = {
        pk: RetryRequest(message_id, len(rows[pk]), False, bulk_id)
        for pk, message_id in zip(new, ids, strict=True)
    }
    for pk, (message_id, bulk) in sent.items():
        requests[pk] = RetryRequest(message_id, len(rows[pk]), True, bulk)
    by = f", requested by {actor}" if actor else ""
    entries = [(pk, _entry(at, request, by)) for pk, request in requests.items()]
    add_logs(connection, entries)
    return list(requests.values())


def _draft(
    connection: Connection,
    stored: StoredSync,
    failed: Sequence[TransactionRecord],
    digest: str,
    at: datetime,
) -> Draft:
    data = outgoing.sync_data(connection, stored.sync, at)
    data["failed_transactions"] = outgoing.list_failed(connection, failed)
    return Draft(_KIND, data, stored.pk, digest)


def _entry(at: datetime, request: RetryRequest, by: str) -> LogEntry:
    noun = "item" if request.transactions == 1 else "items"
    text = f"{request.transactions} failed {noun}"
    if request.already_requested:
        text = "Retry already requested; not sent again"
    return LogEntry(at, "retry", f"{text}{by} ({request.message_id})")


def _sent(
    connection: Connection, digests: Mapping[int, str], at: datetime
) -> dict[int, tuple[str, str | None]]:
    """The ids of the same requests that were sent a moment ago or wait, and of their bulk."""
    same = (
        select(_messages.sync_pk, _messages.digest, _messages.message_id, _messages.bulk_id)
        .join(job_table, IS_ITS_JOB)
        .where(
            is_any_of(connection, _messages.sync_pk, digests),
            _messages.kind == _KIND,
            job_table.c.state != "dead",
            or_(_messages.created_at > at - SAME_REQUEST, _messages.ended_at.is_(None)),
        )
        .order_by(_messages.id.desc())
    )
    return {
        row.sync_pk: (row.message_id, row.bulk_id)
        for row in connection.execute(same)
        if row.digest == digests[row.sync_pk]
    }


def last_retry(connection: Connection, sync_pk: int) -> LastRetry | None:
    """The latest request to retry a sync's failed transactions; None if there is none."""
    newest = (
        select(outgoing_messages, job_table)
        .join(job_table, IS_ITS_JOB)
        .where(_messages.sync_pk == sync_pk, _messages.kind == _KIND)
        .order_by(_messages.id.desc())
        .limit(1)
    )
    row = connection.execute(newest).first()
    if row is None:
        return None
    is_waiting = row.state == "pending" and row.lease_token is None
    return LastRetry(
        row.message_id,
        row.recipient,
        row.created_at,
        DELIVERY_STATES[row.state],
        row.attempts,
        row.run_at if is_waiting else None,
        row.last_error,
        row.ended_at,
    )


def bulk_retry(connection: Connection, bulk_id: str) -> BulkRetry:
    """How far a request for many syncs has come. Raises NotFound."""
    job = job_table.c
    in_state = (func.sum(case((job.state == state, 1), else_=0)) for state in DELIVERY_STATES)
    counted = (
        select(
            func.min(_messages.created_at),
            func.count(),
            *in_state,
            func.min(case((job.state == "pending", job.run_at))),
            func.max(case((job.state != "done", job.last_error))),
        )
        .join_from(outgoing_messages, job_table, IS_ITS_JOB)
        .where(_messages.bulk_id == bulk_id)
    )
    row = connection.execute(counted).one()
    if not row[1]:
        raise NotFound("Retry not found")
    return BulkRetry(*row)
