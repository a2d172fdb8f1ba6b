"""Totals of syncs by outcome, status code and day."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo

from sqlalchemy import ColumnElement, Connection, func, select

from app.db.queries.syncs import in_range
from app.db.tables import syncs
from app.domain.sync_state import day_of


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of syncs. Days are UTC, as `2026-01-31`; a status code may be None (unknown)."""

    by_outcome: Counter[str] = field(default_factory=Counter)
    by_status_code: Counter[int | None] = field(default_factory=Counter)
    by_day: dict[str, Counter[str]] = field(default_factory=dict)


def stats(connection: Connection, since: datetime | None, until: datetime | None) -> Stats:
    """Count the syncs by `occurred_at`, from `since` (inclusive) to `until` (exclusive).

    An index alone answers for whole days. The rest of the first and last day is counted by rows.
    """
    totals = Stats()
    for conditions in _parts(since, until):
        rows = connection.execute(
            select(syncs.c.day, syncs.c.outcome, syncs.c.status_code, func.count())
            .where(*conditions)
            .group_by(syncs.c.day, syncs.c.outcome, syncs.c.status_code)
            .order_by(syncs.c.day)
        )
        for day, outcome, status_code, count in rows:
            totals.by_outcome[outcome] += count
            totals.by_status_code[status_code] += count
            totals.by_day.setdefault(day, Counter())[outcome] += count
    return totals


def by_local_day(
    connection: Connection, since: datetime, until: datetime, zone: tzinfo
) -> dict[str, Counter[str]]:
    """The days with syncs in a time zone, each with its syncs by outcome.

    Each day is a range of an index: for some weeks, not for years.
    """
    found: dict[str, Counter[str]] = {}
    day = since.astimezone(zone).date()
    while (start := datetime.combine(day, time.min, zone).astimezone(UTC)) < until:
        next_day = day + timedelta(days=1)
        end = datetime.combine(next_day, time.min, zone).astimezone(UTC)
        rows = connection.execute(
            select(syncs.c.outcome, func.count())
            .where(*in_range(syncs.c.occurred_at, max(start, since), min(end, until)))
            .group_by(syncs.c.outcome)
        )
        for outcome, count in rows:
            found.setdefault(day.isoformat(), Counter())[outcome] = count
        day = next_day
    return found


def _parts(since: datetime | None, until: datetime | None) -> Iterator[list[ColumnElement[bool]]]:
    """The conditions for the parts of a range in the order of time: a day, whole days, a day."""
    first, end = since and day_of(since), until and day_of(until)
    if since and until and first == end:
        yield in_range(syncs.c.occurred_at, since, until)
        return
    whole_days: list[ColumnElement[bool]] = []
    if since and first:
        is_whole = _is_midnight(since)
        whole_days.append(syncs.c.day >= first if is_whole else syncs.c.day > first)
        if not is_whole:
            yield [syncs.c.day == first, syncs.c.occurred_at >= since]
    if end:
        whole_days.append(syncs.c.day < end)
    yield whole_days
    if until and not _is_midnight(until):
        yield [syncs.c.day == end, syncs.c.occurred_at < until]


def _is_midnight(at: datetime) -> bool:
    return at.astimezone(UTC).time() == time.min
