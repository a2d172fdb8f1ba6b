"""Counts anew from the rows, and mends what is counted ahead."""

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    bindparam,
    cast,
    func,
    null,
    select,
    union,
    union_all,
    update,
)

from app.db import counted, journal, refiled, tally
from app.db.bulk import write
from app.db.counted import CODE, DAY
from app.db.engine import Database
from app.db.tables import (
    companies,
    company_tallies,
    day_tallies,
    open_failures,
    syncs,
    tally_changes,
    transactions,
)
from app.db.tables_counted import NO_CODE, OPEN_FAILURES

_changes = tally_changes.c


def recount(database: Database) -> int:
    """Compare what is counted with the rows and mend it; how many counters were wrong.

    Nobody has to stop for it: a correction is a change like others, worked out by one statement,
    what the journal holds included (syncs), or under the company's lock (failures).
    """
    journal.work_off(database)
    with database.writing() as connection:
        _no_hurry(connection)
        refiled.alone(connection)
        _fold_names(connection)
        right = update(syncs).where(syncs.c.day.is_distinct_from(DAY)).values(day=DAY)
        connection.execute(right)
        recent = counted.recent(connection).c
        wrong = _mend(connection, _by_company(recent)) + _mend(connection, _by_day(recent))
    with database.reading() as connection:
        company_ids = sorted(connection.execute(_with_failures()).scalars())
    for company_id in company_ids:
        wrong += _recount_failures(database, company_id)
    with database.writing() as connection:
        _no_hurry(connection)
        wrong += refiled.mend_totals(connection)
    return wrong


def _fold_names(connection: Connection) -> None:
    """What an old version of this code named while it ran beside us."""
    named = select(companies.c.company_id, companies.c.name, companies.c.name_folded)
    wrong = [
        {"own_id": row.company_id, "folded": row.name.casefold()}
        for row in connection.execute(named.where(companies.c.name.is_not(None)))
        if row.name_folded != row.name.casefold()
    ]
    if wrong:
        fold = update(companies).where(companies.c.company_id == bindparam("own_id"))
        connection.execute(fold.values(name_folded=bindparam("folded")), wrong)


def _with_failures() -> CompoundSelect[Any]:
    """The companies that have failures, or are said to."""
    return union(
        select(syncs.c.company_id).where(syncs.c.failed > 0),
        select(syncs.c.company_id).where(syncs.c.cause.is_not(None)),
        *(select(each.c.company_id) for each in (open_failures, *refiled.BY_COMPANY)),
        select(company_tallies.c.company_id).where(_counts_open(company_tallies.c)),
        select(_changes.company_id).where(_counts_open(_changes)),
    )


def _no_hurry(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")


def _counts_open(columns: Any) -> ColumnElement[bool]:
    counts: ColumnElement[bool] = columns.what == OPEN_FAILURES
    return counts


def _by_company(recent: Any) -> Select[Any]:
    """By how much each company's counted syncs are wrong."""
    there = select(
        syncs.c.company_id, null().label("day"), syncs.c.outcome.label("what"),
        _no_code().label("status_code"), func.count().label("n"),
    ).group_by(syncs.c.company_id, syncs.c.outcome)  # fmt: skip
    tallies = company_tallies.c
    folded = select(tallies.company_id, null(), tallies.what, _no_code(), -tallies.total)
    more = select(recent.company_id, null(), recent.what, _no_code(), -recent.change)
    return _differences(
        there,
        folded.where(~_counts_open(tallies)),
        more.where(~_counts_open(recent), recent.company_id.is_not(None)),
    )


def _by_day(recent: Any) -> Select[Any]:
    """By how much each day's counted syncs are wrong."""
    there = select(
        null().label("company_id"), DAY.label("day"), syncs.c.outcome.label("what"),
        CODE.label("status_code"), func.count().label("n"),
    ).group_by(DAY, syncs.c.outcome, CODE)  # fmt: skip
    tallies = day_tallies.c
    folded = select(null(), tallies.day, tallies.what, tallies.status_code, -tallies.total)
    more = select(null(), recent.day, recent.what, recent.status_code, -recent.change)
    return _differences(there, folded, more.where(recent.day.is_not(None)))


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
    write(connection, tally.added(wrong))
    return len(wrong)


def _recount_failures(database: Database, company_id: str) -> int:
    """A part at a time, so that nobody waits long for the company."""
    with database.reading() as connection:
        parts = refiled.parts_of(connection, company_id)
    wrong = sum(_held(database, company_id, partial(refiled.refile_part, each)) for each in parts)
    return wrong + _held(database, company_id, _recount_open)


def _held(database: Database, company_id: str, step: Callable[[Connection, str], int]) -> int:
    """A step that holds the company's lock, and how much was wrong.

    What came in since the journal was worked off is counted here too, and was not wrong.
    """
    with database.writing() as connection:
        _no_hurry(connection)
        tally.lock(connection, [company_id])
        wrong = step(connection, company_id)
        return 0 if wrong and journal.speaks_of(connection, company_id) else wrong


def _recount_open(connection: Connection, company_id: str) -> int:
    """The company's sums, when all of its failures are filed."""
    stored = select(func.count()).where(open_failures.c.company_id == company_id)
    named = connection.execute(stored).scalar_one()
    missing = named + _nameless_less_counted(connection, company_id)
    write(connection, tally.added({(company_id, None, OPEN_FAILURES, NO_CODE): missing}))
    return (missing != 0) + refiled.mend_sums(connection, company_id)


def _nameless_less_counted(connection: Connection, company_id: str) -> int:
    """Failed rows that name no transaction, which nothing can ever cure, less all that is counted.

    One statement, as new rows and what the journal says of them appear together.
    """
    nameless = (
        select(func.count())
        .select_from(transactions.join(syncs, syncs.c.id == transactions.c.sync))
        .where(syncs.c.company_id == company_id, syncs.c.failed > 0)
        .where(transactions.c.failed.is_(True), transactions.c.transaction_id.is_(None))
    )
    totals = counted.by_company(connection, [company_id]).subquery("totals").c
    open_now = select(func.coalesce(func.sum(totals.total), 0)).where(_counts_open(totals))
    less = nameless.scalar_subquery() - open_now.scalar_subquery()
    return int(connection.execute(select(less)).scalar_one())
