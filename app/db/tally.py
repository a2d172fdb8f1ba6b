"""What is counted ahead: syncs by company, by day, by outcome; transactions that stay failed.

Every transaction that changes a sync or its items says so to a `Tally`, which the journal keeps
until it is worked off. What it adds or takes away then goes in as new rows (`tally_changes`): no
writer waits for another's counters. A duty folds them.

Whether a failed transaction is open depends on the company's other syncs. So who says which are
open, and files failures by cause, takes the company's lock and looks at what is there then. After
it come only the locks of sums, in one order for all.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from sqlalchemy import (
    ARRAY,
    Connection,
    Integer,
    bindparam,
    func,
    select,
)

from app.db.bulk import Write, insertion, write
from app.db.filed import Filing, refile, span
from app.db.filed_rows import Own
from app.db.tables import tally_changes, transactions
from app.db.tables_counted import NO_CODE, OPEN_FAILURES
from app.domain.sync_state import Sync

_LOCKS = 0x0C0DA7  # the first half of our advisory locks' names
_LOCKING = select(
    func.pg_advisory_xact_lock(
        _LOCKS, func.unnest(bindparam("keys", type_=ARRAY(Integer))).column_valued("key")
    )
)
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
    """What some transactions changed. `write` is the last statement of the one that counts it."""

    changes: Counter[Key] = field(default_factory=Counter)
    touched: dict[str, Touched] = field(default_factory=dict)
    moved: dict[int, str] = field(default_factory=dict)
    syncs: set[Own] = field(default_factory=set)

    def sync(self, number: int, before: Sync | None, after: Mapping[str, Any]) -> None:
        """A sync's row was changed, or is new where there is no `before`; it is locked."""
        if before is not None:
            day = before.day or ""
            self.changes[_key(before.company_id, day, before.outcome, before.status_code)] -= 1
            if before.occurred_at != after["occurred_at"] and before.counts:
                self.moved[number] = before.company_id
                self.touch_sync(before.company_id, before.sync_id)
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

    def touch_sync(self, company_id: str, sync_id: str) -> None:
        """A sync may have failed as a whole now, or have failed rows that name no transaction."""
        self.syncs.add((company_id, sync_id))

    def write(self, connection: Connection) -> None:
        """Write the changes. After this the transaction must lock nothing that others may hold."""
        for number, company_id in self.moved.items():
            ids = _ids_in(connection, number)
            self.touch(company_id, ids, ids)
        lock(connection, {*self.touched, *(company_id for company_id, _ in self.syncs)})
        touched = {
            (company_id, own_id): own_id in some.may_open
            for company_id, some in self.touched.items()
            for own_id in some.ids
        }
        filing = Filing()
        refile(connection, touched, self.syncs, filing)
        for company_id, change in filing.grown.items():
            self.changes[company_id, None, OPEN_FAILURES, NO_CODE] += change
        write(connection, *filing.writes(), added(self.changes))
        span(connection, filing.groups)


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
