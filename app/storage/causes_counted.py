"""Counts failures by cause from the sums by day (`tables_filed`), however many there are."""

from dataclasses import dataclass
from datetime import UTC, datetime, time

from sqlalchemy import BigInteger, ColumnElement, Connection, Table, cast, func, select

from app.rules.sync import day_of
from app.storage.tables_filed import AMOUNTS, filed_days, filed_spans, filed_totals


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


def adds_up(connection: Connection, wanted: CauseFilter) -> bool:
    """True when the sums say what is wanted: from the beginning of a day on, or from all time.

    An end of the range does no harm when nothing failed since.
    """
    if wanted.since and wanted.since.astimezone(UTC).time() != time():
        return False
    if wanted.until is None:
        return True
    last = select(func.max(filed_spans.c.last_at)).where(*_conditions(filed_spans, wanted))
    ended = connection.execute(last).scalar()
    return ended is None or ended < wanted.until


def by_sums(connection: Connection, wanted: CauseFilter) -> list[Counted]:
    """The wanted failures of each cause, and of each of its messages."""
    sums = filed_totals if wanted.company_id is None else filed_days
    key = (sums.c.cause, sums.c.fingerprint)
    added = [cast(func.sum(sums.c[name]), BigInteger) for name in AMOUNTS]
    statement = select(*key, *added).where(*_conditions(sums, wanted)).group_by(*key)
    if wanted.since:
        statement = statement.where(sums.c.day >= day_of(wanted.since))
    found: list[Counted] = []
    wholes: dict[str, list[int]] = {}
    for cause, fingerprint, each, still, syncs, by_cause, open_by_cause in connection.execute(
        statement
    ):
        if each or syncs:
            found.append(Counted(cause, fingerprint, each, still, syncs))
            whole = wholes.setdefault(cause, [0, 0, 0])
            whole[:] = map(sum, zip(whole, (by_cause, open_by_cause, syncs), strict=True))
    return found + [Counted(cause, None, *whole) for cause, whole in wholes.items()]


def _conditions(table: Table, wanted: CauseFilter) -> list[ColumnElement[bool]]:
    names = ("company_id", "cause")
    told = [(name, getattr(wanted, name)) for name in names if name in table.c]
    return [table.c[name] == value for name, value in told if value is not None]
