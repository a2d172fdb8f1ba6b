"""Erasing a company: every trace of it, in small commits; stopped half-way, it can be run again.

A webhook that comes later, and a reconciliation while Codat still lists the company, make it known
anew: nothing is kept by which it could be recognised. So it is erased at Codat first.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from app import logging as log
from app.db import erasure, journal
from app.db.engine import Database
from app.db.recount import recount
from app.errors import NotKnown, StorageUnavailable

SYNCS_PER_COMMIT = 50
ROWS_PER_COMMIT = 500
PAUSE_S = 0.02
TRIES = 5
T = TypeVar("T")

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased, by table, and when it was done."""

    company_id: str
    at: datetime
    rows: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """A line per table, and a final one."""
        each = [f"{name}: {self.rows[name]}" for name in erasure.TABLES]
        total = f"{self.rows.total()} rows of company {self.company_id}"
        return [*each, f"erased {total}, {self.at:%Y-%m-%dT%H:%M:%SZ}"]


@dataclass(frozen=True, slots=True)
class Eraser:
    """Erases companies from one database."""

    database: Database
    clock: Callable[[], datetime]
    tell: Callable[[str], None] = lambda _: None

    def require_known(self, company_id: str) -> None:
        """Raise NotKnown when nothing of this company is kept."""
        with self.database.reading() as connection:
            if not erasure.is_known(connection, company_id):
                raise NotKnown(f"nothing of a company {company_id} is kept here")

    def erase(self, company_id: str) -> Receipt:
        """Erase until nothing is left. Raises StorageUnavailable; run it again then."""
        gone: Counter[str] = Counter()
        while some := self._patiently(lambda: self._some_syncs(company_id)):
            gone += some
            self.tell(f"{gone['syncs']} syncs erased")
        self._patiently(lambda: journal.work_off(self.database))  # it names the company too
        for name in erasure.NAMES:
            gone[name] += self._all_rows(name, company_id)
        recount(self.database)  # the totals by day, which do not say whose they are
        erasure.empty_log(self.database)
        _log.info("a company was erased", company_id=company_id, rows=gone.total())
        return Receipt(company_id, self.clock(), gone)

    def _all_rows(self, name: str, company_id: str) -> int:
        gone = 0
        while rows := self._patiently(lambda: self._some_rows(name, company_id)):
            gone += rows
        return gone

    def _some_syncs(self, company_id: str) -> Counter[str]:
        with self.database.writing() as connection:
            return erasure.erase_syncs(connection, company_id, SYNCS_PER_COMMIT)

    def _some_rows(self, name: str, company_id: str) -> int:
        with self.database.writing() as connection:
            return erasure.erase_rows(connection, name, company_id, ROWS_PER_COMMIT)

    def _patiently(self, step: Callable[[], T]) -> T:
        """One small commit; again when it met a worker that was writing the same sync."""
        for _ in range(TRIES - 1):
            try:
                time.sleep(PAUSE_S)
                return step()
            except StorageUnavailable:
                time.sleep(PAUSE_S * 10)
        return step()
