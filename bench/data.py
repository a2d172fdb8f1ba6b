"""Fills a database with any number of syncs, the same each time.

About 2,000 companies, the largest with a tenth of all syncs; half a year of syncs up to now, with
ten transactions each; failures of several kinds, most of them resolved by a later sync. Rows are
made by the service's own functions where these are pure, and loaded without indexes.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, text

from app.db import company_state
from app.db.change_feed import sync_payload
from app.db.engine import Database, open_database
from app.db.sync_rows import ContentValues, sync_row, transaction_rows
from app.db.tables import (
    changes,
    companies,
    failed_transactions,
    jobs,
    sync_log,
    syncs,
    transactions,
    webhook_events,
)
from app.domain.models import Transaction
from app.domain.names import fold_name
from app.domain.sync_state import Sync
from app.domain.transactions import count
from app.worker.tasks.failure_alerts import check_failures

SPAN = timedelta(days=180)
RETENTION = timedelta(days=30)  # of bodies and changes
TRANSACTIONS = 10
COMPANIES = 2000
SLICE = 10_000
LARGEST_SHARE = 0.1
TABLES = (syncs, transactions, jobs, webhook_events, sync_log, changes)
_WORDS = ("Harbor", "Quarry", "Linden", "Meadow", "Copper", "Falcon", "Juniper", "Saffron")
_BODY = b'{"syncId": "...", "companyId": "..."}' * 10
_MESSAGES = (
    "Account code '429' is not active and cannot be used for new transactions.",
    "The document date cannot be before the period lock date: the period 2026-09 is closed.",
    "Tax rate 'STANDARD-20' could not be found. Choose one of the tax rates of the company.",
    "Supplier {n} could not be found",
    "A downstream service failed. Correlation ID: {guid}. Message: (409)",
    "Currency rate is required because the currency EUR differs from the base currency GBP.",
)


class Kind(NamedTuple):
    """How a sync ends: its share of all syncs, status code, and number of failed transactions."""

    name: str
    share: float
    status_code: int | None
    failed: int = 0
    transactions: int = TRANSACTIONS


KINDS = (
    Kind("all_written", 0.80, 2000),
    Kind("nothing_to_write", 0.04, 2040, transactions=0),
    Kind("partly_failed", 0.09, 5130, failed=3),
    Kind("failed", 0.04, 5130, failed=TRANSACTIONS),
    Kind("given_up", 0.02, None, transactions=0),
    Kind("in_progress", 0.01, 1000, transactions=0),
)
Rows = dict[Table, list[dict[str, Any]]]


def guid(namespace: int, number: int) -> str:
    """The id with this number; all ids of a namespace differ and are in no order."""
    h = f"{(namespace << 120 | number) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def company_id(number: int) -> str:
    """The id of a company; number 0 is the largest."""
    return guid(1, number)


def company_name(number: int) -> str:
    """The name of a company."""
    return f"{_WORDS[number % len(_WORDS)]} & Sons {number}"


class Generator:
    """Makes syncs, oldest first; each company sends again what failed before."""

    def __init__(self, database: Database, size: int) -> None:
        self._classifier = database.classifier
        self._size = size
        self._rng = random.Random(1)
        self._until = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        self._companies = [company_id(n) for n in range(max(1, min(COMPANIES, size // 50)))]
        self._to_retry: dict[str, list[str]] = {}
        self._transactions_made = 0
        self.failed: dict[tuple[str, str], dict[str, Any]] = {}  # rows of failed_transactions

    def companies(self) -> list[dict[str, Any]]:
        """The rows of all companies."""
        return [
            {"company_id": company, "name": company_name(n),
             "name_folded": fold_name(company_name(n)), "name_as_of": self._until,
             "platform": "Xero", "connection_state": "Linked"}
            for n, company in enumerate(self._companies)
        ]  # fmt: skip

    def slices(self) -> Iterator[Rows]:
        """All rows by table, some thousand syncs at a time."""
        for first in range(1, self._size + 1, SLICE):
            rows: Rows = {table: [] for table in TABLES}
            for pk in range(first, min(first + SLICE, self._size + 1)):
                self._add_sync(rows, pk)
            yield rows

    def _add_sync(self, rows: Rows, pk: int) -> None:
        rng = self._rng
        (kind,) = rng.choices(KINDS, [kind.share for kind in KINDS])
        if kind.name == "in_progress" and pk < self._size * 0.95:
            kind = KINDS[0]  # what is in progress is recent
        is_largest = rng.random() < LARGEST_SHARE
        place = 0 if is_largest else int(rng.random() ** 2 * len(self._companies))
        company = self._companies[place]
        at = self._until - SPAN * (1 - pk / self._size) - timedelta(seconds=rng.random() * 9e4)
        made = self._make_transactions(company, kind)
        sync = _make_sync(company, guid(2, pk), kind, at, made)
        row = {"id": pk, "announced_digest": None}
        row |= sync_row(sync, updated_at=at + timedelta(minutes=5), classifier=self._classifier)
        rows[syncs].append(row)
        of_sync = list(
            transaction_rows(pk, made, ContentValues(sync.status_code, self._classifier))
        )
        rows[transactions] += of_sync
        self._note_failures(row, of_sync)
        self._add_beside(rows, row, kind, at)

    def _make_transactions(self, company: str, kind: Kind) -> list[Transaction]:
        to_retry = self._to_retry.setdefault(company, [])
        ids = [to_retry.pop() for _ in range(min(len(to_retry), 4, kind.transactions))]
        while len(ids) < kind.transactions:
            self._transactions_made += 1
            ids.append(guid(3, self._transactions_made))
        written = [Transaction(name, "Completed", None, "expenses") for name in ids]
        for n in range(kind.transactions - kind.failed, kind.transactions):
            message = self._rng.choice(_MESSAGES)
            message = message.format(
                n=self._rng.randrange(500), guid=guid(4, self._transactions_made)
            )
            written[n] = Transaction(ids[n], "PushError", message, "expenses")
            to_retry.append(ids[n])
        return written

    def _note_failures(self, sync: dict[str, Any], of_sync: list[dict[str, Any]]) -> None:
        for row in of_sync:
            key = (sync["company_id"], row["transaction_id"])
            before = self.failed.get(key)
            if row["failed"]:
                first = before["first_failed_at"] if before else sync["occurred_at"]
                self.failed[key] = {
                    "company_id": key[0], "transaction_key": key[1], "transaction_id": key[1],
                    "sync_pk": sync["id"], "position": row["position"],
                    "cause_key": row["cause_key"], "fingerprint": row["fingerprint"],
                    "first_failed_at": first, "last_failed_at": sync["occurred_at"],
                    "resolved_by": None,
                }  # fmt: skip
            elif before and not before["resolved_by"]:
                before["resolved_by"] = sync["sync_id"]

    def _add_beside(self, rows: Rows, sync: dict[str, Any], kind: Kind, at: datetime) -> None:
        """The fetch job, the event, the timeline and, if recent, the change of a sync."""
        pk, company, sync_id = sync["id"], sync["company_id"], sync["sync_id"]
        is_recent = at > self._until - RETENTION
        is_dead = kind.name == "given_up"
        error = "404: no such sync" if is_dead else None
        rows[jobs].append(
            {"kind": "fetch", "key": pk, "group_key": company, "run_at": at, "attempts": 1,
             "state": "dead" if is_dead else "done", "generation": 1, "last_error": error}
        )  # fmt: skip
        event_type = "sync.failed" if kind.failed else "sync.completed"
        is_odd = pk % 300 == 0
        rows[webhook_events].append(
            {"message_id": f"msg_{pk:010}", "received_at": at, "processed_at": at, "deliveries": 1,
             "logged_deliveries": 1, "body": _BODY if is_recent else None,
             "event_type": "unknown" if is_odd else event_type, "raw_type": event_type,
             "parse_status": "unreadable" if is_odd else "ok",
             "parse_error": "not a JSON object" if is_odd else None,
             "company_id": None if is_odd else company, "sync_id": None if is_odd else sync_id}
        )  # fmt: skip
        rows[sync_log] += [
            {"sync_pk": pk, "at": at, "kind": "delivery", "reason": event_type,
             "message_id": f"msg_{pk:010}"},
            {"sync_pk": pk, "at": at + timedelta(minutes=5), "kind": "fetch",
             "reason": error or f"Codat's status is {kind.status_code}", "message_id": None},
        ]  # fmt: skip
        if is_recent:
            payload = json.dumps(sync_payload(sync), default=datetime.isoformat)
            rows[changes].append(
                {"at": at, "kind": "sync", "company_id": company, "sync_id": sync_id,
                 "transaction_id": None, "payload": payload}
            )  # fmt: skip


def _make_sync(
    company: str, sync_id: str, kind: Kind, at: datetime, made: list[Transaction]
) -> Sync:
    ended_at = at + timedelta(minutes=3)
    values: dict[str, Any] = {}
    if kind.name == "in_progress" or at.second % 3 == 0:  # Codat seldom reports a start
        values |= {"started_received_at": at, "reported_started_at": at}
    if kind.status_code:
        values |= {"status_code": kind.status_code, "sync_utc": ended_at, "verified_at": ended_at}
    if kind.name != "in_progress":
        received = "failed_received_at" if kind.failed else "completed_received_at"
        values |= {received: ended_at, "reported_ended_at": ended_at}
    if kind.name not in ("in_progress", "given_up"):
        values |= {"events_verified_at": ended_at, "transactions_source": "codat",
                   "transactions_complete": True, "counts": count(made), "expected": len(made),
                   "fetched_at": ended_at}  # fmt: skip
    if kind.failed:
        values |= {"error_message": "Error writing data", "failure_stage": "Pushing"}
    return Sync(company, sync_id, first_seen_at=at, **values)


def fill(url: str, size: int) -> None:
    """Put so many syncs into a migrated, empty database."""
    database = open_database(url)
    generator = Generator(database, size)
    with database.writing() as connection:
        if not database.is_sqlite:  # a superuser may skip the checks of foreign keys
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        indexes = [index for table in (*TABLES, failed_transactions) for index in table.indexes]
        for index in indexes:
            index.drop(connection)
        _load(connection, companies, generator.companies())
        for rows in generator.slices():
            for table in TABLES:
                _load(connection, table, rows[table])
        _load(connection, failed_transactions, list(generator.failed.values()))
        for index in indexes:
            index.create(connection)
    if not database.is_sqlite:
        _finish_postgresql(database)
    with database.writing() as connection:
        company_state.recompute(connection, map(company_id, range(COMPANIES)))
    asyncio.run(check_failures(database, lambda: datetime.now(UTC)))
    database.close()


def _load(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(table.insert(), rows)
        return
    names = list(rows[0])
    values = itemgetter(*names)
    with connection.connection.cursor().copy(
        f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
    ) as copy:
        for row in rows:
            copy.write_row(values(row))


def _finish_postgresql(database: Database) -> None:
    """Continue the keys after the last one, and do what autovacuum would have done."""
    last = "SELECT setval(pg_get_serial_sequence('syncs', 'id'), (SELECT max(id) FROM syncs))"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text(last))
        connection.execute(text("VACUUM ANALYZE"))
