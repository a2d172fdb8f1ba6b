"""The journal: what a transaction changed, to be told in the feed and counted a moment later.

To tell and count costs more than to keep, and a burst of deliveries waits for it. So whoever
changes a sync or its items writes one row here, in the same transaction; the rows are worked off
soon after, many together, one worker at a time and in their order. Nothing can be lost on the way:
a row goes in the transaction that tells and counts it. Who reads the feed or the counters of open
failures works off first (`caught_up`), and so sees all that was committed before.

A sync's row is locked before its change is written down. So of two changes of one sync the first
has the lower number here, and who sees the second sees both.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, Text, bindparam, delete, func, insert, select

from app import logging as log
from app.db import change_feed as changes
from app.db.bulk import Rows, Write, write
from app.db.change_feed import Change
from app.db.engine import Database
from app.db.filed_rows import fits
from app.db.slices import first_within
from app.db.tables_told import journal
from app.db.tally import Tally, counts
from app.db.transaction_rows import named
from app.domain.models import Item
from app.domain.sync_state import Sync
from app.errors import StorageRefused, StorageUnavailable

AT_ONCE = 8  # entries in one transaction; one has all of a commit, up to thousands of items
LONG = 2_000_000  # characters told, after which a transaction takes no further entry
PATIENCE_S = 2.0  # of who reads, where a worker has been away for long
_LOCK = 0x0C0DA8  # who works off holds this advisory lock
_log = log.get(__name__)


@dataclass(slots=True)
class Entry:
    """What one transaction changes: of each sync and its items, as others see it and as counted."""

    changes: list[Change] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def sync(
        self,
        number: int,
        before: Sync | None,
        row: RowMapping | None,
        values: dict[str, Any],
        now: datetime,
    ) -> None:
        """A sync became what these values say; its row is locked, or new where there is none.

        Raises StorageRefused, as `items` does, for an id with which it could never be counted.
        """
        _require_fit(values["company_id"], values["sync_id"])
        self.changes += changes.of_sync(row, values, now)
        self.tally.sync(number, before, values)
        if values["cause"] is not None or (row is not None and row["cause"] is not None):
            self.tally.touch_sync(values["company_id"], values["sync_id"])

    def items(self, sync: Sync, had: Sequence[Item], has: Sequence[Item], now: datetime) -> None:
        """A sync's items became others; its row is locked."""
        gone, come = named(had), named(has)
        _require_fit(sync.company_id, max(come.ids, key=len, default=""))
        self.changes += changes.of_items(sync, had, has, now)
        self.tally.items(sync.company_id, gone, come)
        if gone.nameless or come.nameless:
            self.tally.touch_sync(sync.company_id, sync.sync_id)

    def decided_anew(self, company_id: str, sync_id: str, transaction_id: str | None) -> None:
        """A sync, or one of its failed rows, has another cause; nothing else is changed."""
        if transaction_id is None:
            self.tally.touch_sync(company_id, sync_id)
        else:
            self.tally.touch(company_id, [transaction_id], [transaction_id])

    def written(self) -> Write:
        """The entry as it is to be written, if it says anything."""
        counted = counts(self.tally.changes)
        tally = self.tally
        says = (self.changes, counted, tally.touched, tally.moved, tally.syncs)
        rows: Rows = [{}] if any(says) else []
        return Write(
            journal,
            rows,
            _writing,
            {"told": self._told() if rows else "", "counts": orjson.dumps(counted).decode()},
        )

    def _told(self) -> str:
        told = {
            "changes": [
                (each.kind, each.company_id, each.sync_id, each.transaction_id, each.at, each.told)
                for each in self.changes
            ],
            "touched": [
                (company_id, sorted(some.ids), sorted(some.may_open))
                for company_id, some in self.tally.touched.items()
            ],
            "moved": [*self.tally.moved.items()],
            "syncs": sorted(self.tally.syncs),
        }
        return orjson.dumps(told, option=orjson.OPT_UTC_Z).decode()


def _require_fit(company_id: str, own_id: str = "") -> None:
    """Refused here, it is kept as bytes; refused when it is counted, it would stop the journal."""
    if not fits((company_id, own_id)):
        raise StorageRefused("an id is too long to be counted by")


def _writing(_kind: str) -> Any:
    return _WRITING


_WRITING = insert(journal).from_select(
    ["told", "counts"], select(bindparam("told", type_=Text), bindparam("counts", type_=Text))
)


@contextmanager
def caught_up(database: Database) -> Iterator[Connection]:
    """A connection to read by, after all that is in the journal by now was told and counted.

    A database that can be read and not written is read as it is, and so is one in which so much
    waits that it takes longer than PATIENCE_S.
    """
    try:
        work_off(database, within_s=PATIENCE_S)
    except StorageUnavailable as error:
        _log.warning("the journal could not be worked off", reason=str(error))
    with database.reading() as connection:
        yield connection


def is_longer_than(connection: Connection, entries: int) -> bool:
    """True when more entries than that wait; in a burst with a worker it is some dozens."""
    one_more = select(journal.c.id).order_by(journal.c.id).offset(entries).limit(1)
    return connection.execute(one_more).first() is not None


def speaks_of(connection: Connection, company_id: str) -> bool:
    """True when something waits that has changed this company's syncs or items."""
    named = journal.c.told.contains(orjson.dumps(company_id).decode(), autoescape=True)
    return connection.execute(select(journal.c.id).where(named).limit(1)).first() is not None


def work_off(database: Database, *, within_s: float = math.inf) -> int:
    """Tell and count what is in the journal by now; returns how many entries that were.

    Begins nothing more once the time is over. Any number may do so at once: each waits for the one
    before. Raises StorageUnavailable.
    """
    with database.reading() as connection:
        last = connection.execute(select(func.max(journal.c.id))).scalar()
    done, end = 0, time.monotonic() + within_s
    while last is not None and time.monotonic() < end:
        with database.writing() as connection:
            some = work_off_some(connection, last)
        done += some
        if some < AT_ONCE and not _is_left(database, last):
            break
    return done


def _is_left(database: Database, last: int) -> bool:
    with database.reading() as connection:
        some = select(journal.c.id).where(journal.c.id <= last).limit(1)
        return connection.execute(some).first() is not None


def work_off_some(connection: Connection, last: int | None = None) -> int:
    """Work off the oldest entries, up to one with a number, inside the caller's transaction.

    However long one is, it is carried out to its end: given up, it would stop all after it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    else:  # what is deleted must not stay in the file, or an erased company would live on there
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    gone = delete(journal).where(journal.c.id.in_(_oldest(connection, last)))
    rows = connection.execute(gone.returning(journal.c.id, journal.c.told, journal.c.counts)).all()
    entry = _together((row.told, row.counts) for row in sorted(rows))
    write(connection, changes.written(entry.changes))
    entry.tally.write(connection)
    return len(rows)


def _oldest(connection: Connection, last: int | None) -> list[int]:
    """The entries whose turn it is: so few that nobody waits long for their transaction."""
    size = func.length if connection.dialect.name == "sqlite" else func.octet_length
    oldest = select(journal.c.id, size(journal.c.told)).order_by(journal.c.id).limit(AT_ONCE)
    if last is not None:
        oldest = oldest.where(journal.c.id <= last)
    found = connection.execute(oldest).all()
    return [number for number, _ in first_within(found, LONG, lambda row: row[1])]


def _together(entries: Iterable[tuple[str, str]]) -> Entry:
    """These entries, oldest first, as one."""
    whole = Entry()
    for told, counted in entries:
        _add(whole, orjson.loads(told), orjson.loads(counted))
    return whole


def _add(whole: Entry, told: dict[str, Any], counted: list[dict[str, Any]]) -> None:
    for kind, company_id, sync_id, transaction_id, at, seen in told["changes"]:
        when = datetime.fromisoformat(at)
        whole.changes.append(Change(kind, company_id, sync_id, transaction_id, when, seen))
    for company_id, ids, may_open in told["touched"]:
        whole.tally.touch(company_id, ids, may_open)
    whole.tally.moved |= told["moved"]
    for company_id, sync_id in told.get("syncs", ()):  # which older versions do not write
        whole.tally.touch_sync(company_id, sync_id)
    for row in counted:
        whole.tally.changes[row["company_id"], row["day"], row["what"], row["status_code"]] += row[
            "change"
        ]
