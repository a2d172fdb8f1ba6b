"""What is counted ahead: syncs by company, by day, by outcome; transactions that stay failed.

Every transaction that changes a sync or its items says so to a `Tally`, which the journal keeps
until it is worked off. What it adds or takes away then goes in as new rows (`tally_changes`): no
writer waits for another's counters. A duty folds them.

Whether a failed transaction is open depends on the company's other syncs. So who says which are
open takes the company's lock, the last lock of its transaction, and looks at what is there then.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from zlib import crc32

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Connection,
    Delete,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    column,
    delete,
    func,
    or_,
    select,
    table,
    tuple_,
)

from app.rules.sync import Sync
from app.storage.bulk import Write, given, insertion, sent, write
from app.storage.queries_items import UNCURED
from app.storage.tables import open_failures, syncs, tally_changes, transactions
from app.storage.tables_counted import NO_CODE, OPEN_FAILURES

_LOCKS = 0x0C0DA7  # the first half of our advisory locks' names
_LOCKING = select(
    func.pg_advisory_xact_lock(
        _LOCKS, func.unnest(bindparam("keys", type_=ARRAY(Integer))).column_valued("key")
    )
)
_ASKED = table(
    "asked",
    column("company_id", Text),
    column("transaction_id", Text),
    column("may_open", Boolean),
)
_GONE = table("gone", column("company_id", Text), column("transaction_id", Text))

Key = tuple[str | None, str | None, str, int]
"""Company, day, what is counted, status code."""
Own = tuple[str, str]
"""A company, and one of its transactions."""


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
    """What some transactions changed. `write` is the last statement of the one that counts it."""

    changes: Counter[Key] = field(default_factory=Counter)
    touched: dict[str, Touched] = field(default_factory=dict)
    moved: dict[int, str] = field(default_factory=dict)

    def sync(self, number: int, before: Sync | None, after: Mapping[str, Any]) -> None:
        """A sync's row was changed, or is new where there is no `before`; it is locked."""
        if before is not None:
            day = before.day or ""
            self.changes[_key(before.company_id, day, before.outcome, before.status_code)] -= 1
            if before.occurred_at != after["occurred_at"] and before.counts:
                self.moved[number] = before.company_id
        key = _key(after["company_id"], after["day"], after["outcome"], after["status_code"])
        self.changes[key] += 1

    def items(self, company_id: str, gone: Items, come: Items) -> None:
        """A sync's items were replaced. Its row is locked."""
        self.touch(company_id, gone.ids | come.ids, gone.ids | come.failed)
        self.changes[company_id, None, OPEN_FAILURES, NO_CODE] += come.nameless - gone.nameless

    def touch(self, company_id: str, ids: Iterable[str], may_open: Iterable[str]) -> None:
        """These transactions of a company may be open or cured now."""
        touched = self.touched.setdefault(company_id, Touched())
        touched.ids.update(ids)
        touched.may_open.update(may_open)

    def write(self, connection: Connection) -> None:
        """Write the changes. After this the transaction must lock nothing that others may hold."""
        for number, company_id in self.moved.items():
            ids = _ids_in(connection, number)
            self.touch(company_id, ids, ids)
        lock(connection, self.touched)
        stored, found = _looked_up(connection, self.touched)
        for company_id, change in grown(stored, found).items():
            self.changes[company_id, None, OPEN_FAILURES, NO_CODE] += change
        write(connection, *opened(stored, found), added(self.changes))


def _key(company_id: str, day: str, outcome: str, status_code: int | None) -> Key:
    return company_id, day, outcome, NO_CODE if status_code is None else status_code


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
    connection.execute(_LOCKING, {"keys": keys})


def _looked_up(connection: Connection, touched: Mapping[str, Touched]) -> tuple[set[Own], set[Own]]:
    """Which of these transactions are stored as open failures, and which are open by their rows."""
    asked = [
        {
            "company_id": company_id,
            "transaction_id": own_id,
            "may_open": own_id in some.may_open,
        }
        for company_id, some in sorted(touched.items())
        for own_id in sorted(some.ids)
    ]
    stored, found = set(), set()
    if asked:
        told = sent(connection, Write(_ASKED, asked, _asking))
        for company_id, own_id, is_stored, is_found in told:
            if is_stored:
                stored.add((company_id, own_id))
            if is_found:
                found.add((company_id, own_id))
    return stored, found


def grown(stored: set[Own], found: set[Own]) -> Counter[str]:
    """By how many each company's open failures grow when these take the place of those stored."""
    by_company = Counter(company_id for company_id, _ in found)
    by_company.subtract(company_id for company_id, _ in stored)
    return by_company


def opened(stored: set[Own], found: set[Own]) -> tuple[Write, Write]:
    """To store what was found in place of what was stored."""
    names = ("company_id", "transaction_id")
    come, gone = (
        [dict(zip(names, own, strict=True)) for own in sorted(some)]
        for some in (found - stored, stored - found)
    )
    return insertion(open_failures, come), Write(_GONE, gone, _closing)


@lru_cache
def _asking(kind: str) -> Select[Any]:
    """Of each transaction asked about: is it stored as open, and is it open by its rows?"""
    asked = given(kind, _ASKED, tuple(_ASKED.c.keys()))
    company_id, own_id = asked.c.company_id, asked.c.transaction_id
    stored = select(open_failures.c.company_id).where(
        open_failures.c.company_id == company_id, open_failures.c.transaction_id == own_id
    )
    is_stored = _is_there(stored)
    its_sync = syncs.c.id == transactions.c.sync + 0  # by its id alone, as in `queries_items`
    its_company = syncs.c.company_id.concat("")
    mine = and_(transactions.c.transaction_id == own_id, its_company == company_id)
    is_found = _is_there(_open_ones(its_sync).where(mine))
    doubtful = or_(asked.c.may_open, is_stored)
    return select(
        company_id,
        own_id,
        is_stored.label("is_stored"),
        case((doubtful, is_found), else_=False).label("is_found"),
    )


def _is_there(some: Select[Any]) -> ColumnElement[bool]:
    """As EXISTS, but always by index: for EXISTS PostgreSQL may read the whole table first."""
    return some.limit(1).scalar_subquery().is_not(None)


@lru_cache
def _closing(kind: str) -> Delete:
    names = ("company_id", "transaction_id")
    gone = given(kind, _GONE, names)
    own = tuple_(*(open_failures.c[name] for name in names))
    return delete(open_failures).where(own.in_(select(*(gone.c[name] for name in names))))


def _open_ones(its_sync: ColumnElement[bool]) -> Select[Any]:
    return (
        select(transactions.c.transaction_id)
        .join_from(transactions, syncs, its_sync)
        .where(transactions.c.failed.is_(True), UNCURED)
    )


def stored_open(connection: Connection, company_id: str) -> set[Own]:
    """The company's open failures as they are stored."""
    statement = select(open_failures.c.transaction_id).where(
        open_failures.c.company_id == company_id
    )
    return {(company_id, own_id) for own_id in connection.execute(statement).scalars()}


def found_open(connection: Connection, company_id: str) -> set[Own]:
    """The company's open failures by its rows."""
    statement = (
        _open_ones(syncs.c.id == transactions.c.sync)
        .where(syncs.c.company_id == company_id)
        .where(transactions.c.transaction_id.is_not(None), syncs.c.failed > 0)
        .distinct()
    )
    return {(company_id, own_id) for own_id in connection.execute(statement).scalars()}


def added(changes: Mapping[Key, int]) -> Write:
    """To add changes to what is counted."""
    return insertion(tally_changes, counts(changes))


def counts(changes: Mapping[Key, int]) -> list[dict[str, Any]]:
    """As rows of `tally_changes`; what adds up to nothing is left out."""
    return [
        {"company_id": company, "day": day, "what": what, "status_code": code, "change": n}
        for (company, day, what, code), n in changes.items()
        if n
    ]
