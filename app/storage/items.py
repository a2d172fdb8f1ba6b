"""The item rows of a sync: written as a whole set, never row by row."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, select

from app.rules.causes import Rules
from app.rules.fingerprint import fingerprint
from app.rules.items import is_failing
from app.rules.messages import correlation_id
from app.rules.news import Item
from app.storage.bulk import insert_all
from app.storage.database import rules_of
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
    *,
    status_code: int | None = None,
) -> None:
    """Put these rows in place of all the sync has, in the order Codat lists them.

    The sync's status code tells the cause of failed rows whose message does not.
    """
    connection.execute(delete(transactions).where(transactions.c.sync == sync))
    insert_items(connection, {sync: items}, {sync: status_code})


def insert_items(
    connection: Connection,
    items: Mapping[int, Sequence[Item]],
    status_codes: Mapping[int, int | None],
) -> None:
    """Write the rows of these syncs, which have none yet."""
    rules = rules_of(connection)
    rows = [
        _row(sync, n, item) | why(rules, item, status_code=status_codes[sync])
        for sync, listed in items.items()
        for n, item in enumerate(listed)
    ]
    insert_all(connection, transactions, rows)


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


def why(rules: Rules, item: Item, *, status_code: int | None) -> dict[str, str | None]:
    """The columns that say why a row failed; all null for a row that did not."""
    cause = rules.of_transaction(
        item.message,
        status=item.status,
        integration_type=item.integration_type,
        status_code=status_code,
    )
    return because(rules, cause, item.message)


def because(rules: Rules, cause: str | None, message: str | None) -> dict[str, str | None]:
    """The columns of a cause, on a transaction or on a sync."""
    if cause is None:
        return dict.fromkeys(("cause", "fingerprint", "cause_rules"))
    return {"cause": cause, "fingerprint": fingerprint(message), "cause_rules": rules.version}
