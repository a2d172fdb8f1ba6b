"""Alerts: what somebody must look at. One is open per cause and company, and resolves by itself."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from app.db import announcements as announce
from app.db.pagination import Order, Page, read_page
from app.db.queries.transactions import OPEN
from app.db.tables import alerts, companies, syncs, transactions
from app.domain.webhook_loss import Finding, Heard

RECENT = 50


@dataclass(frozen=True, slots=True)
class Turned:
    """Which alerts were opened and which were resolved."""

    opened: list[Finding]
    resolved: int


def turn(
    connection: Connection, causes: Collection[str], findings: Sequence[Finding], now: datetime
) -> Turned:
    """Make the open alerts of these causes exactly the findings; others are left alone."""
    is_open = alerts.c.resolved_at.is_(None)
    rows = connection.execute(
        select(alerts).where(is_open, alerts.c.cause.in_(sorted(causes))).with_for_update()
    ).mappings()
    found = {(each.cause, each.company_id): each for each in findings}
    there = {(row["cause"], row["company_id"]): row for row in rows}
    for key, finding in found.items():
        if key in there:
            stays = alerts.c.id == there[key]["id"]
            connection.execute(update(alerts).where(stays).values(text=finding.text))
    opened = [finding for key, finding in found.items() if key not in there]
    for each in opened:
        connection.execute(alerts.insert(), _row(each, now))
        announce.alert(connection, "alert.opened", _row(each, now), now)
    gone = [row for key, row in there.items() if key not in found]
    for row in gone:
        ended = update(alerts).where(alerts.c.id == row["id"]).values(resolved_at=now)
        connection.execute(ended)
        announce.alert(connection, "alert.resolved", {**row, "resolved_at": now}, now)
    return Turned(opened, len(gone))


def _row(finding: Finding, now: datetime) -> dict[str, object]:
    return {
        "cause": finding.cause,
        "company_id": finding.company_id,
        "text": finding.text,
        "opened_at": now,
    }


def open_alerts(connection: Connection, *, cursor: str | None = None, limit: int = 50) -> Page:
    """One page of the open alerts, newest first. Raises BadRequest naming `cursor`."""
    statement = select(alerts).where(alerts.c.resolved_at.is_(None))
    order = Order("alerts", (alerts.c.id,), descending=True)
    return read_page(connection, statement, order, cursor=cursor, limit=limit)


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that is open, with the company's name where it is about one and that is known."""

    text: str
    opened_at: datetime
    company_id: str
    company_name: str | None


@dataclass(frozen=True, slots=True)
class OpenCause:
    """For how many companies an alert of one cause is open, and since when."""

    cause: str
    companies: int
    opened_at: datetime


def open_besides(connection: Connection, prefix: str, limit: int = 200) -> list[OpenAlert]:
    """The open alerts whose cause begins otherwise, newest first."""
    is_open = alerts.c.resolved_at.is_(None)
    statement = (
        select(alerts.c.text, alerts.c.opened_at, alerts.c.company_id, companies.c.name)
        .outerjoin_from(alerts, companies, companies.c.company_id == alerts.c.company_id)
        .where(is_open, ~alerts.c.cause.startswith(prefix, autoescape=True))
    )
    newest = statement.order_by(alerts.c.id.desc()).limit(limit)
    return [OpenAlert(*row) for row in connection.execute(newest)]


def open_by_cause(connection: Connection, prefix: str) -> list[OpenCause]:
    """The open alerts with this beginning, one row for each cause, most companies first."""
    number = func.count(alerts.c.company_id.distinct())
    found = connection.execute(
        select(alerts.c.cause, number, func.min(alerts.c.opened_at))
        .where(alerts.c.resolved_at.is_(None), alerts.c.cause.startswith(prefix, autoescape=True))
        .group_by(alerts.c.cause)
        .order_by(number.desc(), alerts.c.cause)
    )
    return [OpenCause(cause.removeprefix(prefix), *more) for cause, *more in found]


def companies_untold(connection: Connection, since: datetime) -> list[str]:
    """The companies with a finished sync since a time that no webhook told."""
    found = connection.execute(
        select(syncs.c.company_id)
        .where(syncs.c.heard == 0, syncs.c.occurred_at >= since, syncs.c.state != "started")
        .distinct()
    )
    return sorted(found.scalars())


def recent_syncs(connection: Connection, company_id: str, before: datetime) -> list[Heard]:
    """A company's newest finished syncs, by Codat's clock; `before` leaves the future out."""
    found = connection.execute(
        select(syncs.c.occurred_at, syncs.c.heard)
        .where(syncs.c.company_id == company_id, syncs.c.state != "started")
        .where(syncs.c.occurred_at < before + timedelta(days=1))
        .order_by(syncs.c.occurred_at.desc(), syncs.c.id.desc())
        .limit(RECENT)
    )
    return [Heard(row.occurred_at, row.heard != 0) for row in found]


@dataclass(frozen=True, slots=True)
class OpenFailures:
    """Transactions of a company failed for one cause and are not cured."""

    cause: str
    company_id: str


def open_failures(connection: Connection, since: datetime) -> list[OpenFailures]:
    """The failures since a time whose cause is known and that no later sync cured."""
    found = connection.execute(
        select(transactions.c.cause, syncs.c.company_id)
        .distinct()
        .join_from(transactions, syncs, syncs.c.id == transactions.c.sync)
        .where(syncs.c.failed > 0, syncs.c.occurred_at >= since)
        .where(transactions.c.failed.is_(True), transactions.c.cause.is_not(None), OPEN)
        .order_by(transactions.c.cause, syncs.c.company_id)
    )
    return [OpenFailures(*row) for row in found]


def causes_open(connection: Connection, prefix: str) -> set[str]:
    """The causes with this beginning that have an open alert."""
    found = connection.execute(
        select(alerts.c.cause)
        .where(alerts.c.resolved_at.is_(None), alerts.c.cause.startswith(prefix, autoescape=True))
        .distinct()
    )
    return set(found.scalars())
