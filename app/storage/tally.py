"""What is counted ahead: syncs by company, by day, by outcome; transactions that stay failed.

Every transaction that changes a sync or its items says so to a `Tally` and writes it last. What it
adds or takes away goes in as new rows (`tally_changes`): no writer waits for another's counters.
A duty folds them; a total is the folded part and the changes together, read by one statement.

Whether a failed transaction is open depends on the company's other syncs. So who changes items
takes the company's lock, the last lock of its transaction, and looks at what is there then.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Text,
    any_,
    bindparam,
    delete,
    func,
    select,
)

from app.rules.sync import Sync
from app.storage.bulk import insert_all
from app.storage.database import chunked
from app.storage.queries_items import UNCURED
from app.storage.tables import open_failures, syncs, tally_changes, transactions
from app.storage.tables_counted import NO_CODE, OPEN_FAILURES

_LOCKS = 0x0C0DA7  # the first half of our advisory locks' names

Key = tuple[str | None, str | None, str, int]
"""Company, day, what is counted, status code."""


@dataclass(frozen=True, slots=True)
class Items:
    """Which transactions a set of rows names, which of them failed, how many failed nameless."""

    ids: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    nameless: int = 0

    @classmethod
    def of(cls, rows: Iterable[tuple[str | None, bool]]) -> "Items":
        """From transaction ids, each with whether the row failed."""
        told = list(rows)
        return cls(
            frozenset(own_id for own_id, _ in told if own_id is not None),
            frozenset(own_id for own_id, failed in told if failed and own_id is not None),
            sum(failed for own_id, failed in told if own_id is None),
        )


@dataclass(slots=True)
class Touched:
    """Transactions that may be open or cured now: what `may_open` leaves out can only be cured."""

    ids: set[str] = field(default_factory=set)
    may_open: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Tally:
    """What one transaction changes. `write` is its last statement."""

    changes: Counter[Key] = field(default_factory=Counter)
    touched: dict[str, Touched] = field(default_factory=dict)
    moved: dict[int, str] = field(default_factory=dict)

    def sync(self, number: int, before: Sync | None, after: Sync) -> None:
        """A sync was changed, or is new where there is no `before`. Its row is locked."""
        if before is not None:
            self.changes[_key(before)] -= 1
            if before.occurred_at != after.occurred_at and before.counts:
                self.moved[number] = after.company_id
        self.changes[_key(after)] += 1

    def items(self, company_id: str, gone: Items, come: Items) -> None:
        """A sync's items were replaced. Its row is locked."""
        touched = self.touched.setdefault(company_id, Touched())
        touched.ids.update(gone.ids, come.ids)
        touched.may_open.update(gone.ids, come.failed)
        self.changes[company_id, None, OPEN_FAILURES, NO_CODE] += come.nameless - gone.nameless

    def write(self, connection: Connection) -> None:
        """Write the changes. After this the transaction must lock nothing that others may hold."""
        for number, company_id in self.moved.items():
            ids = _ids_in(connection, number)
            touched = self.touched.setdefault(company_id, Touched())
            touched.ids.update(ids)
            touched.may_open.update(ids)
        lock(connection, self.touched)
        for company_id, touched in sorted(self.touched.items()):
            change = _reopen(connection, company_id, touched)
            self.changes[company_id, None, OPEN_FAILURES, NO_CODE] += change
        add(connection, self.changes)


def _key(sync: Sync) -> Key:
    code = NO_CODE if sync.status_code is None else sync.status_code
    return sync.company_id, sync.day, sync.outcome, code


def _ids_in(connection: Connection, number: int) -> set[str]:
    rows = connection.execute(
        select(transactions.c.transaction_id).where(transactions.c.sync == number)
    )
    return {own_id for own_id in rows.scalars() if own_id is not None}


def lock(connection: Connection, company_ids: Collection[str]) -> None:
    """Hold these companies' items until the transaction ends. SQLite has one writer anyway."""
    if not company_ids or connection.dialect.name == "sqlite":
        return
    keys = sorted({crc32(company_id.encode()) - 2**31 for company_id in company_ids})
    given = func.unnest(bindparam("keys", keys, ARRAY(Integer))).column_valued("key")
    connection.execute(select(func.pg_advisory_xact_lock(_LOCKS, given)))


def _reopen(connection: Connection, company_id: str, touched: Touched) -> int:
    """Make the stored open failures right for these transactions; by how many they grew."""
    grown = 0
    for some in chunked(sorted(touched.ids), 5000):
        stored = stored_open(connection, company_id, some)
        doubtful = stored | touched.may_open.intersection(some)
        found = found_open(connection, company_id, sorted(doubtful)) if doubtful else set()
        grown += make_open(connection, company_id, stored, found)
    return grown


def make_open(connection: Connection, company_id: str, stored: set[str], found: set[str]) -> int:
    """Store what was found in place of what was stored; by how many it grew."""
    new = [{"company_id": company_id, "transaction_id": each} for each in sorted(found - stored)]
    insert_all(connection, open_failures, new)
    for some in chunked(sorted(stored - found)):
        connection.execute(
            delete(open_failures).where(
                open_failures.c.company_id == company_id,
                open_failures.c.transaction_id.in_(some),
            )
        )
    return len(found) - len(stored)


def stored_open(
    connection: Connection, company_id: str, ids: Sequence[str] | None = None
) -> set[str]:
    """The company's open failures as they are stored, among these transactions or all."""
    statement = select(open_failures.c.transaction_id).where(
        open_failures.c.company_id == company_id
    )
    if ids is not None:
        statement = statement.where(_among(connection, open_failures.c.transaction_id, ids))
    return set(connection.execute(statement).scalars())


def found_open(
    connection: Connection, company_id: str, ids: Sequence[str] | None = None
) -> set[str]:
    """The company's open failures by its rows, among these transactions or all."""
    statement = (
        select(transactions.c.transaction_id)
        .join_from(transactions, syncs, syncs.c.id == transactions.c.sync)
        .where(syncs.c.company_id == company_id, transactions.c.failed.is_(True), UNCURED)
        .where(transactions.c.transaction_id.is_not(None))
        .distinct()
    )
    if ids is None:
        statement = statement.where(syncs.c.failed > 0)
    else:
        statement = statement.where(_among(connection, transactions.c.transaction_id, ids))
    return set(connection.execute(statement).scalars())


def _among(connection: Connection, column: Column[Any], ids: Sequence[str]) -> ColumnElement[bool]:
    """One array is one value, however many ids it holds."""
    if connection.dialect.name == "sqlite":
        return column.in_(ids)
    return column == any_(bindparam(None, list(ids), ARRAY(Text), unique=True))


def add(connection: Connection, changes: Mapping[Key, int]) -> None:
    """Add changes to what is counted."""
    insert_all(
        connection,
        tally_changes,
        [
            {"company_id": company, "day": day, "what": what, "status_code": code, "change": n}
            for (company, day, what, code), n in changes.items()
            if n
        ],
    )
