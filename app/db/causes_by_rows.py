"""Counts failures by cause from their rows, in a range that is not one of whole days.

Only failed transactions, and syncs that failed as a whole, are looked at; never the whole history.
"""

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    String,
    Text,
    case,
    cast,
    distinct,
    exists,
    func,
    null,
    or_,
    select,
    union_all,
)

from app.db.causes_counted import CauseFilter, Counted
from app.db.queries.syncs import OWN_TIME, within
from app.db.queries.transactions import OPEN
from app.db.tables import open_failures, syncs, transactions
from app.db.types import Key

_WHY = (transactions.c.cause, transactions.c.fingerprint)
# Asked first, because most failures are cured and it is ten times as quick to see.
_MAY_BE_OPEN = or_(
    transactions.c.transaction_id.is_(None),
    exists().where(
        open_failures.c.company_id == syncs.c.company_id,
        open_failures.c.transaction_id == transactions.c.transaction_id,
    ),
)


def by_rows(connection: Connection, wanted: CauseFilter) -> list[Counted]:
    """The wanted failures of each cause, and of each of its messages."""
    failing = _failures(wanted)
    cause, fingerprint = failing.c.cause, failing.c.fingerprint
    wholes = _counted(failing, cast(null(), Text)).group_by(cause)
    parts = _counted(failing, fingerprint).group_by(cause, fingerprint)
    return [Counted(*row) for row in connection.execute(union_all(wholes, parts))]


def _counted(failing: CTE, fingerprint: ColumnElement[Any]) -> Select[Any]:
    """The columns of Counted in its order."""
    each, is_open = failing.c.whose, failing.c.open == 1
    return select(
        failing.c.cause,
        fingerprint,
        func.count(distinct(each)),
        func.count(distinct(case((is_open, each)))),
        func.count(distinct(failing.c.sync)),
        func.count(distinct(failing.c.company_id)),
    )


def _failures(wanted: CauseFilter) -> CTE:
    """Every wanted failure as one row: of a transaction, or of a sync as a whole."""
    whose = func.coalesce(transactions.c.transaction_id, cast(transactions.c.id, String))
    items = (
        select(
            *_WHY,
            syncs.c.company_id,
            (syncs.c.company_id + " " + whose).label("whose"),
            case((_MAY_BE_OPEN, case((OPEN, 1), else_=0)), else_=0).label("open"),
            cast(null(), Key).label("sync"),
        )
        .join_from(syncs, transactions, transactions.c.sync == syncs.c.id)
        .where(syncs.c.failed > 0, *(each.is_not(None) for each in _WHY))
    )
    wholes = select(
        syncs.c.cause,
        syncs.c.fingerprint,
        syncs.c.company_id,
        cast(null(), Text),
        cast(null(), Key),
        syncs.c.id,
    ).where(syncs.c.cause.is_not(None), syncs.c.fingerprint.is_not(None))
    items = items.where(*_conditions(wanted, transactions.c.cause))
    wholes = wholes.where(*_conditions(wanted, syncs.c.cause))
    return union_all(items, wholes).cte("failing")


def _conditions(wanted: CauseFilter, cause: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    conditions = within(OWN_TIME, wanted.since, wanted.until)
    if wanted.company_id is not None:
        conditions.append(syncs.c.company_id == wanted.company_id)
    if wanted.cause is not None:
        conditions.append(cause == wanted.cause)
    return conditions
