"""A data set of any size, the same for the same seed: companies, syncs, transactions, events.

    python -m bench.data --syncs 10000 --database-url postgresql://…

About two thousand companies, one of which has a tenth of all syncs; half a year of syncs with ten
transactions each; failures of a dozen kinds, most of them cured by a later sync.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, text

from app.db import counted
from app.db.engine import Database, open_database
from app.db.migrations import migrate
from app.db.recount import recount
from app.db.statistics import look_over
from app.db.tables import companies, events, fetches, notes, syncs, transactions
from app.domain.causes.fingerprint import fingerprint
from app.domain.correlation import correlation_id
from app.domain.models import Item
from app.domain.sync_state import Heard, Sync
from app.domain.transactions import count, is_failing

UNTIL = datetime(2026, 6, 30, tzinfo=UTC)
SPAN = timedelta(days=180)
ITEMS = 10
COMPANIES = 2000
AT_ONCE = 10_000
_LARGE = 0.1  # the largest company's share of all syncs
_WORDS = ("Harbour", "Quarry", "Linden", "Meadow", "Copper", "Falcon", "Juniper", "Saffron")
_KINDS = (
    ("all_written", 0.80, 2000),
    ("nothing_to_write", 0.04, 2040),
    ("partly_failed", 0.09, 5130),
    ("failed", 0.04, 5130),
    ("untold", 0.02, None),
    ("in_progress", 0.01, 1000),
)
_MESSAGES = (
    ("account_closed", "Account 4001 is closed for posting"),
    ("period_locked", "The period of 2026-03 is locked"),
    ("tax_rate_missing", "Tax rate NON is not known in the accounting software"),
    ("supplier_missing", "Supplier {n} could not be found"),
    ("feed_conflict", "A downstream service failed. Correlation ID: {guid}. Message: (409)"),
    ("currency_mismatch", "Currency EUR does not fit the bank account's currency"),
)


@dataclass(slots=True)
class Made:
    """The rows of one slice, by table."""

    syncs: list[dict[str, Any]] = field(default_factory=list)
    transactions: list[dict[str, Any]] = field(default_factory=list)
    fetches: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)


class Maker:
    """Makes syncs one after another, oldest first, each company retrying what failed before."""

    def __init__(self, size: int, seed: int = 1) -> None:
        self.size = size
        self.companies = [company_id(n) for n in range(max(1, min(COMPANIES, size // 50)))]
        self._chance = random.Random(seed)
        self._failing: dict[str, list[str]] = {}

    def slices(self) -> Iterator[Made]:
        """All rows, some thousand syncs at a time."""
        for first in range(0, self.size, AT_ONCE):
            made = Made()
            for n in range(first, min(first + AT_ONCE, self.size)):
                self._one(made, n + 1)
            yield made

    def _one(self, made: Made, number: int) -> None:
        chance = self._chance
        kinds = [kind for kind, _, _ in _KINDS]
        (kind,) = chance.choices(kinds, [share for _, share, _ in _KINDS])
        if kind == "in_progress" and number < self.size * 0.95:
            kind = "all_written"  # what is in progress is recent
        company = self._company()
        at = UNTIL - SPAN + SPAN * (number / self.size) - timedelta(seconds=chance.random() * 9e4)
        items = self._items(company, kind)
        sync = _sync(company, sync_id(number), kind, at, items)
        made.syncs.append({"id": number} | _row(sync, at + timedelta(minutes=5)))
        made.fetches.append(_fetch(number, kind))
        made.transactions += [_item(number, n, item) for n, item in enumerate(items)]
        if chance.random() < 0.3:
            made.events.append(_event(number, company, kind, at, odd=chance.random() < 0.01))
        if kind in ("failed", "partly_failed"):
            said = "Codat says 5130: Data write error"
            made.notes.append({"sync": number, "at": at, "kind": "fetch", "reason": said})

    def _company(self) -> str:
        if self._chance.random() < _LARGE:
            return self.companies[0]
        return self.companies[int(self._chance.random() ** 2 * len(self.companies))]

    def _items(self, company: str, kind: str) -> tuple[Item, ...]:
        if kind in ("nothing_to_write", "in_progress", "untold"):
            return ()
        failing = self._failing.setdefault(company, [])
        again = [failing.pop() for _ in range(min(len(failing), 4))]
        fresh = [_uuid(self._chance) for _ in range(ITEMS - len(again))]
        broken = {"all_written": 0, "partly_failed": 3, "failed": ITEMS}[kind]
        made = [self._told(each, n >= ITEMS - broken) for n, each in enumerate(again + fresh)]
        failing += [item.transaction_id or "" for item in made if is_failing(item.status)]
        return tuple(made)

    def _told(self, transaction_id: str, fails: bool) -> Item:
        if not fails:
            return Item(transaction_id, "Completed", None, "expenses")
        _, message = self._chance.choice(_MESSAGES)
        filled = message.format(n=self._chance.randrange(500), guid=_uuid(self._chance))
        return Item(transaction_id, "PushError", filled, "expenses")


def company_id(number: int) -> str:
    """The id of a company; number 0 is the largest."""
    return str(UUID(int=0xC0DA << 64 | number * 0x9E3779B97F4A7C15 % 2**64))


def company_name(number: int) -> str:
    """Its name."""
    return f"{_WORDS[number % len(_WORDS)]} & Sons {number}"


def sync_id(number: int) -> str:
    """The id of a sync; the first is 1, the newest has the highest number."""
    return str(UUID(int=0x51C << 64 | number * 0x9E3779B97F4A7C15 % 2**64))


def _uuid(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128)))


def _sync(company: str, own_id: str, kind: str, at: datetime, items: tuple[Item, ...]) -> Sync:
    code = next(code for name, _, code in _KINDS if name == kind)
    failed = kind in ("failed", "partly_failed")
    ended = at + timedelta(minutes=3)
    told: dict[str, Any] = {}
    if kind == "in_progress" or at.second % 3 == 0:
        told |= {"started_at": at}  # Codat seldom tells a start
    if code is not None:
        told |= {"status_code": code, "asked_at": ended, "codat_utc": ended}
    if kind not in ("in_progress", "untold"):
        told |= {"items_from": "codat", "items_complete": True, "counts": count(items)}
        told |= {"expected": len(items), "fetched_at": ended}
    if kind != "in_progress":
        told |= {"heard": Heard.FAILED if failed else Heard.COMPLETED, "ended_at": ended}
    if kind == "untold":
        told |= {"unsettled": Heard.COMPLETED}
    if failed:
        told |= {"error_message": "Error writing data", "failure_stage": "Pushing"}
    return Sync(company, own_id, first_seen_at=at, **told)


def _row(sync: Sync, updated_at: datetime) -> dict[str, Any]:
    from app.db.sync_rows import to_row
    from app.domain.causes.loader import shipped

    return to_row(sync, updated_at=updated_at, rules=shipped())


def _fetch(number: int, kind: str) -> dict[str, Any]:
    dead = kind == "untold"
    said = "404: no such sync (Codat's answer is final)" if dead else None
    return {"sync": number, "state": "dead" if dead else "settled", "due": None, "token": None,
            "wanted": 1, "attempts": 1, "last_error": said}  # fmt: skip


def _item(number: int, position: int, item: Item) -> dict[str, Any]:
    failed = is_failing(item.status)
    cause = next((c for c, m in _MESSAGES if (item.message or " ")[:6] == m[:6]), None)
    return {
        "sync": number,
        "position": position,
        "transaction_id": item.transaction_id,
        "integration_type": item.integration_type,
        "status": item.status,
        "message": item.message,
        "failed": failed,
        "correlation_id": correlation_id(item.message) if failed else None,
        "cause": cause,
        "fingerprint": cause and fingerprint(item.message),
    }


def _event(number: int, company: str, kind: str, at: datetime, *, odd: bool) -> dict[str, Any]:
    failed = kind in ("failed", "partly_failed")
    return {
        "message_id": f"msg_{number:010}",
        "received_at": at,
        "event": "sync.failed" if failed else "sync.completed",
        "event_type": "SyncFailed" if failed else "SyncCompleted",
        "reading": "unreadable" if odd else "ok",
        "reason": "not a JSON object" if odd else None,
        "event_id": None,
        "company_id": None if odd else company,
        "sync_id": None if odd else sync_id(number),
        "generated_at": None,
        "body": b'{"syncId": "...", "companyId": "..."}' * 10,
    }


def fill(database: Database, size: int, *, seed: int = 1) -> None:
    """Bring an empty database up to date and put so many syncs into it."""
    migrate(database)
    maker = Maker(size, seed)
    with database.writing() as connection:
        _prepare(connection)
        for table in (syncs, transactions, events, notes, fetches):
            for index in table.indexes:
                index.drop(connection)
        named = [_named(n, each) for n, each in enumerate(maker.companies)]
        _load(connection, companies, named)
        for made in maker.slices():
            for table in (syncs, transactions, fetches, events, notes):
                _load(connection, table, getattr(made, table.name))
        for table in (syncs, transactions, events, notes, fetches):
            for index in table.indexes:
                index.create(connection)
    _settle(database)
    recount(database)
    with database.writing() as connection:
        while counted.fold(connection):
            continue
    _settle(database)


def _named(number: int, own_id: str) -> dict[str, Any]:
    name = company_name(number)
    return {"company_id": own_id, "name": name, "name_folded": name.casefold(), "name_as_of": UNTIL}


def _prepare(connection: Connection) -> None:
    """No limit on a load's statements, and no check of keys that are right as they are made."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL session_replication_role = replica"))


def _load(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(table.insert(), list(rows))
        return
    names = list(rows[0])
    cursor = connection.connection.cursor()
    with cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as into:
        for row in rows:
            into.write_row([row[name] for name in names])


def _settle(database: Database) -> None:
    """The keys go on after the last one; the planner knows the tables as it would in time."""
    if database.is_sqlite:
        look_over(database)
        return
    last = "SELECT setval(pg_get_serial_sequence('syncs', 'id'), (SELECT max(id) FROM syncs))"
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text(last))
        connection.execute(text("VACUUM ANALYZE"))


def main() -> int:
    """Fill one database."""
    parser = argparse.ArgumentParser(prog="python -m bench.data", description=__doc__)
    parser.add_argument("--syncs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database-url", required=True)
    told = parser.parse_args()
    database = open_database(told.database_url)
    fill(database, told.syncs, seed=told.seed)
    database.close()
    print(f"{told.syncs} syncs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
