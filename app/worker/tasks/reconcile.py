"""Reconciliation: compares what Codat lists with what is stored, and queues what differs.

Webhooks can be lost: endpoints are disabled, retries end after 28 hours, settings drop events. One
call lists a hundred companies, and one call a company's syncs; only a sync that differs costs more
(its status and transactions, fetched by the worker).

Codat's list has neither pages nor filters, so each call returns a company's whole history. A run
compares what is new in it: syncs later than `OVERLAP` before the latest one that was listed last
time (Codat retries a webhook for 28 hours: after that it is lost, and the next runs still compare
it), those in progress, and those without a time. Codat also changes old syncs, as after a retry in
the Portal. So a company is compared as a whole once in `FULLY_EVERY`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app import logging as log
from app.codat.client import CodatClient
from app.db import companies, reconciliation
from app.db.companies import Reconciled
from app.db.engine import Database, chunked
from app.db.reconciliation import Difference
from app.domain.models import Company, SyncStatus
from app.domain.status_codes import phase_of
from app.errors import CodatError, CodatRateLimited, CodatRefused
from app.worker.threads import read, write

STUCK_EVERY = timedelta(minutes=1)
COMPANIES_PER_CALL = 100
COMPANIES_PER_RUN = 500
OVERLAP = timedelta(hours=48)
FULLY_EVERY = timedelta(hours=24)
FAILURES_IN_A_ROW = 5  # of companies: then Codat is down, not one of their lists
WITHOUT_PRODUCT = frozenset({403, 404, 422})
REFUSES_ALL = frozenset({401, 402})  # the key, the plan
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
    without_product: int = 0
    left: int = 0
    not_due: int = 0
    differences: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.differences[kind]} {kind.replace('_', ' ')}" for kind in _KINDS)
        notes = {
            "differences were checked lately, or wait for a redrive": self.not_due,
            "companies without Sync for Expenses (403, 404, 422)": self.without_product,
            "companies could not be read": self.skipped,
            "companies are left for the next run": self.left,
        }
        return (
            f"{self.companies} companies, {self.syncs} syncs, {self.calls} calls to Codat: {counts}"
            + "".join(f"; {number} {text}" for text, number in notes.items() if number)
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
    fully_every: timedelta = timedelta()

    async def run(
        self,
        *,
        company_id: str | None = None,
        since: datetime | None = None,
        dry_run: bool = False,
    ) -> ReconcileReport:
        """Compare all companies, or one; syncs older than `since`, by Codat's time, are left out.

        Raises CodatError when the list of companies, or the one company, cannot be read, when calls
        must pause, and when Codat refuses all calls or is down: the other companies would fail too.
        Otherwise a company that cannot be read is skipped and counted.
        """
        report = ReconcileReport()
        if company_id is not None:
            try:
                await self._compare(company_id, Reconciled(), since, dry_run, report)
            except CodatRefused as error:
                if error.status == 404 or not _lacks_product(error):
                    raise
                report.without_product += 1
            return report
        done_before = await self._list_companies(dry_run, report)
        failures_in_a_row = 0
        reasons: Counter[str] = Counter()
        try:
            for listed_id, before in list(done_before.items())[: self.max_companies]:
                try:
                    await self._compare(listed_id, before, since, dry_run, report)
                    failures_in_a_row = 0
                except CodatError as error:
                    failures_in_a_row += not _lacks_product(error)
                    if _concerns_all(error) or failures_in_a_row == FAILURES_IN_A_ROW:
                        raise
                    reasons[str(error)] += not _lacks_product(error)
                    await self._skip(listed_id, error, dry_run, report)
        finally:
            for reason, number in (+reasons).items():
                _log.warning("could not compare companies", reason=reason, count=number)
        report.left = len(done_before) - report.companies
        return report

    async def _skip(
        self, company_id: str, error: CodatError, dry_run: bool, report: ReconcileReport
    ) -> None:
        if _lacks_product(error):
            report.without_product += 1
        else:
            report.skipped += 1
        self.report(f"{company_id}: {error}")
        if not dry_run:  # else it would come first in each run, and others never
            done = Reconciled(at=self.clock())
            await write(self.database, companies.mark_reconciled, company_id, done)

    async def _list_companies(
        self, dry_run: bool, report: ReconcileReport
    ) -> dict[str, Reconciled]:
        """All company ids, those compared longest ago first; stores names and connections."""
        requested_at = self.clock()
        listed: list[Company] = [company async for company in self.codat.list_companies()]
        for chunk in () if dry_run else chunked(listed, COMPANIES_PER_CALL):
            await write(self.database, companies.record_listed, chunk, as_of=requested_at)
        report.calls += max(1, -(-len(listed) // COMPANIES_PER_CALL))
        stored = await read(self.database, companies.reconciled)
        done = {company.company_id: Reconciled() for company in listed}
        done |= {company_id: stored[company_id] for company_id in done.keys() & stored.keys()}
        return dict(sorted(done.items(), key=lambda item: (item[1].at or _NEVER, item[0])))

    async def _compare(
        self,
        company_id: str,
        before: Reconciled,
        since: datetime | None,
        dry_run: bool,
        report: ReconcileReport,
    ) -> None:
        report.companies += 1
        report.calls += 1
        now = self.clock()
        is_full = before.fully_at is None or before.fully_at <= now - self.fully_every
        oldest = since
        if since is None and not is_full and before.through:
            oldest = before.through - OVERLAP
        through = before.through
        compared = found = 0
        async with aclosing(self.codat.list_statuses(company_id)) as parts:
            async for part in parts:
                statuses = [status for status in part if not _is_old(status, oldest, since)]
                compared += len(statuses)
                found += await self._compare_part(company_id, statuses, dry_run, report)
                times = [status.sync_utc for status in part if status.sync_utc]
                through = max([*times, through or _NEVER])
        report.syncs += compared
        if not dry_run:
            done = Reconciled(at=now)
            if since is None:
                # a time that lies ahead must not hide what comes before it
                through = min(through, now) if through and through > _NEVER else None
                done = Reconciled(at=now, fully_at=now if is_full else None, through=through)
            await write(self.database, companies.mark_reconciled, company_id, done)
        self.report(f"{company_id}: {compared} syncs, {found} differ")

    async def _compare_part(
        self,
        company_id: str,
        statuses: Sequence[SyncStatus],
        dry_run: bool,
        report: ReconcileReport,
    ) -> int:
        if not statuses:
            return 0
        now = self.clock()
        found = await read(
            self.database,
            reconciliation.differences,
            company_id,
            statuses,
            now=now,
            stuck_after=self.stuck_after,
        )
        due = [difference for difference in found if difference.is_due]
        for chunk in () if dry_run else chunked(due):
            await write(self.database, reconciliation.correct, company_id, chunk, now=now)
            _log_differences(company_id, chunk)
        report.differences.update(difference.kind for difference in found)
        report.not_due += len(found) - len(due)
        return len(found)


def _log_differences(company_id: str, differences: Sequence[Difference]) -> None:
    """One line per kind of difference."""
    for kind in _KINDS:
        ids = [difference.sync_id for difference in differences if difference.kind == kind]
        if ids:
            fields = {"count": len(ids), "company_id": company_id}
            listed = log.listed(sync_id=ids[: log.MAX_IDS])
            _log.info("syncs differ from Codat", difference=kind, **fields, **listed)


def _is_old(status: SyncStatus, oldest: datetime | None, since: datetime | None) -> bool:
    """Whether a sync need not be compared; one in progress always is, unless `since` is later."""
    if oldest is None or status.sync_utc is None or status.sync_utc >= oldest:
        return False
    return since is not None or phase_of(status.status_code) != "running"


def _lacks_product(error: CodatError) -> bool:
    """Whether Codat refused because Sync for Expenses is not set up for the company."""
    return isinstance(error, CodatRefused) and error.status in WITHOUT_PRODUCT


def _concerns_all(error: CodatError) -> bool:
    """Whether the calls for other companies would fail in the same way."""
    return isinstance(error, CodatRateLimited) or error.status in REFUSES_ALL
