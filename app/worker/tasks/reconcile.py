"""Reconciliation: compares what Codat lists with what is stored, and queues what differs.

Webhooks can be lost: endpoints are disabled, retries end after 28 hours, settings drop events. One
call lists a hundred companies, and one call a company's syncs; only a sync that differs costs more
(its status and transactions, fetched by the worker).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app import logging as log
from app.codat.client import CodatClient
from app.db import companies, reconciliation
from app.db.engine import Database, chunked
from app.domain.models import Company
from app.errors import CodatError, CodatRateLimited, CodatRefused
from app.worker.threads import read, write

STUCK_EVERY = timedelta(minutes=1)
COMPANIES_PER_CALL = 100
COMPANIES_PER_RUN = 500
_NEVER = datetime.min.replace(tzinfo=UTC)
_KINDS = ("never_announced", "disagrees", "given_up", "incomplete", "stuck")

_log = log.get(__name__)


async def enqueue_stuck(
    database: Database, clock: Callable[[], datetime], stuck_after: timedelta
) -> str:
    """Enqueue a fetch of each sync that has been in progress for longer than `stuck_after`.

    Its last event may have been lost. Returns how many, as text.
    """
    now = clock()
    before = now - stuck_after
    count = await write(database, reconciliation.enqueue_stuck, before=before, now=now)
    return f"{count} fetches enqueued"


@dataclass
class ReconcileReport:
    """What a run did. `calls` are those to Codat; the fetches that it queued are not included."""

    companies: int = 0
    syncs: int = 0
    calls: int = 0
    skipped: int = 0
    left: int = 0
    differences: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.differences[kind]} {kind.replace('_', ' ')}" for kind in _KINDS)
        skipped = f"; {self.skipped} companies could not be read" if self.skipped else ""
        left = f"; {self.left} companies are left for the next run" if self.left else ""
        return (
            f"{self.companies} companies, {self.syncs} syncs, {self.calls} calls to Codat: "
            f"{counts}{skipped}{left}"
        )


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Compares; a run covers at most `max_companies`, those compared longest ago first."""

    database: Database
    codat: CodatClient
    clock: Callable[[], datetime]
    stuck_after: timedelta
    report: Callable[[str], None] = lambda _: None
    max_companies: int | None = None

    async def run(
        self,
        *,
        company_id: str | None = None,
        since: datetime | None = None,
        dry_run: bool = False,
    ) -> ReconcileReport:
        """Compare all companies, or one; syncs older than `since`, by Codat's time, are left out.

        Raises CodatError when the list of companies, or the one company, cannot be read, or when
        calls must pause. Of all companies, one that cannot be read is skipped and counted.
        """
        report = ReconcileReport()
        if company_id is not None:
            await self._compare(company_id, since, dry_run, report)
            return report
        company_ids = await self._list_companies(dry_run, report)
        for listed_id in company_ids[: self.max_companies]:
            try:
                await self._compare(listed_id, since, dry_run, report)
            except CodatRateLimited:
                raise
            except CodatError as error:
                # 404: a company without this product, which is no problem
                report.skipped += not (isinstance(error, CodatRefused) and error.status == 404)
                self.report(f"{listed_id}: {error}")
                if not dry_run:  # else it would come first in each run, and others never
                    now = self.clock()
                    await write(self.database, companies.mark_reconciled, listed_id, now)
        report.left = len(company_ids) - report.companies
        return report

    async def _list_companies(self, dry_run: bool, report: ReconcileReport) -> list[str]:
        """All company ids, those compared longest ago first; stores names and connections."""
        requested_at = self.clock()
        listed: list[Company] = [company async for company in self.codat.list_companies()]
        for chunk in () if dry_run else chunked(listed, COMPANIES_PER_CALL):
            await write(self.database, companies.record_listed, chunk, as_of=requested_at)
        report.calls += max(1, -(-len(listed) // COMPANIES_PER_CALL))
        compared_at = await read(self.database, companies.reconciled_at)
        ids = {company.company_id for company in listed}
        return sorted(ids, key=lambda company_id: (compared_at.get(company_id, _NEVER), company_id))

    async def _compare(
        self, company_id: str, since: datetime | None, dry_run: bool, report: ReconcileReport
    ) -> None:
        report.companies += 1
        report.calls += 1
        statuses = [
            status
            for status in await self.codat.list_statuses(company_id)
            if since is None or status.sync_utc is None or status.sync_utc >= since
        ]
        report.syncs += len(statuses)
        found = await read(
            self.database,
            reconciliation.differences,
            company_id,
            statuses,
            now=self.clock(),
            stuck_after=self.stuck_after,
        )
        if not dry_run:
            now = self.clock()
            for chunk in chunked(found):
                await write(self.database, reconciliation.correct, company_id, chunk, now=now)
            await write(self.database, companies.mark_reconciled, company_id, now)
            for difference in found:
                ids = {"sync_id": difference.sync_id, "company_id": company_id}
                _log.info("sync differs from Codat", difference=difference.kind, **ids)
        report.differences.update(difference.kind for difference in found)
        self.report(f"{company_id}: {len(statuses)} syncs, {len(found)} differ")
