"""Outgoing messages to other systems.

A message is written in the transaction of the change that it reports, by a process that need not
know the recipients. A worker that has recipients then makes one row per recipient of it, each with
its own job, so a recipient that is down does not delay the others. The end of a sync is announced
once Codat's API has answered, never because of a webhook alone, and again only when its outcome or
its failed transactions have changed.
"""

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, get_args

from sqlalchemy import (
    Connection,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from app.db import change_feed, jobs
from app.db.engine import classifier_of
from app.db.failed_transactions import ResolvedTransaction
from app.db.jobs import Claim, Origin
from app.db.many_rows import is_any_of
from app.db.queries import transactions as queries
from app.db.queries.transactions import TransactionFilter, TransactionRecord
from app.db.sync_rows import StoredSync, sync_row
from app.db.tables import jobs as job_table
from app.db.tables import outgoing_messages as messages
from app.db.tables import syncs
from app.domain.causes.classifier import describe_cause
from app.domain.outgoing import MessageKind, message_body, subscribers, to_json
from app.domain.sync_state import JobState, Sync, errors_state

MAX_FAILED = 1000  # failed transactions in one `sync.failed`; the API has all of them
RETRY_FAILURES = 2  # attempts of a retry request that fail before an alert opens
MAX_ATTEMPTS_LOGGED = 20
MAX_RESULT = 500  # characters
EVERYONE = "*"
"""The recipient of a message that has not been addressed yet."""
IS_UNADDRESSED = messages.c.recipient == literal_column("'*'")  # as in the partial index
_FAILED = TransactionFilter(failed=True)
_IS_MESSAGE = job_table.c.kind == "message"
IS_ITS_JOB = and_(_IS_MESSAGE, job_table.c.key == messages.c.id)
_ROW = ("transaction_id", "integration_type", "status", "message", "correlation_id")
_CAUSE = ("key", "title", "owner", "next_step", "customer_message", "retry_advice")


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to one recipient. `message_id` is the same for all recipients."""

    id: int
    message_id: str
    recipient: str
    kind: MessageKind
    body: str
    sync_pk: int | None


class Draft(NamedTuple):
    """A message that is about to be sent; `digest` is of its content, to spot a repetition."""

    kind: MessageKind
    data: Mapping[str, Any]
    sync_pk: int | None = None
    digest: str | None = None


def send(
    connection: Connection,
    drafts: Sequence[Draft],
    at: datetime,
    *,
    to: str = EVERYONE,
    bulk_id: str | None = None,
) -> list[str]:
    """Write these messages to a recipient, or to all that a worker will have; returns their ids.

    `bulk_id` is of the request for many retries that they are part of.
    """
    ids = [f"msg_{uuid.uuid4().hex}" for _ in drafts]
    origin = jobs.ambient_origin()
    rows = [
        {
            "message_id": message_id,
            "recipient": to,
            "kind": draft.kind,
            "company_id": draft.data.get("company_id"),
            "sync_pk": draft.sync_pk,
            "digest": draft.digest,
            "body": message_body(draft.kind, at, draft.data),
            "created_at": at,
            "event_message_id": origin.message_id,
            "request_id": origin.request_id,
            "bulk_id": bulk_id,
        }
        for message_id, draft in zip(ids, drafts, strict=True)
    ]
    if rows:
        connection.execute(messages.insert(), rows)
    if to != EVERYONE:
        _enqueue(connection, ids, at)
    return ids


def _enqueue(connection: Connection, message_ids: Collection[str], now: datetime) -> None:
    """Enqueue the deliveries of new messages to their recipients."""
    new = is_any_of(connection, messages.c.message_id, message_ids)
    columns = (messages.c[name] for name in ("id", "recipient", "event_message_id", "request_id"))
    found = connection.execute(select(*columns).where(new, ~IS_UNADDRESSED)).all()
    entries = [(row.id, row.recipient) for row in found]
    origins = {row.id: Origin(row.event_message_id, row.request_id) for row in found}
    jobs.enqueue(connection, "message", entries, now=now, origins=origins)


def has_unaddressed(connection: Connection, recipients: Collection[str]) -> bool:
    """True when `address` would find a message. A read, which spares idle workers the write."""
    return connection.execute(_unaddressed(recipients).limit(1)).first() is not None


def _unaddressed(recipients: Collection[str]) -> Select[Any]:
    """The messages that have no recipients yet and are for some of these, oldest first."""
    found = select(messages.c.id, messages.c.sync_pk).where(IS_UNADDRESSED)
    kinds = [kind for kind in get_args(MessageKind) if subscribers(kind, recipients)]
    return found.where(messages.c.kind.in_(kinds)).order_by(messages.c.id)


def address(
    connection: Connection, recipients: Collection[str], now: datetime, *, limit: int = 100
) -> int:
    """Make a row and a job per recipient of up to `limit` messages; returns how many messages.

    Messages of kinds that none of these recipients gets are left to workers with other ones. Syncs
    are locked before messages, as in every writer.
    """
    found = connection.execute(_unaddressed(recipients).limit(limit)).all()
    sync_pks = {row.sync_pk for row in found} - {None}
    of_these = select(syncs.c.id).where(is_any_of(connection, syncs.c.id, sync_pks))
    connection.execute(of_these.order_by(syncs.c.id).with_for_update(read=True, key_share=True))
    mine = select(messages).where(is_any_of(connection, messages.c.id, [row.id for row in found]))
    locked = mine.where(IS_UNADDRESSED).order_by(messages.c.id).with_for_update(skip_locked=True)
    templates = connection.execute(locked).mappings().all()
    rows = [
        {name: value for name, value in template.items() if name != "id"} | {"recipient": recipient}
        for template in templates
        for recipient in subscribers(template["kind"], recipients)
    ]
    if rows:
        connection.execute(messages.insert(), rows)
        _enqueue(connection, {row["message_id"] for row in rows}, now)
    addressed = is_any_of(connection, messages.c.id, [template["id"] for template in templates])
    connection.execute(delete(messages).where(addressed))
    return len(templates)


def sync_ended(connection: Connection, stored: StoredSync, job: JobState, at: datetime) -> None:
    """Announce how a sync ended, when it is known and was not announced yet.

    `job` is the state of its fetch job. Nothing is announced while a fetch is still due; a
    failure is announced when its fetch is abandoned.
    """
    sync = stored.sync
    errors = errors_state(sync, job)
    has_failed = sync.state == "failed" and errors in ("fetched", "incomplete", "given_up")
    has_completed = sync.state == "completed" and errors == "not_needed"
    if not (has_failed or has_completed):
        return
    kind: MessageKind = "sync.failed" if has_failed else "sync.completed"
    failed: Sequence[TransactionRecord] = []
    if has_failed:
        page = queries.list_transactions(connection, stored.pk, _FAILED, limit=MAX_FAILED)
        failed = page.items
    digest = digest_of([kind, errors, sync.outcome, sync.status_code], failed)
    if stored.announced_digest == digest:
        return
    data = sync_data(connection, sync, at) | {"errors": errors}
    if has_failed:
        data["failed_transactions"] = list_failed(connection, failed) if sync.counts else None
    send(connection, [Draft(kind, data, stored.pk, digest)], at)
    connection.execute(update(syncs).where(syncs.c.id == stored.pk).values(announced_digest=digest))


def sync_data(connection: Connection, sync: Sync, at: datetime) -> dict[str, Any]:
    """A sync as messages have it."""
    row = sync_row(sync, updated_at=at, classifier=classifier_of(connection))
    payload = change_feed.sync_payload(row)
    cause = _cause(connection, payload.pop("cause_key"))
    return {"company_id": sync.company_id, "sync_id": sync.sync_id, **payload, "cause": cause}


def _cause(connection: Connection, key: str | None) -> dict[str, Any] | None:
    """A cause as callers see it."""
    if key is None:
        return None
    fields = describe_cause(key, classifier_of(connection).causes)
    return {name: fields[name] for name in _CAUSE}


def list_failed(
    connection: Connection, records: Iterable[TransactionRecord]
) -> list[dict[str, Any]]:
    """Failed transactions as messages have them."""
    return [
        _fields(record, *_ROW)
        | {"cause": _cause(connection, record.cause_key), "resolved_by": record.resolved_by}
        for record in records
    ]


def _fields(record: TransactionRecord, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def digest_of(facts: Sequence[Any], failed: Iterable[TransactionRecord]) -> str:
    """A digest of a message's content."""
    content = [*facts, *(_fields(record, *_ROW[:4]) for record in failed)]
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def transactions_resolved(
    connection: Connection, resolved: Sequence[ResolvedTransaction], at: datetime
) -> None:
    """Announce each transaction that failed earlier and has been completed by a later sync."""
    if not resolved:
        return
    by_company: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for transaction in resolved:
        resolvers = by_company[transaction.company_id]
        resolvers[transaction.transaction_id] = transaction.resolved_by
    drafts = [
        draft
        for company_id, resolvers in sorted(by_company.items())
        for draft in _resolved_drafts(connection, company_id, resolvers)
    ]
    send(connection, drafts, at)


def _resolved_drafts(
    connection: Connection, company_id: str, resolvers: Mapping[str, str]
) -> Iterator[Draft]:
    """One message per transaction; `resolvers` are the syncs that completed them, by its id."""
    found = connection.execute(
        select(syncs.c.sync_id, syncs.c.id).where(
            syncs.c.company_id == company_id,
            is_any_of(connection, syncs.c.sync_id, set(resolvers.values())),
        )
    )
    pks = {row.sync_id: row.id for row in found}
    failed_in: defaultdict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for record in queries.failed_rows(connection, company_id, sorted(resolvers)):
        if record.resolved_by == resolvers[record.transaction_id or ""]:
            row = _fields(record, "sync_id", *_ROW[1:], "at")
            row["cause"] = _cause(connection, record.cause_key)
            failed_in[record.transaction_id].append(row)
    for transaction_id, sync_id in sorted(resolvers.items()):
        data = {
            "company_id": company_id,
            "transaction_id": transaction_id,
            "resolved_by": sync_id,
            "failed_in": failed_in[transaction_id],
        }
        yield Draft("transaction.resolved", data, pks.get(sync_id))


def alerts(
    connection: Connection, kind: MessageKind, alerts: Sequence[Mapping[str, Any]], at: datetime
) -> None:
    """Announce that alerts were opened or resolved: to webhooks and as notifications."""
    names = ("cause", "text", "opened_at", "resolved_at")
    drafts = [
        Draft(
            kind,
            {name: fields.get(name) for name in names}
            | {"company_id": fields["company_id"] or None},
        )
        for fields in alerts
    ]
    send(connection, drafts, at)


def log_attempt(connection: Connection, message_pk: int, at: datetime, result: str) -> None:
    """Add an attempt to those of a message, of which the latest are stored."""
    log = select(messages.c.attempt_log).where(messages.c.id == message_pk)
    attempts = json.loads(connection.execute(log).scalar() or "[]")[1 - MAX_ATTEMPTS_LOGGED :]
    attempts.append([at.isoformat(), result[:MAX_RESULT]])
    statement = update(messages).where(messages.c.id == message_pk)
    connection.execute(statement.values(attempt_log=json.dumps(attempts)))


def resend(connection: Connection, message: OutgoingMessage, now: datetime) -> None:
    """Enqueue a message again, with the same id, whatever became of it."""
    jobs.enqueue(connection, "message", [(message.id, message.recipient)], now=now)
    statement = update(messages).where(messages.c.id == message.id)
    connection.execute(statement.values(ended_at=None))


def load(connection: Connection, message_pk: int) -> OutgoingMessage | None:
    """A message; None when it was erased."""
    columns = [messages.c[name] for name in OutgoingMessage.__slots__]
    row = connection.execute(select(*columns).where(messages.c.id == message_pk)).first()
    return OutgoingMessage(*row) if row else None


def end(connection: Connection, claim: Claim, now: datetime, *, failure: str | None = None) -> bool:
    """Record that a claimed message was delivered, or is abandoned because of a failure.

    False when the lease was lost. An abandoned message can be redriven.
    """
    if failure is None:
        is_ours = jobs.complete(connection, claim)
    else:
        is_ours = jobs.bury(connection, claim, failure)
    if is_ours:
        _set_ended(connection, [claim.key], now)
    return is_ours


def _set_ended(connection: Connection, pks: Collection[int], at: datetime) -> None:
    these = is_any_of(connection, messages.c.id, pks)
    connection.execute(update(messages).where(these).values(ended_at=at))


def has_abandoned(connection: Connection, *, before: datetime) -> bool:
    """True when `abandon` would find a message. A read, which spares the write."""
    unsent = exists().where(IS_UNADDRESSED, messages.c.created_at < before)
    return bool(connection.execute(select(or_(unsent, exists(_overdue(before))))).scalar())


def _overdue(before: datetime) -> Select[Any]:
    """The messages that have been due since before a time."""
    due = select(job_table.c.key).where(_IS_MESSAGE, jobs.IS_PENDING)
    return due.where(job_table.c.run_at < before)


def abandon(connection: Connection, *, before: datetime, now: datetime) -> int:
    """Abandon the messages that have been due since before a time; returns how many.

    No worker has their recipient's address any longer. Also removes, unsent, those from before that
    time which have no recipients: none are set.
    """
    connection.execute(delete(messages).where(IS_UNADDRESSED, messages.c.created_at < before))
    pks = connection.execute(_overdue(before)).scalars().all()
    reason = "its address is no longer set"
    buried = jobs.bury_waiting(connection, "message", pks, reason, now=now)
    _set_ended(connection, buried, now)
    return len(buried)


def redrive(connection: Connection, *, now: datetime) -> int:
    """Enqueue abandoned messages again; returns how many."""
    revived = jobs.revive_dead(connection, "message", None, now=now)
    pending = select(job_table.c.key).where(_IS_MESSAGE, jobs.IS_PENDING)
    connection.execute(
        update(messages)
        .where(messages.c.ended_at.is_not(None), messages.c.id.in_(pending))
        .values(ended_at=None)
    )
    return revived


def dead_by_recipient(connection: Connection) -> dict[str, int]:
    """How many messages were abandoned, by recipient."""
    recipient = job_table.c.group_key
    counted = select(recipient, func.count()).where(_IS_MESSAGE, jobs.IS_DEAD).group_by(recipient)
    return dict(connection.execute(counted.order_by(recipient)).all())


def failing_retries(connection: Connection) -> dict[str, str | None]:
    """The last error of retry requests that were not delivered twice or more, by recipient."""
    running = case((job_table.c.lease_token.is_not(None), 1), else_=0)
    recipient = job_table.c.group_key
    failing = (
        select(recipient, func.max(job_table.c.last_error))
        .join(messages, IS_ITS_JOB)
        .where(
            jobs.IS_PENDING,
            messages.c.kind == "retry.requested",
            job_table.c.attempts - running >= RETRY_FAILURES,
        )
        .group_by(recipient)
        .order_by(recipient)
    )
    return dict(connection.execute(failing).all())


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` messages that ended before a time, with their jobs; returns how many.

    One that is redriven at the same moment stays.
    """
    old = select(messages.c.id).where(messages.c.ended_at < before)
    pks = connection.execute(old.order_by(messages.c.ended_at).limit(limit)).scalars().all()
    jobs.remove(connection, "message", pks, unless_pending=True)
    has_job = select(job_table.c.key).where(_IS_MESSAGE, job_table.c.key.in_(pks))
    ended = delete(messages).where(messages.c.id.in_(pks), messages.c.id.not_in(has_job))
    return connection.execute(ended).rowcount
