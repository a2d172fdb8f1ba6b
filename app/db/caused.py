"""Syncs and transactions by the cause of their failure, in any order.

Two ways lead there. Where few syncs have the cause they are looked up and sorted. Where many have
it, the first page is found sooner by walking in the wanted order and looking at each sync. The
planner cannot tell which is shorter; a short count can.
"""

from sqlalchemy import ColumnElement, Connection, or_, select, union_all

from app.db.rare import few, no_more
from app.db.tables import syncs, transactions

FEW = 10_000
FEW_ITEMS = 100  # each is asked what became of it


def caused_by(connection: Connection, cause: str) -> ColumnElement[bool]:
    """Holds for a sync with a failed transaction of this cause, or that failed of it as a whole."""
    whole = syncs.alias("whole")
    mine = select(transactions.c.sync).where(transactions.c.cause == cause)
    as_a_whole = select(whole.c.id).where(whole.c.cause == cause)
    if no_more(connection, FEW, mine, as_a_whole):
        return syncs.c.id.in_(union_all(mine, as_a_whole))
    # as EXISTS, which the planner would turn into the other way
    has_one = mine.where(transactions.c.sync == syncs.c.id).limit(1).correlate(syncs)
    return or_(syncs.c.cause == cause, has_one.scalar_subquery().is_not(None))


def items_caused_by(connection: Connection, cause: str) -> list[ColumnElement[bool]]:
    """The conditions on `transactions` joined to `syncs` for those that failed of this cause."""
    caused = transactions.c.cause == cause
    its_syncs = select(transactions.c.sync).where(caused)
    if few(connection, its_syncs, FEW_ITEMS):
        return [caused, syncs.c.id.in_(its_syncs)]
    return [caused]
