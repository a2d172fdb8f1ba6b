"""Alerts: what needs attention. At most one is open per cause and company.

`queries.alerts` reads them with the failures that they are about.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from app.db import outgoing
from app.db.engine import classifier_of
from app.db.many_rows import insert_many, is_any_of, update_many
from app.db.tables import alerts, companies, failed_transactions, syncs
from app.domain.causes.classifier import UNCLASSIFIED, Classifier
from app.domain.webhook_loss import Finding, FinishedSync
from app.errors import Conflict, NotFound

FAILURE_PREFIX = "push_error:"
"""The cause of an alert about failed transactions: this, and the key of their cause."""
CANNOT_SYNC_PREFIX = "cannot_sync:"
"""The cause of an alert about a company that cannot sync: this, and the key of the reason."""
UNDELIVERED = "messages_undelivered"
RETRIES_UNDELIVERED = "retries_undelivered"
OUTDATED = "alerts_outdated"
MAX_RECENT = 50
PAIRS_PER_STEP = 500
IS_OPEN = alerts.c.resolved_at.is_(None)
_IS_REPORTED: ColumnElement[bool] = (
    syncs.c.started_received_at.is_not(None)
    | syncs.c.failed_received_at.is_not(None)
    | syncs.c.completed_received_at.is_not(None)
)
CANNOT_SYNC: Select[Any] = (
    select(
        companies.c.company_id,
        func.coalesce(syncs.c.cause_key, UNCLASSIFIED).label("cause_key"),
        companies.c.cannot_sync_since,
        syncs.c.occurred_at,
    )
    .join_from(companies, syncs, syncs.c.id == companies.c.cannot_sync_pk)
    .where(companies.c.cannot_sync_since.is_not(None))
)
"""The companies that cannot sync: why, since when, and when their latest sync failed."""


class AlertChanges(NamedTuple):
    """Which alerts were opened, and how many were resolved."""

    opened: Sequence[Finding]
    resolved: int


class Failures(NamedTuple):
    """What is open of one cause at one company; `items` is None where whole syncs fail."""

    items: int | None
    first_failed_at: datetime
    last_failed_at: datetime


class NewNote(NamedTuple):
    """What somebody writes about an alert. Without a text and not handled, it is removed."""

    text: str | None
    is_handled: bool
    by: str | None


class Differences(NamedTuple):
    """What has to change for the open alerts to be exactly the findings."""

    opened: Sequence[Finding]
    texts: Sequence[Mapping[str, Any]]  # rows of `id` and `text`
    over: Sequence[int]  # ids


def compare(
    connection: Connection, owned: Collection[str], findings: Iterable[Finding]
) -> Differences:
    """How the open alerts differ from the findings. Only reads, and locks nothing.

    `owned` are the causes, or their beginnings, whose alerts resolve without a finding.
    """
    mine = select(alerts.c.id, alerts.c.cause, alerts.c.company_id, alerts.c.text)
    found = connection.execute(mine.where(IS_OPEN, or_(*map(begins_with, owned))))
    stored = {(row.cause, row.company_id): row for row in found.mappings()}
    wanted = {(finding.cause, finding.company_id): finding for finding in findings}
    return Differences(
        opened=[finding for key, finding in wanted.items() if key not in stored],
        texts=[
            {"id": row["id"], "text": wanted[key].text}
            for key, row in stored.items()
            if key in wanted and wanted[key].text != row["text"]
        ],
        over=[row["id"] for key, row in stored.items() if key not in wanted],
    )


def apply(connection: Connection, differences: Differences, now: datetime) -> AlertChanges:
    """Open, change and resolve alerts, and announce those that were opened or resolved."""
    opened = [asdict(finding) | {"opened_at": now} for finding in differences.opened]
    insert_many(connection, alerts, opened)
    outgoing.alerts(connection, "alert.opened", opened, now)
    update_many(connection, alerts, map(dict, differences.texts))
    these = is_any_of(connection, alerts.c.id, differences.over)
    over: Sequence[RowMapping] = []
    if differences.over:
        over = connection.execute(select(alerts).where(these, IS_OPEN)).mappings().all()
        connection.execute(update(alerts).where(these, IS_OPEN).values(resolved_at=now))
    ended = [{**row, "resolved_at": now} for row in over]
    outgoing.alerts(connection, "alert.resolved", ended, now)
    return AlertChanges(differences.opened, len(over))


def sync_alerts(
    connection: Connection, owned: Collection[str], findings: Sequence[Finding], now: datetime
) -> AlertChanges:
    """Make the open alerts of these causes exactly the findings; others are left alone."""
    return apply(connection, compare(connection, owned, findings), now)


def failure_finding(
    classifier: Classifier, prefix: str, cause_key: str, company_id: str
) -> Finding:
    """An alert about failures; without their number, which changes all the time."""
    cause = classifier.causes.get(cause_key)
    title = cause.title if cause else cause_key
    text = f"Cannot sync: {title}"
    if prefix == FAILURE_PREFIX:
        text = f"{title}: items not recorded"
    return Finding(f"{prefix}{cause_key}", company_id, text)


def annotate(
    connection: Connection, cause_key: str, company_id: str, note: NewNote, now: datetime
) -> None:
    """Store a note about what is open of a cause at a company, and open its alerts if need be.

    Raises Conflict when nothing is open.
    """
    failures = open_failures_of(connection, [company_id])
    prefixes = [
        prefix
        for prefix in (FAILURE_PREFIX, CANNOT_SYNC_PREFIX)
        if (f"{prefix}{cause_key}", company_id) in failures
    ]
    if not prefixes:
        raise Conflict("Nothing of this cause is open at this company.")
    causes = [f"{prefix}{cause_key}" for prefix in prefixes]
    mine = (IS_OPEN, alerts.c.company_id == company_id, alerts.c.cause.in_(causes))
    stored = set(connection.execute(select(alerts.c.cause).where(*mine)).scalars())
    classifier = classifier_of(connection)
    found = [failure_finding(classifier, prefix, cause_key, company_id) for prefix in prefixes]
    missing = [finding for finding in found if finding.cause not in stored]
    apply(connection, Differences(missing, [], []), now)
    _store_note(connection, and_(*mine), note, now)


def annotate_alert(connection: Connection, alert_id: int, note: NewNote, now: datetime) -> None:
    """Store a note about an open alert. Raises NotFound."""
    if not _store_note(connection, and_(IS_OPEN, alerts.c.id == alert_id), note, now):
        raise NotFound("Alert not found")


def _store_note(
    connection: Connection, which: ColumnElement[bool], note: NewNote, now: datetime
) -> int:
    """Store the note with the latest failure that its author can know of; how many alerts."""
    rows = connection.execute(select(alerts).where(which).with_for_update()).mappings().all()
    failures = open_failures_of(connection, {row["company_id"] for row in rows})
    for row in rows:
        known = failures.get((row["cause"], row["company_id"]))
        values = {
            "note": note.text,
            "is_handled": note.is_handled,
            "noted_by": note.by,
            "noted_at": now if note.text or note.is_handled else None,
            "noted_failure_at": known.last_failed_at if known else None,
        }
        connection.execute(update(alerts).where(alerts.c.id == row["id"]).values(values))
    return len(rows)


def begins_with(prefix: str) -> ColumnElement[bool]:
    """The condition for alerts whose cause begins with this."""
    return alerts.c.cause.startswith(prefix, autoescape=True)


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` alerts that were resolved before a time; returns how many."""
    old = select(alerts.c.id).where(alerts.c.resolved_at < before)
    oldest = old.order_by(alerts.c.resolved_at).limit(limit)
    return connection.execute(delete(alerts).where(alerts.c.id.in_(oldest))).rowcount


def open_failures(connection: Connection, since: datetime) -> Iterator[tuple[str, str]]:
    """Cause keys and company ids of open transactions whose latest failure is since a time.

    A step reads the open transactions of a few companies by their index, so that no statement runs
    into the time limit, however many have failed.
    """
    failed = failed_transactions.c
    key = (failed.company_id, failed.cause_key)
    pairs = (
        select(*key, func.max(failed.last_failed_at))
        .where(failed.resolved_by.is_(None))
        .group_by(*key)
        .order_by(*key)
        .limit(PAIRS_PER_STEP)
    )
    step = pairs
    while found := connection.execute(step).all():
        yield from ((cause, company) for company, cause, last in found if last >= since)
        step = pairs.where(tuple_(*key) > tuple_(*found[-1][:2]))


def open_failures_of(
    connection: Connection, company_ids: Collection[str]
) -> dict[tuple[str, str], Failures]:
    """What is open at these companies, by the cause of its alert and the company."""
    failed = failed_transactions.c
    open_items = (
        select(
            failed.cause_key,
            failed.company_id,
            func.count(),
            func.min(failed.first_failed_at),
            func.max(failed.last_failed_at),
        )
        .where(is_any_of(connection, failed.company_id, company_ids), failed.resolved_by.is_(None))
        .group_by(failed.cause_key, failed.company_id)
    )
    found = {
        (f"{FAILURE_PREFIX}{cause_key}", company_id): Failures(*numbers)
        for cause_key, company_id, *numbers in connection.execute(open_items)
    }
    these = is_any_of(connection, companies.c.company_id, company_ids)
    for company_id, cause_key, since, last in connection.execute(CANNOT_SYNC.where(these)):
        found[f"{CANNOT_SYNC_PREFIX}{cause_key}", company_id] = Failures(None, since, last)
    return found


def companies_that_cannot_sync(connection: Connection) -> list[tuple[str, str]]:
    """Keys of the causes for which the syncs of companies fail as a whole, and company ids."""
    found = connection.execute(CANNOT_SYNC.order_by(companies.c.company_id))
    return [(row.cause_key, row.company_id) for row in found]


def companies_with_unreported_syncs(connection: Connection, since: datetime) -> list[str]:
    """The companies with a sync that ended, since a time, and that no webhook reported."""
    ended = select(syncs.c.company_id).where(syncs.c.occurred_at >= since)
    found = ended.where(syncs.c.state != "started", ~_IS_REPORTED).distinct()
    return sorted(connection.execute(found).scalars())


def recent_finished_syncs(
    connection: Connection, company_id: str, before: datetime
) -> list[FinishedSync]:
    """A company's newest syncs that ended, by Codat's clock; `before` leaves out the future."""
    newest = (
        select(syncs.c.occurred_at, _IS_REPORTED)
        .where(syncs.c.company_id == company_id, syncs.c.state != "started")
        .where(syncs.c.occurred_at < before + timedelta(days=1))
        .order_by(syncs.c.occurred_at.desc(), syncs.c.id.desc())
        .limit(MAX_RECENT)
    )
    return [FinishedSync(at, bool(was_reported)) for at, was_reported in connection.execute(newest)]
