"""Which failed rows of a sync are still open: no later sync has completed their transaction."""

from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, case, exists, func, or_, select, tuple_

from app.db.tables import failed_transactions, syncs, transactions

_failure = failed_transactions.c
_later = syncs.alias("later_sync")
_row = transactions.alias("later_row")
_rest = transactions.alias("rest_of_later_sync")


def _status(row: FromClause) -> ColumnElement[Any]:
    return func.coalesce(func.lower(func.trim(row.c.status)), "")


_HAS_UNCOMPLETED_ROW = (
    exists()
    .where(
        _rest.c.sync_pk == _row.c.sync_pk,
        _rest.c.transaction_id == _row.c.transaction_id,
        _status(_rest) != "completed",
    )
    .correlate(_row)
)
# One inside the other, so that both databases find the rows first, and the sync of each by its key.
_IS_LATER = (
    exists()
    .where(
        _later.c.id == _row.c.sync_pk,
        _later.c.company_id == syncs.c.company_id,
        tuple_(_later.c.occurred_at, _later.c.id) > tuple_(syncs.c.occurred_at, syncs.c.id),
    )
    .correlate(_row, syncs)
)
_WAS_COMPLETED = (
    exists()
    .where(
        _row.c.transaction_id == transactions.c.transaction_id,
        _status(_row) == "completed",
        _IS_LATER,
        ~_HAS_UNCOMPLETED_ROW,
    )
    .correlate(transactions, syncs)
)
IS_OPEN = and_(
    transactions.c.failed.is_(True),
    _failure.resolved_by.is_(None),
    # A transaction that failed again later may have been completed in between.
    or_(
        _failure.sync_pk.is_(None),
        _failure.sync_pk == transactions.c.sync_pk,
        ~_WAS_COMPLETED,
    ),
)
"""A row is open, in a statement that joins its sync, and outer joins by `OF_TRANSACTION`."""

OF_TRANSACTION = and_(
    _failure.company_id == syncs.c.company_id,
    _failure.transaction_key == transactions.c.transaction_id,
)
"""How `failed_transactions` is joined to the rows of a sync."""


def count_open() -> ColumnElement[Any]:
    """The number of open rows of the sync in the surrounding statement; NULL without a list."""
    counted = (
        select(func.count())
        .select_from(transactions.outerjoin(failed_transactions, OF_TRANSACTION))
        .where(transactions.c.sync_pk == syncs.c.id, IS_OPEN)
        .correlate(syncs)
        .scalar_subquery()
    )
    return case((syncs.c.failed > 0, counted), else_=syncs.c.failed)
