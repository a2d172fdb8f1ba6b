"""Alerts: what needs attention. At most one is open per cause and company."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, RowMapping, delete, func, select, update

from app.db import outgoing
from app.db.pagination import Order, Page, read_page
from app.db.tables import alerts, companies, failed_transactions, syncs
from app.domain.webhook_loss import Finding, FinishedSync

FAILURE_PREFIX = "push_error:"
UNDELIVERED = "messages_undelivered"
"""The cause of an alert about failed transactions: this, and the key of their cause."""
MAX_RECENT = 50
_IS_OPEN = alerts.c.resolved_at.is_(None)
_IS_REPORTED: ColumnElement[bool] = (
    syncs.c.started_received_at.is_not(None)
    | syncs.c.failed_received_at.is_not(None)
    | syncs.c.completed_received_at.is_not(None)
)


class AlertChanges(NamedTuple):
    """Which alerts were opened, and how many were resolved."""

    opened: list[Finding]
    resolved: int


def sync_alerts(
    connection: Connection, causes: Collection[str], findings: Sequence[Finding], now: datetime
) -> AlertChanges:
    """Make the open alerts of these causes exactly the findings; others are left alone."""
    mine = select(alerts).where(_IS_OPEN, alerts.c.cause.in_(sorted(causes)))
    rows = connection.execute(mine.order_by(alerts.c.id).with_for_update()).mappings()
    stored = {(row["cause"], row["company_id"]): row for row in rows}
    found = {(finding.cause, finding.company_id): finding for finding in findings}
    for key in found.keys() & stored.keys():
        if found[key].text != stored[key]["text"]:
            same = alerts.c.id == stored[key]["id"]
            connection.execute(update(alerts).where(same).values(text=found[key].text))
    opened = [finding for key, finding in found.items() if key not in stored]
    for finding in opened:
        new = asdict(finding) | {"opened_at": now}
        connection.execute(alerts.insert(), new)
        outgoing.alert(connection, "alert.opened", new, now)
    over = [row for key, row in stored.items() if key not in found]
    for row in over:
        connection.execute(update(alerts).where(alerts.c.id == row["id"]).values(resolved_at=now))
        outgoing.alert(connection, "alert.resolved", {**row, "resolved_at": now}, now)
    return AlertChanges(opened, len(over))


def open_alerts(
    connection: Connection, *, cursor: str | None = None, limit: int = 50
) -> Page[RowMapping]:
    """One page of the open alerts, newest first. Raises BadRequest naming `cursor`."""
    order = Order("alerts", (alerts.c.id,), descending=True)
    return read_page(connection, select(alerts).where(_IS_OPEN), order, cursor=cursor, limit=limit)


def open_except(
    connection: Connection, prefix: str, limit: int = 200
) -> Sequence[Row[str, datetime, str, str]]:
    """The open alerts whose cause does not begin with the prefix, newest first.

    Rows of `text`, `opened_at`, `company_id` (may be empty), `company_name` (None if unknown).
    """
    name = companies.c.name.label("company_name")
    newest = (
        select(alerts.c.text, alerts.c.opened_at, alerts.c.company_id, name)
        .outerjoin_from(alerts, companies, companies.c.company_id == alerts.c.company_id)
        .where(_IS_OPEN, ~_begins_with(prefix))
        .order_by(alerts.c.id.desc())
    )
    return connection.execute(newest.limit(limit)).all()


def open_by_cause(connection: Connection, prefix: str) -> Sequence[Row[str, int, datetime]]:
    """The open alerts whose cause begins with the prefix, by its rest, most companies first.

    Rows of `cause` (without the prefix), `companies` (how many), `opened_at` (of the first).
    """
    cause = func.substr(alerts.c.cause, len(prefix) + 1).label("cause")
    number = func.count(alerts.c.company_id.distinct()).label("companies")
    by_cause = (
        select(cause, number, func.min(alerts.c.opened_at).label("opened_at"))
        .where(_IS_OPEN, _begins_with(prefix))
        .group_by(alerts.c.cause)
        .order_by(number.desc(), alerts.c.cause)
    )
    return connection.execute(by_cause).all()


def open_causes(connection: Connection, prefix: str) -> set[str]:
    """The causes with this prefix that have an open alert."""
    found = select(alerts.c.cause).where(_IS_OPEN, _begins_with(prefix)).distinct()
    return set(connection.execute(found).scalars())


def _begins_with(prefix: str) -> ColumnElement[bool]:
    return alerts.c.cause.startswith(prefix, autoescape=True)


def prune(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` alerts that were resolved before a time; returns how many."""
    old = select(alerts.c.id).where(alerts.c.resolved_at < before)
    oldest = old.order_by(alerts.c.resolved_at).limit(limit)
    return connection.execute(delete(alerts).where(alerts.c.id.in_(oldest))).rowcount


def open_failures(connection: Connection, since: datetime) -> Sequence[Row[str, str]]:
    """Cause keys and company ids of open transactions whose latest failure is since a time."""
    failed = failed_transactions.c
    found = select(failed.cause_key, failed.company_id).distinct()
    is_open = found.where(failed.last_failed_at >= since, failed.resolved_by.is_(None))
    return connection.execute(is_open.order_by(failed.cause_key, failed.company_id)).all()


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
