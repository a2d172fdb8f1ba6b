"""The item rows of a sync: written as a whole set, never row by row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete

from app.db.bulk import Write, insertion, write
from app.db.engine import rules_of
from app.db.tables import transactions
from app.db.tally import Items
from app.db.why import why
from app.domain.causes.classifier import Rules
from app.domain.correlation import correlation_id
from app.domain.models import Item
from app.domain.transactions import is_failing


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
    write(connection, listed(connection, {sync: items}, {sync: status_code}))


def named(items: Sequence[Item]) -> Items:
    """What the tally must know of these rows."""
    failing = {status for status in {item.status for item in items} if is_failing(status)}
    return Items.of((item.transaction_id, item.status in failing) for item in items)


def listed(
    connection: Connection,
    items: Mapping[int, Sequence[Item]],
    status_codes: Mapping[int, int | None],
) -> Write:
    """The rows of these syncs, which have none yet, as they are to be written."""
    rules = rules_of(connection)
    rows = [
        row
        for sync, listed in items.items()
        for row in _rows(rules, sync, listed, status_codes[sync])
    ]
    return insertion(transactions, rows)


def _rows(
    rules: Rules, sync: int, items: Sequence[Item], status_code: int | None
) -> Iterator[dict[str, Any]]:
    """Of thousands of items most say the same: that is judged once."""
    known: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for position, item in enumerate(items):
        says = (item.status, item.message, item.integration_type)
        if says not in known:
            known[says] = _told(item) | why(rules, item, status_code=status_code)
        own = {"sync": sync, "position": position, "transaction_id": item.transaction_id}
        yield own | known[says]


def _told(item: Item) -> dict[str, Any]:
    return {
        "integration_type": item.integration_type,
        "status": item.status,
        "message": item.message,
        "failed": is_failing(item.status),
        "correlation_id": correlation_id(item.message),
    }
