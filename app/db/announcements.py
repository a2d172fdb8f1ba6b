"""What we tell others, and when: each message is owed in the transaction that made it true.

A finished sync is told once Codat itself has answered, never on the word of a webhook alone. It is
told again only when its outcome or its failed transactions have become others. Nothing is owed when
nobody is to be told.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update

from app.db import change_feed as changes
from app.db.engine import rules_of
from app.db.outgoing import owe, recipients, said_lately
from app.db.queries import transactions as queries_items
from app.db.queries.transactions import ItemFilter, KeptItem
from app.db.sync_rows import to_row
from app.db.tables import syncs
from app.domain.models import Item
from app.domain.outgoing import Kind, as_json
from app.domain.sync_state import ErrorsState, FetchState, Sync, errors_state
from app.domain.transactions import is_failing
from app.errors import Conflicting

MOST_FAILED = 1000  # in one `sync.failed`; all of them are in the API
SAME_CLICK = timedelta(seconds=60)
_ITEM = ("transaction_id", "integration_type", "status", "message", "cause", "correlation_id")
_SAYS = ("transaction_id", "integration_type", "status", "message")
_KNOWN: tuple[ErrorsState, ...] = ("fetched", "incomplete", "given_up")


def take_turn(connection: Connection, company_id: str) -> None:
    """One answer of a company after the other, so that none misses what another one cures."""
    if connection.dialect.name != "sqlite" and recipients(connection).webhooks:
        lock = func.pg_advisory_xact_lock(func.hashtextextended(company_id, 0))
        connection.execute(select(lock))


def ended(connection: Connection, number: int, sync: Sync, fetch: FetchState, at: datetime) -> None:
    """Owe the news that a sync has ended, when it is known how, and was not told yet."""
    to = recipients(connection).webhooks
    errors = errors_state(sync, fetch)
    kind = _kind(sync, errors)
    if not to or kind is None:
        return
    failed = _failed(connection, number, MOST_FAILED) if kind == "sync.failed" else []
    says = [kind, errors, sync.outcome, sync.status_code, *(_some(each, _SAYS) for each in failed)]
    content = _digest(says)
    if (
        connection.execute(select(syncs.c.announced).where(syncs.c.id == number)).scalar()
        == content
    ):
        return
    told = _sync(connection, sync, at) | {"errors": errors}
    if kind == "sync.failed":
        told["failed_transactions"] = _listed(failed) if sync.counts else None
    owe(connection, kind, told, at, to=to, sync=number, content=content)
    connection.execute(update(syncs).where(syncs.c.id == number).values(announced=content))


def _kind(sync: Sync, errors: ErrorsState) -> Kind | None:
    """Nothing while Codat must still be asked, unless it failed and was listed or given up."""
    if sync.state == "failed" and errors in _KNOWN:
        return "sync.failed"
    return "sync.completed" if sync.state == "completed" and errors == "not_needed" else None


def _sync(connection: Connection, sync: Sync, at: datetime) -> dict[str, Any]:
    seen = changes.told(to_row(sync, updated_at=at, rules=rules_of(connection)))
    return {"company_id": sync.company_id, "sync_id": sync.sync_id, **seen}


def _failed(connection: Connection, number: int, most: int) -> list[KeptItem]:
    page = queries_items.list_items(connection, number, ItemFilter(failed=True), limit=most)
    return page.items


def _listed(items: Iterable[KeptItem]) -> list[dict[str, Any]]:
    return [_some(each, (*_ITEM, "cured_by")) for each in items]


def _some(item: KeptItem, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(item, name) for name in names}


def _digest(says: Any) -> str:
    return hashlib.sha256(as_json(says).encode()).hexdigest()


def cured(
    connection: Connection,
    number: int,
    sync: Sync,
    before: Sequence[Item],
    after: Sequence[Item],
    at: datetime,
) -> None:
    """Owe the news of each transaction that failed earlier and is completed by this sync."""
    to = recipients(connection).webhooks
    written = sorted(_completed(after) - _completed(before)) if to else []
    by_id: defaultdict[str, list[KeptItem]] = defaultdict(list)
    for item in queries_items.cured_by(connection, sync.company_id, sync.sync_id, written):
        by_id[item.transaction_id or ""].append(item)
    for transaction_id, items in by_id.items():
        told = {
            "company_id": sync.company_id,
            "transaction_id": transaction_id,
            "cured_by": sync.sync_id,
            "failed_in": [_some(each, ("sync_id", *_ITEM[1:], "at")) for each in items],
        }
        owe(connection, "transaction.cured", told, at, to=to, sync=number)


def _completed(items: Iterable[Item]) -> set[str]:
    """The transactions all of whose rows are completed."""
    found: set[str] = set()
    not_all: set[str] = set()
    for item in items:
        if item.transaction_id is None:
            continue
        done = (item.status or "").strip().lower() == "completed"
        (found if done and not is_failing(item.status) else not_all).add(item.transaction_id)
    return found - not_all


def alert(
    connection: Connection,
    kind: Kind,
    row: Mapping[str, Any],
    at: datetime,
) -> None:
    """Owe the news that an alert was opened or resolved, to programs and to people."""
    to = recipients(connection)
    names = ("cause", "text", "opened_at", "resolved_at")
    told = {name: row.get(name) for name in names} | {"company_id": row["company_id"] or None}
    owe(connection, kind, told, at, to=(*to.webhooks, *to.words))


@dataclass(frozen=True, slots=True)
class Requested:
    """A retry that is on its way: its message, how many transactions, asked for just before?"""

    message_id: str
    transactions: int
    again: bool


def request_retry(
    connection: Connection, number: int, sync: Sync, at: datetime, *, to: str
) -> Requested:
    """Owe `retry.requested` with the failed transactions that no later sync has completed.

    The same transactions asked for again within a minute are one request. Raises Conflicting when
    there is nothing to retry.
    """
    one = select(syncs.c.id).where(syncs.c.id == number)
    connection.execute(one.with_for_update(key_share=True))
    failed = [each for each in queries_items.failed_items(connection, number) if not each.cured_by]
    if not failed:
        raise Conflicting("no transaction of this sync failed, or later syncs completed them all")
    content = _digest([_some(each, _SAYS) for each in failed])
    known = said_lately(connection, number, "retry.requested", content, at - SAME_CLICK)
    if known:
        return Requested(known, len(failed), again=True)
    told = _sync(connection, sync, at) | {"failed_transactions": _listed(failed)}
    message_id = owe(
        connection, "retry.requested", told, at, to=(to,), sync=number, content=content
    )
    return Requested(message_id, len(failed), again=False)
