"""Reads what is counted ahead, folds its changes, and counts anew from the rows to mend it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    Text,
    cast,
    delete,
    func,
    null,
    select,
    union,
    union_all,
)

from app.storage import tally
from app.storage.bulk import inserting, put
from app.storage.database import Database
from app.storage.tables import (
    company_tallies,
    day_tallies,
    open_failures,
    syncs,
    tally_changes,
    transactions,
)
from app.storage.tally import NO_CODE, OPEN_FAILURES

FOLDED_AT_ONCE = 20_000
# Both databases write a UTC time as 2026-01-31 …
DAY = func.substr(cast(syncs.c.occurred_at, Text), 1, 10)
CODE: ColumnElement[int] = func.coalesce(syncs.c.status_code, NO_CODE)

_changes = tally_changes.c


def of_companies(connection: Connection, ids: Sequence[str]) -> dict[str, Counter[str]]:
    """What is counted of these companies: syncs by outcome, and `OPEN_FAILURES`."""
    folded = select(company_tallies).where(company_tallies.c.company_id.in_(ids))
    recent = select(_changes.company_id, _changes.what, _changes.change)
    both = union_all(folded, recent.where(_changes.company_id.in_(ids))).subquery("counted")
    total = func.sum(both.c.total)
    statement = select(both.c.company_id, both.c.what, total).group_by(
        both.c.company_id, both.c.what
    )
    found: dict[str, Counter[str]] = {}
    for company_id, what, count in connection.execute(statement):
        found.setdefault(company_id, Counter())[what] = int(count)
    return found


def of_days(
    connection: Connection, first: str | None, end: str | None
) -> Sequence[Row[str, str, int, int]]:
    """Day, outcome, status code and how many syncs, from a day on and before another, by day."""
    folded = select(day_tallies).where(*_within(day_tallies.c.day, first, end))
    recent = select(_changes.day, _changes.what, _changes.status_code, _changes.change).where(
        _changes.day.is_not(None), *_within(_changes.day, first, end)
    )
    both = union_all(folded, recent).subquery("counted")
    keys = (both.c.day, both.c.what, both.c.status_code)
    total = func.sum(both.c.total)
    statement: Select[Any] = select(*keys, total).group_by(*keys).having(total != 0)
    return connection.execute(statement.order_by(*keys)).all()


def _within(day: ColumnElement[Any], first: str | None, end: str | None) -> list[Any]:
    return [*([day >= first] if first else []), *([day < end] if end else [])]


def fold(connection: Connection) -> int:
    """Fold changes into the tallies, the oldest first; how many. Safe for many at once."""
    oldest = select(_changes.id).order_by(_changes.id).limit(FOLDED_AT_ONCE)
    taken = connection.execute(
        delete(tally_changes)
        .where(_changes.id.in_(oldest.with_for_update(skip_locked=True).scalar_subquery()))
        .returning(
            _changes.company_id, _changes.day, _changes.what, _changes.status_code, _changes.change
        )
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
    keys = [column.name for column in table.primary_key]
    rows = [
        dict(zip(keys, key, strict=True)) | {"total": change}
        for key, change in sorted(changes.items())
        if change
    ]
    if rows:
        statement = inserting(connection, table, rows)
        more = {"total": table.c.total + statement.excluded.total}
        put(connection, statement.on_conflict_do_update(index_elements=keys, set_=more), rows)


def recount(database: Database) -> int:
    """Compare what is counted with the rows and mend it; how many counters were wrong.

    Nobody has to stop for it: a correction is a change like others, worked out by one statement
    (syncs) or under the company's lock (open failures).
    """
    with database.writing() as connection:
        _no_hurry(connection)
        wrong = _mend(connection, _by_company()) + _mend(connection, _by_day())
    with database.reading() as connection:
        company_ids = sorted(connection.execute(_with_failures()).scalars())
    for company_id in company_ids:
        with database.writing() as connection:
            _no_hurry(connection)
            wrong += _recount_open(connection, company_id)
    return wrong


def _with_failures() -> CompoundSelect[Any]:
    """The companies that have failures, or are said to."""
    return union(
        select(syncs.c.company_id).where(syncs.c.failed > 0),
        select(open_failures.c.company_id),
        select(company_tallies.c.company_id).where(_counts_open(company_tallies.c)),
        select(_changes.company_id).where(_counts_open(_changes)),
    )


def _no_hurry(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def _counts_open(columns: Any) -> ColumnElement[bool]:
    counts: ColumnElement[bool] = columns.what == OPEN_FAILURES
    return counts


def _by_company() -> Select[Any]:
    """By how much each company's counted syncs are wrong."""
    there = select(
        syncs.c.company_id, null().label("day"), syncs.c.outcome.label("what"),
        _no_code().label("status_code"), func.count().label("n"),
    ).group_by(syncs.c.company_id, syncs.c.outcome)  # fmt: skip
    counted = company_tallies.c
    folded = select(counted.company_id, null(), counted.what, _no_code(), -counted.total)
    recent = select(_changes.company_id, null(), _changes.what, _no_code(), -_changes.change)
    return _differences(
        there,
        folded.where(~_counts_open(counted)),
        recent.where(~_counts_open(_changes), _changes.company_id.is_not(None)),
    )


def _by_day() -> Select[Any]:
    """By how much each day's counted syncs are wrong."""
    there = select(
        null().label("company_id"), DAY.label("day"), syncs.c.outcome.label("what"),
        CODE.label("status_code"), func.count().label("n"),
    ).group_by(DAY, syncs.c.outcome, CODE)  # fmt: skip
    counted = day_tallies.c
    folded = select(null(), counted.day, counted.what, counted.status_code, -counted.total)
    recent = select(null(), _changes.day, _changes.what, _changes.status_code, -_changes.change)
    return _differences(there, folded, recent.where(_changes.day.is_not(None)))


def _no_code() -> ColumnElement[int]:
    return cast(NO_CODE, tally_changes.c.status_code.type)


def _differences(*parts: Select[Any]) -> Select[Any]:
    both = union_all(*parts).subquery("compared")
    keys = [both.c.company_id, both.c.day, both.c.what, both.c.status_code]
    return select(*keys, func.sum(both.c.n)).group_by(*keys).having(func.sum(both.c.n) != 0)


def _mend(connection: Connection, differences: Select[Any]) -> int:
    wrong = {
        (company_id, day, what, code): int(n)
        for company_id, day, what, code, n in connection.execute(differences)
    }
    tally.add(connection, wrong)
    return len(wrong)


def _recount_open(connection: Connection, company_id: str) -> int:
    tally.lock(connection, [company_id])
    found = tally.found_open(connection, company_id)
    stored = tally.stored_open(connection, company_id)
    tally.make_open(connection, company_id, stored, found)
    counted = of_companies(connection, [company_id]).get(company_id, Counter())[OPEN_FAILURES]
    missing = len(found) + _nameless(connection, company_id) - counted
    tally.add(connection, {(company_id, None, OPEN_FAILURES, NO_CODE): missing})
    return (missing != 0) + (found != stored)


def _nameless(connection: Connection, company_id: str) -> int:
    """Failed rows that name no transaction: nothing can ever cure them."""
    statement = (
        select(func.count())
        .select_from(transactions.join(syncs, syncs.c.id == transactions.c.sync))
        .where(syncs.c.company_id == company_id, syncs.c.failed > 0)
        .where(transactions.c.failed.is_(True), transactions.c.transaction_id.is_(None))
    )
    return connection.execute(statement).scalar_one()
