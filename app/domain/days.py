"""A range of time as whole UTC days, and what is left of it at both ends."""

from datetime import UTC, datetime, timedelta

Days = tuple[str | None, str | None]
Edge = tuple[datetime, datetime]
_DAY = timedelta(days=1)
_LATEST = datetime.max.replace(tzinfo=UTC)


def split(since: datetime | None, until: datetime | None) -> tuple[Days | None, list[Edge]]:
    """The whole days of a range (the first, and the one after the last, None where it is open),
    or None where it has none; and the parts of days at its ends.
    """
    first = _next_midnight(since) if since else None
    end = midnight(until) if until else None
    if since and until and first and end and first > end:
        return None, [(since, until)]
    edges = []
    if since and first and since < first:
        edges.append((since, first))
    if until and end and end < until:
        edges.append((end, until))
    return (_day(first), _day(end)), edges


def touched(since: datetime | None, until: datetime | None) -> Days:
    """The days a range has any part of: the first, and the one after the last."""
    first = midnight(since) if since else None
    return _day(first), _day(_next_midnight(until) if until else None)


def midnight(at: datetime) -> datetime:
    """The beginning of its UTC day."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _next_midnight(at: datetime) -> datetime:
    """The first midnight not before; the end of time where there is none."""
    day = midnight(at)
    if day == at:
        return day
    return day + _DAY if day < midnight(_LATEST) else _LATEST


def _day(at: datetime | None) -> str | None:
    if at is None:
        return None
    return "9999-12-32" if at == _LATEST else at.date().isoformat()
