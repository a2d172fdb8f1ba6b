"""The item rows of a sync: written as a whole set, never row by row."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, delete

from app.rules.causes import classify, correlation_id
from app.rules.news import Item
from app.rules.sync import is_failing
from app.storage.database import chunked
from app.storage.tables import transactions

Classifier = Callable[[Item, int | None], str | None]


def cause_of(item: Item, status_code: int | None) -> str | None:
    """The code of a failed item's cause; None for an item that did not fail."""
    if not is_failing(item.status):
        return None
    return classify(
        status_code=status_code,
        item_status=item.status,
        message=item.message,
        integration_type=item.integration_type,
    ).code


def replace_items(
    connection: Connection,
    sync: int,
    items: Sequence[Item],
    status_code: int | None,
    cause: Classifier = cause_of,
) -> None:
    """Put these rows in place of all the sync has, in the order Codat lists them."""
    connection.execute(delete(transactions).where(transactions.c.sync == sync))
    rows = [_row(sync, n, item, cause(item, status_code)) for n, item in enumerate(items)]
    for some in chunked(rows):
        connection.execute(transactions.insert(), some)


def _row(sync: int, position: int, item: Item, cause: str | None) -> dict[str, Any]:
    return {
        "sync": sync,
        "position": position,
        "transaction_id": item.transaction_id,
        "integration_type": item.integration_type,
        "status": item.status,
        "message": item.message,
        "failed": is_failing(item.status),
        "correlation_id": correlation_id(item.message) if item.message else None,
        "cause": cause,
    }
