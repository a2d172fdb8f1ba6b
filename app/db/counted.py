"""Reads what is counted ahead, and folds its changes.

A total is what is folded, what was counted since, and what the journal still holds, together and
by one statement. Open failures are the exception: what the journal holds of them is looked up when
it is worked off (`journal.caught_up`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Subquery,
    Text,
    cast,
    delete,
    func,
    select,
    union_all,
)

from app.db.bulk import unpacked, write
from app.db.keyed import adding
from app.db.tables import company_tallies, day_tallies, syncs, tally_changes
from app.db.tables_counted import NO_CODE
from app.db.tables_told import journal

FOLDED_AT_ONCE = 20_000
# Both databases write a UTC time as 2026-01-31 …
DAY = func.substr(cast(syncs.c.occurred_at, Text), 1, 10)
CODE: ColumnElement[int] = func.coalesce(syncs.c.status_code, NO_CODE)

_changes = tally_changes.c
_CHANGE = (_changes.company_id, _changes.day, _changes.what, _changes.status_code, _changes.change)


def of_companies(connection: Connection, ids: Sequence[str]) -> dict[str, Counter[str]]:
    """What is counted of these companies: syncs by outcome, and `OPEN_FAILURES`."""
    found: dict[str, Counter[str]] = {}
    for company_id, what, count in connection.execute(by_company(connection, ids)):
        found.setdefault(company_id, Counter())[what] = count
    return found


def by_company(connection: Connection, ids: Sequence[str]) -> Select[Any]:
    """To read what is counted of these companies: company, what, `total`."""
    folded = select(company_tallies).where(company_tallies.c.company_id.in_(ids))
    more = recent(connection).c
    added = select(more.company_id, more.what, more.change).where(more.company_id.in_(ids))
    both = union_all(folded, added).subquery("counted")
    keys = (both.c.company_id, both.c.what)
    return select(*keys, _sum(both.c.total).label("total")).group_by(*keys)


def of_days(
    connection: Connection, first: str | None, end: str | None
) -> Sequence[Row[str, str, int, int]]:
    """Day, outcome, status code and how many syncs, from a day on and before another, by day."""
    folded = select(day_tallies).where(*_within(day_tallies.c.day, first, end))
    more = recent(connection).c
    added = select(more.day, more.what, more.status_code, more.change).where(
        more.day.is_not(None), *_within(more.day, first, end)
    )
    both = union_all(folded, added).subquery("counted")
    keys = (both.c.day, both.c.what, both.c.status_code)
    total = _sum(both.c.total)
    statement: Select[Any] = select(*keys, total).group_by(*keys).having(total != 0)
    return connection.execute(statement.order_by(*keys)).all()


def syncs_by_day(connection: Connection, first: str | None, end: str | None) -> dict[str, int]:
    """How many syncs there are on each day, from a day on and before another."""
    folded = select(day_tallies.c.day, day_tallies.c.total)
    more = recent(connection).c
    added = select(more.day, more.change).where(more.day.is_not(None))
    both = union_all(
        folded.where(*_within(day_tallies.c.day, first, end)),
        added.where(*_within(more.day, first, end)),
    ).subquery("counted")
    statement = select(both.c.day, _sum(both.c.total)).group_by(both.c.day)
    return {day: total for day, total in connection.execute(statement) if total}


def recent(connection: Connection) -> Subquery:
    """What is not folded yet: what was counted since, and what the journal still holds."""
    names = tuple(each.name for each in _CHANGE)
    waiting = unpacked(connection.dialect.name, journal.c.counts, tally_changes, names)
    return union_all(select(*_CHANGE), waiting).subquery("recent")


def _sum(totals: ColumnElement[int]) -> ColumnElement[int]:
    """A whole number on both databases; PostgreSQL's own sum of numbers is a decimal."""
    return cast(func.sum(totals), BigInteger)


def _within(day: ColumnElement[Any], first: str | None, end: str | None) -> list[Any]:
    return [*([day >= first] if first else []), *([day < end] if end else [])]


def fold(connection: Connection) -> int:
    """Fold changes into the tallies, the oldest first; how many. Safe for many at once."""
    oldest = select(_changes.id).order_by(_changes.id).limit(FOLDED_AT_ONCE)
    taken = connection.execute(
        delete(tally_changes)
        .where(_changes.id.in_(oldest.with_for_update(skip_locked=True).scalar_subquery()))
        .returning(*_CHANGE)
    ).all()
    by_company: Counter[tuple[Any, ...]] = Counter()
    by_day: Counter[tuple[Any, ...]] = Counter()
    for company_id, day, what, code, change in taken:
        if company_id is not None:
            by_company[company_id, what] += change
        if day is not None:
            by_day[day, what, code] += change
    _add(connection, company_tallies, by_company)
    _add(connection, day_tallies, by_day)
    return len(taken)


def _add(connection: Connection, table: Any, changes: Counter[tuple[Any, ...]]) -> None:
    """In one order for all, so that two who fold at once wait for each other and never for ever."""
    names = [str(column.name) for column in table.primary_key]
    rows = [
        dict(zip(names, key, strict=True)) | {"total": change}
        for key, change in sorted(changes.items())
        if change
    ]
    write(connection, adding(table, rows))
