"""Stores syncs, companies and webhooks for tests that read. Syncs go through the real writer."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Table, insert

from app.db.engine import Database
from app.db.sync_writer import LogEntry, SyncWrite, add_log, lock_companies, write_syncs
from app.db.tables import companies, jobs, webhook_events
from app.domain.models import Transaction
from app.domain.names import fold_name
from app.domain.sync_state import Sync
from app.domain.transactions import count

T0 = datetime(2026, 1, 1, 9, tzinfo=UTC)
NOW = T0 + timedelta(hours=3)
KEY = "a-key-of-enough-length"
BEARER = {"Authorization": f"Bearer {KEY}"}


def after(**passed: float) -> datetime:
    """T0 plus this much."""
    return T0 + timedelta(**passed)


def failed_row(
    transaction_id: str | None = "t1", message: str = "Account is closed"
) -> Transaction:
    """A row that failed; its correlation id is in the message, as Codat writes it."""
    return Transaction(transaction_id, "PushError", message, "expenses")


def completed_row(transaction_id: str | None = "t1") -> Transaction:
    """A row that was recorded."""
    return Transaction(transaction_id, "Completed", None, "expenses")


class Store:
    """Writes rows that tests read; every method commits."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def company(self, company_id: str = "c1", name: str | None = None, **fields: Any) -> None:
        """Store a company."""
        folded = fold_name(name) if name is not None else None
        with self.database.writing() as connection:
            lock_companies(connection, [company_id])
            connection.execute(
                companies.update().where(companies.c.company_id == company_id),
                {"name": name, "name_folded": folded, **fields},
            )

    def sync(
        self,
        sync_id: str = "s1",
        company_id: str = "c1",
        *,
        rows: tuple[Transaction, ...] | None = None,
        code: int | None = None,
        at: datetime = T0,
        updated_at: datetime = T0,
        **fields: Any,
    ) -> int:
        """Store a sync with Codat's answer of this status code and these rows; returns its pk."""
        values: dict[str, Any] = {
            "started_received_at": T0,
            "first_seen_at": T0,
            "reported_started_at": at,
        }
        if code:
            values |= {
                "status_code": code, "sync_utc": at, "verified_at": T0, "events_verified_at": T0,
            }  # fmt: skip
        if rows is not None:
            counts = count(rows)
            values |= {
                "transactions_source": "codat",
                "transactions_complete": counts.pending == 0,
                "counts": counts,
                "expected": counts.total,
                "fetched_at": T0,
            }
        sync = Sync(company_id=company_id, sync_id=sync_id, **values | fields)
        with self.database.writing() as connection:
            lock_companies(connection, [company_id])
            (pk,) = write_syncs(connection, [SyncWrite(None, sync, rows)], now=updated_at)
        return pk

    def failed(self, sync_id: str = "s1", company_id: str = "c1", **fields: Any) -> int:
        """Store a sync whose only transaction failed, unless `fields` say otherwise."""
        defaults: dict[str, Any] = {"code": 5130, "rows": (failed_row(),)}
        return self.sync(sync_id, company_id, **defaults | fields)

    def completed(self, sync_id: str = "s1", company_id: str = "c1", **fields: Any) -> int:
        """Store a sync whose only transaction was recorded, unless `fields` say otherwise."""
        defaults: dict[str, Any] = {"code": 2000, "rows": (completed_row(),)}
        return self.sync(sync_id, company_id, **defaults | fields)

    def job(self, sync_pk: int, state: str = "pending", **fields: Any) -> None:
        """Store the fetch job of a sync."""
        values = {"run_at": T0, "generation": 1, "attempts": 0, "group_key": "c1"}
        self._insert(jobs, **values | {"kind": "fetch", "key": sync_pk, "state": state} | fields)

    def log(
        self, sync_pk: int, reason: str, kind: str = "fetch", at: datetime = T0, **fields: Any
    ) -> None:
        """Add an entry to the timeline of a sync."""
        with self.database.writing() as connection:
            add_log(connection, sync_pk, LogEntry(at, kind, reason, **fields))

    def event(self, message_id: str, **fields: Any) -> None:
        """Store a webhook event that was processed, unless `fields` say otherwise."""
        values = {
            "received_at": T0, "processed_at": T0, "body": b"{}", "parse_status": "ok",
            "event_type": "sync.failed", "raw_type": "SyncFailed",
        }  # fmt: skip
        self._insert(webhook_events, **values | {"message_id": message_id} | fields)

    def _insert(self, table: Table, **values: Any) -> None:
        with self.database.writing() as connection:
            connection.execute(insert(table), values)
