"""Erasure of a company: every trace of it, in small transactions; it can be run again.

A later webhook, and reconciliation while Codat still lists the company, store it again, because
nothing is left to recognize it by. So delete it at Codat first.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from app import logging as log
from app.db import erasure
from app.db.engine import Database
from app.errors import NotFound
from app.worker.threads import retry_conflicts, write_blocking

PAUSE_S = 0.02

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """How many rows were erased, by table, and when it was done."""

    company_id: str
    at: datetime
    rows: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """A line per table, and the total."""
        total = f"{self.rows.total()} rows of company {self.company_id}"
        return [
            *(f"{name}: {self.rows[name]}" for name in erasure.TABLES),
            f"Erased {total}, {self.at:%Y-%m-%dT%H:%M:%SZ}",
        ]


@dataclass(frozen=True, slots=True)
class Eraser:
    """Erases companies from one database; `report` receives the progress."""

    database: Database
    clock: Callable[[], datetime]
    report: Callable[[str], None] = lambda _: None

    def require_known(self, company_id: str) -> None:
        """Raise NotFound when nothing about this company is stored."""
        with self.database.reading() as connection:
            if not erasure.is_known(connection, company_id):
                raise NotFound(f"No data for company {company_id}.")

    def erase(self, company_id: str) -> Receipt:
        """Erase until nothing is left. Raises DatabaseUnavailable; then run it again."""
        erased: Counter[str] = Counter()
        for step in erasure.STEPS:
            while rows := self._erase(step, company_id):
                erased += rows
                if rows["syncs"]:
                    self.report(f"{erased['syncs']} sync{'s' * (erased['syncs'] > 1)} erased")
        erasure.truncate_wal(self.database)
        _log.info("company erased", company_id=company_id, rows=erased.total())
        return Receipt(company_id, self.clock(), erased)

    def _erase(self, step: str, company_id: str) -> Counter[str]:
        """One small transaction, retried when a worker is writing the same rows."""
        time.sleep(PAUSE_S)
        return retry_conflicts(
            partial(write_blocking, self.database, erasure.erase, step, company_id)
        )
