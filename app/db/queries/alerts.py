"""Open alerts with the failures that they are about, and the notes of people about them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, func, select

from app.db.alerts import (
    CANNOT_SYNC_PREFIX,
    FAILURE_PREFIX,
    IS_OPEN,
    Failures,
    begins_with,
    open_failures_of,
)
from app.db.many_rows import is_any_of
from app.db.pagination import Order, Page, read_page
from app.db.tables import alerts, companies

MAX_ABOUT_SERVICE = 200
_ALERT = (
    select(alerts, companies.c.name.label("company_name"))
    .outerjoin_from(alerts, companies, companies.c.company_id == alerts.c.company_id)
    .where(IS_OPEN)
)


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote about failures of one cause at one company."""

    text: str | None
    is_handled: bool
    by: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """An open alert.

    `companies` have an open alert of the same cause. `items` are the open transactions that it is
    about, and `first_failed_at` is the time of the first failure; None if it is about none.
    """

    id: int
    cause: str
    company_id: str
    company_name: str | None
    text: str
    opened_at: datetime
    companies: int
    items: int | None
    first_failed_at: datetime | None
    note: Note | None


def open_alerts(
    connection: Connection, *, cursor: str | None = None, limit: int = 50
) -> Page[AlertRecord]:
    """One page of the open alerts, newest first. Raises BadRequest naming `cursor`."""
    order = Order("alerts", (alerts.c.id,), descending=True)
    page = read_page(connection, _ALERT, order, cursor=cursor, limit=limit)
    return Page(_records(connection, page.items), page.next)


def alerts_about_service(connection: Connection) -> list[AlertRecord]:
    """The open alerts that are not about failures, newest first."""
    others = and_(*(~begins_with(prefix) for prefix in (FAILURE_PREFIX, CANNOT_SYNC_PREFIX)))
    newest = _ALERT.where(others).order_by(alerts.c.id.desc()).limit(MAX_ABOUT_SERVICE)
    return _records(connection, connection.execute(newest).mappings().all())


def count_open_causes(connection: Connection) -> int:
    """How many causes have an open alert, at any number of companies."""
    counted = select(func.count(alerts.c.cause.distinct())).where(IS_OPEN)
    return connection.execute(counted).scalar_one()


def notes_about(
    connection: Connection, cause_key: str, company_ids: Collection[str]
) -> dict[str, Note]:
    """The current notes about one cause at these companies, by the company."""
    causes = [f"{prefix}{cause_key}" for prefix in (CANNOT_SYNC_PREFIX, FAILURE_PREFIX)]
    mine = select(alerts).where(
        IS_OPEN,
        alerts.c.cause.in_(causes),
        is_any_of(connection, alerts.c.company_id, company_ids),
        alerts.c.noted_at.is_not(None),
    )
    rows = connection.execute(mine.order_by(alerts.c.cause)).mappings().all()
    failures = open_failures_of(connection, {row["company_id"] for row in rows})
    notes = {}
    for row in rows:
        known = failures.get((row["cause"], row["company_id"]))
        if note := _current_note(row, known.last_failed_at if known else None):
            notes[row["company_id"]] = note
    return notes


def _current_note(row: RowMapping, last_failed_at: datetime | None) -> Note | None:
    """The note in a row of `alerts`; None if there is none, or something has failed since."""
    known = row["noted_failure_at"]
    if row["noted_at"] is None or (last_failed_at and (known is None or known < last_failed_at)):
        return None
    return Note(row["note"], row["is_handled"], row["noted_by"], row["noted_at"])


def _records(connection: Connection, rows: Sequence[RowMapping]) -> list[AlertRecord]:
    failures = open_failures_of(connection, {row["company_id"] for row in rows})
    these = is_any_of(connection, alerts.c.cause, {row["cause"] for row in rows})
    of_cause = select(alerts.c.cause, func.count()).where(IS_OPEN, these).group_by(alerts.c.cause)
    companies_by_cause: dict[str, int] = dict(connection.execute(of_cause).all())
    return [
        _record(row, failures.get((row["cause"], row["company_id"])), companies_by_cause)
        for row in rows
    ]


def _record(
    row: RowMapping, failures: Failures | None, companies_by_cause: Mapping[str, int]
) -> AlertRecord:
    return AlertRecord(
        id=row["id"],
        cause=row["cause"],
        company_id=row["company_id"],
        company_name=row["company_name"],
        text=row["text"],
        opened_at=row["opened_at"],
        companies=companies_by_cause[row["cause"]],
        items=failures.items if failures else None,
        first_failed_at=failures.first_failed_at if failures else None,
        note=_current_note(row, failures.last_failed_at if failures else None),
    )
