"""Reconciliation: asks Codat what it knows, and mends what differs.

Webhooks get lost: endpoints are disabled, retries end after 28 hours, settings drop events. So
Codat's own lists are compared with what is kept. One call lists a hundred companies, one call lists
a company's syncs; only a sync that differs costs more (its status and list, by the worker).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app import logging as log
from app.db import reconciliation as compare
from app.db.engine import Database
from app.db.reconciliation import Found, Named
from app.db.slices import chunked
from app.domain.models import CodatStatus
from app.errors import CodatError, CodatRateLimited, CodatRefused

COMPANIES_PER_CALL = 100
COMPANIES_PER_PASS = 500
NEVER = datetime.min.replace(tzinfo=UTC)

_log = log.get(__name__)


class Listed(Protocol):
    """A company as Codat lists it."""

    @property
    def company_id(self) -> str:
        """Codat's id."""

    @property
    def name(self) -> str | None:
        """Its name, if it has one."""


class ListsCodat(Protocol):
    """What reconciliation needs of the Codat client."""

    def list_companies(self) -> AsyncIterator[Listed]:
        """All companies; raises CodatError."""

    async def list_statuses(self, company_id: str) -> list[CodatStatus]:
        """All syncs of one; raises CodatError."""


@dataclass
class Report:
    """What a pass did. `calls` are those to Codat, whether answered or not; the fetches that are
    owed afterwards cost a status and the list's pages each.
    """

    companies: int = 0
    syncs: int = 0
    calls: int = 0
    skipped: int = 0
    left: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ("never_announced", "disagrees", "given_up", "incomplete", "stuck")
        counts = ", ".join(f"{self.found[kind]} {kind.replace('_', ' ')}" for kind in kinds)
        skipped = f"; {self.skipped} companies could not be read" if self.skipped else ""
        left = f"; {self.left} companies are left for the next pass" if self.left else ""
        cost = f"{self.calls} calls to Codat"
        return f"{self.companies} companies, {self.syncs} syncs, {cost}: {counts}{skipped}{left}"


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Compares. A pass asks about at most `most_companies`, those compared longest ago first."""

    database: Database
    codat: "ListsCodat"
    clock: Callable[[], datetime]
    stuck_after: timedelta
    tell: Callable[[str], None] = lambda _: None
    most_companies: int | None = None

    async def run(
        self,
        *,
        company_id: str | None = None,
        since: datetime | None = None,
        dry_run: bool = False,
    ) -> Report:
        """One pass over all companies, or one; syncs older than `since` by Codat's time are left.

        Raises CodatError when the list of companies, or the one company, cannot be read, or all
        calls must rest; of all companies one that cannot be read is skipped and counted.
        """
        report = Report()
        if company_id is not None:
            await self._compare(company_id, Named(None, NEVER), since, dry_run, report)
            return report
        asked_at = self.clock()
        names = {each.company_id: each.name async for each in self.codat.list_companies()}
        report.calls += max(1, -(-len(names) // COMPANIES_PER_CALL))
        turn = await asyncio.to_thread(self._longest_ago_first, list(names))
        for each in turn[: self.most_companies]:
            with self._skipping(each, report):
                await self._compare(each, Named(names[each], asked_at), since, dry_run, report)
        report.left = len(names) - report.companies
        return report

    def _longest_ago_first(self, company_ids: list[str]) -> list[str]:
        with self.database.reading() as connection:
            seen = compare.reconciled_at(connection)
        return sorted(company_ids, key=lambda each: (seen.get(each, NEVER), each))

    @contextmanager
    def _skipping(self, company_id: str, report: Report) -> Iterator[None]:
        try:
            yield
        except CodatRateLimited:
            raise
        except CodatError as error:
            # 404 is a company that never had this product: no news, and no trouble
            report.skipped += not (isinstance(error, CodatRefused) and error.status == 404)
            self.tell(f"{company_id}: {error}")

    async def _compare(
        self,
        company_id: str,
        named: Named,
        since: datetime | None,
        dry_run: bool,
        report: Report,
    ) -> None:
        report.companies += 1
        report.calls += 1
        told = await self.codat.list_statuses(company_id)
        recent = [s for s in told if since is None or s.sync_utc is None or s.sync_utc >= since]
        report.syncs += len(recent)
        found = await asyncio.to_thread(self._mend, company_id, named, recent, dry_run)
        report.found.update(each.difference for each in found)
        self.tell(f"{company_id}: {len(recent)} syncs, {len(found)} differ")

    def _mend(
        self, company_id: str, named: Named, told: list[CodatStatus], dry_run: bool
    ) -> list[Found]:
        now = self.clock()
        with self.database.reading() as connection:
            found = compare.differences(
                connection, company_id, told, now=now, stuck_after=self.stuck_after
            )
        if dry_run:
            return found
        for some in [*chunked(found)] or [()]:
            with self.database.writing() as connection:
                compare.know_company(connection, company_id, named, now)
                compare.mend(connection, company_id, some, now)
        for each in found:
            _log.info(
                "a sync differs from Codat's",
                difference=each.difference,
                sync_id=each.sync_id,
                company_id=company_id,
            )
        return found
