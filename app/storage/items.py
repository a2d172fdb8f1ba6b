"""The item rows of a sync: written as a whole set, never row by row."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, select

from app.rules.items import is_failing
from app.rules.messages import correlation_id
from app.rules.news import Item
from app.storage.bulk import insert_all
from app.storage.tables import transactions

_AS_TOLD = ("transaction_id", "status", "message", "integration_type")


def are_kept(connection: Connection, sync: int, items: Sequence[Item]) -> bool:
    """True when exactly these rows, in this order, are what the sync has."""
    kept = connection.execute(
        select(*(transactions.c[name] for name in _AS_TOLD))
        .where(transactions.c.sync == sync)
        .order_by(transactions.c.position)
    )
    return [tuple(row) for row in kept] == [
        tuple(getattr(item, name) for name in _AS_TOLD) for item in items
    ]


def replace_items(
    connection: Connection,
    sync: int,
    items: Sequence[Item],
) -> None:
    """Put these rows in place of all the sync has, in the order Codat lists them."""
    connection.execute(delete(transactions).where(transactions.c.sync == sync))
    insert_items(connection, {sync: items})


def insert_items(connection: Connection, items: Mapping[int, Sequence[Item]]) -> None:
    """Write the rows of these syncs, which have none yet."""
    insert_all(
        connection,
        transactions,
        [_row(sync, n, item) for sync, rows in items.items() for n, item in enumerate(rows)],
    )


def _row(sync: int, position: int, item: Item) -> dict[str, Any]:
    return {
        "sync": sync,
        "position": position,
        "transaction_id": item.transaction_id,
        "integration_type": item.integration_type,
        "status": item.status,
        "message": item.message,
        "failed": is_failing(item.status),
        "correlation_id": correlation_id(item.message),
    }
