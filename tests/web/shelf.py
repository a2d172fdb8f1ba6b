"""Puts syncs, transactions and the rest straight into the tables, for tests that read."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert

from app.db.engine import Database, rules_of
from app.db.sync_rows import to_row
from app.db.tables import companies, events, fetches, notes, syncs, transactions
from app.db.tally import Items, Tally
from app.db.transaction_rows import named
from app.db.why import why
from app.domain.models import Item
from app.domain.sync_state import Heard, Sync
from app.domain.transactions import Counts, count, is_failing

T0 = datetime(2026, 1, 1, 9, tzinfo=UTC)
NOW = T0 + timedelta(hours=3)
KEY = "a-key-of-enough-length"
BEARER = {"Authorization": f"Bearer {KEY}"}


def after(**passed: float) -> datetime:
    """T0 and some more."""
    return T0 + timedelta(**passed)


def failed_item(transaction_id: str | None = "t1", message: str = "Account is closed") -> Item:
    return Item(transaction_id, "PushError", message, "expenses")


def done_item(transaction_id: str | None = "t1") -> Item:
    return Item(transaction_id, "Completed", None, "expenses")


class Shelf:
    """Keeps made-up syncs in a database; every method commits."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def company(self, company_id: str = "c1", name: str | None = None) -> None:
        folded = name.casefold() if name is not None else None
        self._put(companies, company_id=company_id, name=name, name_folded=folded)

    def sync(
        self,
        sync_id: str = "s1",
        company_id: str = "c1",
        *,
        items: tuple[Item, ...] | None = None,
        code: int | None = None,
        at: datetime | None = T0,
        updated_at: datetime = T0,
        **more: Any,
    ) -> int:
        """Keep a sync that Codat has settled with this code; returns its number."""
        told: dict[str, Any] = {"heard": Heard.STARTED, "first_seen_at": T0, "started_at": at}
        if code:
            told |= {"asked_at": T0, "codat_utc": at, "status_code": code}
        if items is not None:
            told |= _listed(items)
        sync = Sync(company_id=company_id, sync_id=sync_id, **told | more)
        values = to_row(sync, updated_at=updated_at, rules=self.database.rules)
        tally = Tally()
        with self.database.writing() as connection:
            made = connection.execute(insert(syncs).returning(syncs.c.id), values)
            number: int = made.scalar_one()
            _put_items(connection, number, items or ())
            tally.sync(number, None, values)
            tally.items(company_id, Items(), named(items or ()))
            tally.touch_sync(company_id, sync_id)
            tally.write(connection)
        return number

    def failed(self, sync_id: str = "s1", company_id: str = "c1", **more: Any) -> int:
        """Keep a sync whose only transaction failed, unless told otherwise."""
        told: dict[str, Any] = {"code": 5130, "items": (failed_item(),)}
        return self.sync(sync_id, company_id, **told | more)

    def done(self, sync_id: str = "s1", company_id: str = "c1", **more: Any) -> int:
        """Keep a sync whose only transaction was written, unless told otherwise."""
        told: dict[str, Any] = {"code": 2000, "items": (done_item(),)}
        return self.sync(sync_id, company_id, **told | more)

    def fetch(self, number: int, state: str = "owed", **more: Any) -> None:
        self._put(fetches, **{"sync": number, "state": state, "wanted": 1, "attempts": 0} | more)

    def note(self, number: int, at: datetime, kind: str = "fetch", reason: str = "asked") -> None:
        self._put(notes, sync=number, at=at, kind=kind, reason=reason)

    def event(self, message_id: str, **more: Any) -> None:
        told = {"received_at": T0, "event": "sync.failed", "event_type": "SyncFailed"}
        self._put(events, **{"message_id": message_id, "reading": "ok"} | told | more)

    def _put(self, table: Any, **values: Any) -> None:
        with self.database.writing() as connection:
            connection.execute(table.insert(), values)


def _listed(items: tuple[Item, ...]) -> dict[str, Any]:
    counts: Counts = count(items)
    return {
        "items_from": "codat",
        "items_complete": counts.pending == 0,
        "counts": counts,
        "expected": counts.total,
        "fetched_at": T0,
    }


def _put_items(connection: Connection, number: int, items: tuple[Item, ...]) -> None:
    rows = [
        {
            "sync": number,
            "position": position,
            "transaction_id": item.transaction_id,
            "integration_type": item.integration_type,
            "status": item.status,
            "message": item.message,
            "failed": is_failing(item.status),
            "correlation_id": f"corr-{item.transaction_id}" if is_failing(item.status) else None,
            **why(rules_of(connection), item, status_code=None),
        }
        for position, item in enumerate(items)
    ]
    if rows:
        connection.execute(transactions.insert(), rows)
