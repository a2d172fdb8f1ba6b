"""The feed of changes: each change of a sync or a transaction once, in one order, resumable.

A change is written in the transaction that makes it. On PostgreSQL an id is given before the
commit, so a higher id may become visible before a lower one, and who reads by id alone would skip
the latter. So a change also carries the number of its transaction, the order is (transaction, id),
and readers see only transactions older than the oldest that still runs: nothing can come in behind
them. SQLite has one writer at a time; there the transaction is always 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Text,
    cast,
    delete,
    func,
    literal_column,
    select,
)

from app.db.bulk import Write, insertion
from app.db.engine import insert
from app.db.pagination import Order, cursor_at, read_page
from app.db.tables import transactions
from app.db.tables_told import changes, feeds
from app.domain.correlation import correlation_id
from app.domain.models import Item
from app.domain.status_codes import seen_stage, status_text
from app.domain.sync_state import Sync
from app.domain.transactions import is_failing
from app.errors import BadRequest

ChangeKind = Literal["sync", "transaction"]

_ORDER = Order("changes", (changes.c.txid, changes.c.id))
_SAME = (
    "state",
    "outcome",
    "status_code",
    "failure_stage",
    "error_message",
    "exception_message",
    "data_pushed",
    "started_at",
    "finished_at",
    "first_seen_at",
)
_COUNTED = ("total", "completed", "failed", "pending", "other", "expected")
_AS_TOLD = ("transaction_id", "status", "message", "integration_type")
_FORGET_AT_ONCE = 1000
_LIFT = literal_column("coalesce((SELECT lift FROM feeds WHERE name = 'changes'), 0)", BigInteger)
_THIS = cast(cast(func.pg_current_xact_id(), Text), BigInteger) + _LIFT
_OLDEST = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger) + _LIFT


class Change(NamedTuple):
    """One change: what the sync, or the transaction in this sync, is from now on."""

    kind: ChangeKind
    company_id: str
    sync_id: str
    transaction_id: str | None
    at: datetime
    told: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeptChange:
    """A change as it is read: `told` is JSON, `cursor` the place right after it."""

    cursor: str
    kind: ChangeKind
    company_id: str
    sync_id: str
    transaction_id: str | None
    at: datetime
    told: str


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Some changes, and the cursor of those after them (None when there are none yet)."""

    items: list[KeptChange]
    next: str | None


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """What others see of a sync's row, without what is only about our own asking."""
    seen = {name: row[name] for name in _SAME}
    seen["failure_stage"] = seen_stage(row["state"], row["failure_stage"])
    seen["status_text"] = status_text(row["status_code"])
    seen["transactions"] = {name: row[name] for name in _COUNTED}
    return seen


def of_sync(before: RowMapping | None, after: Mapping[str, Any], at: datetime) -> list[Change]:
    """The change of a sync from one row to another, unless both look the same."""
    if before is not None and all(before[name] == after[name] for name in (*_SAME, *_COUNTED)):
        return []
    return [Change("sync", after["company_id"], after["sync_id"], None, at, told(after))]


def of_items(
    sync: Sync, before: Iterable[Item], after: Iterable[Item], at: datetime
) -> list[Change]:
    """The changes of a sync's transactions: of each whose rows differ, all the rows it has now."""
    was, now = _by_id(before), _by_id(after)
    return [
        Change("transaction", sync.company_id, sync.sync_id, transaction_id, at, {"rows": rows})
        for transaction_id in (was | now)
        if (rows := now.get(transaction_id, [])) != was.get(transaction_id, [])
    ]


def _by_id(items: Iterable[Item]) -> dict[str | None, list[dict[str, Any]]]:
    """Rows that say the same are one object, made once."""
    found: dict[str | None, list[dict[str, Any]]] = {}
    known: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for item in items:
        says = (item.status, item.message, item.integration_type)
        if says not in known:
            known[says] = _row(item)
        found.setdefault(item.transaction_id, []).append(known[says])
    return found


def _row(item: Item) -> dict[str, Any]:
    return {
        "integration_type": item.integration_type,
        "status": item.status,
        "message": item.message,
        "failed": is_failing(item.status),
        "correlation_id": correlation_id(item.message),
    }


def kept_items(connection: Connection, number: int) -> list[Item]:
    """The rows a sync has now, in Codat's order."""
    rows = connection.execute(
        select(*(transactions.c[name] for name in _AS_TOLD))
        .where(transactions.c.sync == number)
        .order_by(transactions.c.position)
    )
    return [Item(*row) for row in rows]


def written(changed: Sequence[Change]) -> Write:
    """These changes, in their order, as they are to be written."""
    rows = [
        {
            "txid": 0,
            "at": each.at,
            "kind": each.kind,
            "company_id": each.company_id,
            "sync_id": each.sync_id,
            "transaction_id": each.transaction_id,
            "told": orjson.dumps(each.told, option=orjson.OPT_UTC_Z).decode(),
        }
        for each in changed
    ]
    return insertion(changes, rows, txid=_THIS)


def read_changes(connection: Connection, after: str | None, limit: int) -> ChangePage:
    """Up to `limit` changes after a cursor, oldest first; from the oldest kept one without it.

    Raises BadRequest naming `after`.
    """
    statement = select(changes).where(_settled(connection))
    try:
        page = read_page(connection, statement, _ORDER, cursor=after, limit=limit)
    except BadRequest as error:
        raise BadRequest("after", error.reason) from None
    names = KeptChange.__slots__[1:]
    items = [
        KeptChange(cursor_at(_ORDER, row), **{name: row[name] for name in names})
        for row in page.rows
    ]
    return ChangePage(items, page.next)


def _settled(connection: Connection) -> ColumnElement[bool]:
    """Nothing that is not there yet can come to lie before these."""
    if connection.dialect.name == "sqlite":
        return changes.c.txid == 0
    return changes.c.txid < _OLDEST


def forget_changes(connection: Connection, before: datetime) -> int:
    """Forget up to a thousand changes made before a time, the oldest first; returns how many."""
    oldest = (
        select(changes.c.id, changes.c.at)
        .order_by(changes.c.txid, changes.c.id)
        .limit(_FORGET_AT_ONCE)
        .subquery()
    )
    gone = connection.execute(
        delete(changes)
        .where(changes.c.id.in_(select(oldest.c.id).where(oldest.c.at < before)))
        .returning(changes.c.id)
    )
    return len(gone.scalars().all())


def go_on(connection: Connection) -> None:
    """Keep the order after the changes were moved to another PostgreSQL.

    There the numbers of transactions start anew: they are lifted above all that was kept.
    """
    if connection.dialect.name == "sqlite":
        return
    last = connection.execute(select(func.max(changes.c.txid))).scalar()
    this = connection.execute(select(_THIS)).scalar_one()
    if last is None or last < this:
        return
    lift = connection.execute(select(_LIFT)).scalar_one() + last + 1 - this
    connection.execute(
        insert(connection, feeds).on_conflict_do_update(
            index_elements=["name"], set_={"lift": lift}
        ),
        {"name": "changes", "lift": lift},
    )
