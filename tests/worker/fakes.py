"""A scripted Codat, a clock that a test moves, and claims as a worker makes them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.codat.client import CodatClient
from app.codat.responses import TransactionList
from app.db import jobs, workers
from app.db.engine import Database
from app.db.jobs import Claim, Kind
from app.db.sync_rows import to_sync
from app.domain.models import Company, PlatformConnection, SyncStatus, Transaction
from app.domain.sync_state import errors_state
from app.errors import CodatError
from app.worker.fetcher import Fetcher
from app.worker.job_pool import LEASE, AttemptResult
from app.worker.tasks.reconcile import Reconciler, ReconcileReport
from tests.factories import T0, after, fetch_job, sync_row

FEED_ERROR = (
    "An error occurred in a downstream service. Correlation ID: "
    "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004. Message:  Feed Connection failed(409)"
)


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: datetime = T0) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@dataclass
class FakeCodat(CodatClient):
    """Codat with scripted answers; it records the calls. `meanwhile` runs while it answers."""

    code: int | None = 5130
    transactions: tuple[Transaction, ...] = (
        Transaction("t1", "PushError", FEED_ERROR, "expense"),
        Transaction("t2", "Completed"),
    )
    expected: int | None = None
    steady: bool = True
    status_error: CodatError | None = None
    list_error: CodatError | None = None
    meanwhile: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)

    async def get_status(self, company_id: str, sync_id: str) -> SyncStatus:
        self.calls.append(f"status {company_id}/{sync_id}")
        if self.status_error:
            await asyncio.to_thread(self.meanwhile)
            raise self.status_error
        return status(sync_id, self.code, company_id=company_id)

    async def list_transactions(
        self, company_id: str, sync_id: str, *, page_size: int = 100
    ) -> TransactionList:
        self.calls.append(f"list {company_id}/{sync_id}")
        if self.list_error:
            raise self.list_error
        await asyncio.to_thread(self.meanwhile)
        expected = len(self.transactions) if self.expected is None else self.expected
        return TransactionList(self.transactions, expected, self.steady)


WRITTEN = (Transaction("t", "Completed"),)


def claim_jobs(
    database: Database, kind: Kind = "fetch", *, now: datetime = T0, limit: int = 1
) -> list[Claim]:
    """Claim due jobs as a worker that is alive."""
    with database.writing() as connection:
        workers.beat(connection, "w", now)
        return jobs.claim(connection, kind, now=now, lease=LEASE, limit=limit, worker_id="w")


def fetch(
    database: Database, codat: FakeCodat, *, max_attempts: int = 12, clock: Clock | None = None
) -> AttemptResult:
    """Claim the one due fetch and carry it out."""
    now = clock or Clock()
    (claim,) = claim_jobs(database, now=now())
    fetcher = Fetcher(database, codat, now, max_attempts=max_attempts, random=lambda: 0.0)
    return asyncio.run(fetcher.handle(claim))


def job_of(database: Database, *columns: str, sync_id: str = "s1") -> tuple[Any, ...]:
    """These columns of a sync's fetch job."""
    job = fetch_job(database, sync_id)
    assert job is not None
    return tuple(job[name] for name in columns)


def visible(database: Database, sync_id: str = "s1") -> tuple[str, str, str]:
    """A sync's state, outcome, and how much is known of its errors."""
    row, (job_state,) = sync_row(database, sync_id), job_of(database, "state", sync_id=sync_id)
    return row["state"], row["outcome"], errors_state(to_sync(row), job_state)


@dataclass
class FakeLists(CodatClient):
    """Codat's lists: the syncs of each company."""

    syncs: dict[str, list[SyncStatus]] = field(default_factory=dict)
    errors: dict[str, CodatError] = field(default_factory=dict)
    connections: tuple[PlatformConnection, ...] | None = None
    per_part: int = 2
    calls: list[str] = field(default_factory=list)

    async def list_companies(self) -> AsyncIterator[Company]:
        for company_id in self.syncs:
            yield Company(company_id, "Toft stores", self.connections)

    async def list_statuses(
        self, company_id: str, *, within_s: float = 600
    ) -> AsyncGenerator[list[SyncStatus], None]:
        self.calls.append(company_id)
        if company_id in self.errors:
            raise self.errors[company_id]
        for n in range(0, len(self.syncs[company_id]), self.per_part):
            yield self.syncs[company_id][n : n + self.per_part]


def status(sync_id: str, code: int | None = 5130, **fields: Any) -> SyncStatus:
    """What `FakeCodat` answers about a sync of company c1."""
    at = after(minutes=3)
    texts = ("PushError", "error text", "exception text")
    answer = SyncStatus("c1", sync_id, code, *texts, data_pushed=False, sync_utc=at)
    return replace(answer, **fields)


def reconcile(
    database: Database, codat: FakeLists, *, clock: Clock | None = None, **options: Any
) -> ReconcileReport:
    """One run with a stuck-after of an hour."""
    hour = timedelta(hours=1)
    reconciler = Reconciler(database, codat, clock or Clock(), stuck_after=hour)
    return asyncio.run(reconciler.run(**options))
