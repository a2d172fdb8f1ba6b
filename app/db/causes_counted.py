"""Counts failures by cause from the sums by days (`tables_filed`), however many there are."""

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, Connection, Table, cast, func, or_, select

from app.db.tables_filed import AMOUNTS, filed_days, filed_spans, filed_totals
from app.domain.days import midnight
from app.domain.sync_state import day_of


@dataclass(frozen=True, slots=True)
class CauseFilter:
    """Which failures are wanted. Empty means all; times are those of their syncs."""

    company_id: str | None = None
    cause: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """The wanted failures of a cause with one fingerprint, or of the cause as a whole (None).

    `companies` is None while it is not counted.
    """

    cause: str
    fingerprint: str | None
    transactions: int
    open: int
    syncs: int
    companies: int | None = None


def in_days(connection: Connection, wanted: CauseFilter) -> CauseFilter | None:
    """What is wanted, as the sums can say it: a range of whole days. None where it is not one.

    An end of the range that lies after all failures is no end.
    """
    if wanted.since and wanted.since != midnight(wanted.since):
        return None
    if wanted.until is None or wanted.until == midnight(wanted.until):
        return wanted
    last = select(func.max(filed_spans.c.last_at)).where(*_conditions(filed_spans, wanted))
    ended = connection.execute(last).scalar()
    return replace(wanted, until=None) if ended is None or ended < wanted.until else None


def by_sums(connection: Connection, wanted: CauseFilter) -> list[Counted]:
    """The failures of a range of days, by cause and by each of its messages."""
    sums = filed_totals if wanted.company_id is None else filed_days
    key = (sums.c.cause, sums.c.fingerprint)
    added = [cast(func.sum(sums.c[name]), BigInteger) for name in AMOUNTS]
    statement = select(*key, *added).where(*_conditions(sums, wanted)).group_by(*key)
    if wanted.since:
        statement = statement.where(sums.c.day >= day_of(wanted.since))
    # each counts on the day whose next is not in the range
    its_last = sums.c.next_day == ""
    if wanted.until:
        end = day_of(wanted.until)
        statement = statement.where(sums.c.day < end)
        its_last = or_(its_last, sums.c.next_day >= end)
    return [
        Counted(cause, fingerprint or None, each, still, syncs)
        for cause, fingerprint, each, still, syncs in connection.execute(statement.where(its_last))
        if each or syncs
    ]


def _conditions(table: Table, wanted: CauseFilter) -> list[ColumnElement[bool]]:
    names = ("company_id", "cause")
    told = [(name, getattr(wanted, name)) for name in names if name in table.c]
    return [table.c[name] == value for name, value in told if value is not None]
