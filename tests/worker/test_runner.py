"""The worker's loops: limits, leases, heartbeats, take-over, shutdown, an outage."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.db import jobs, workers
from app.db.engine import Database, open_database
from app.db.jobs import Claim
from app.db.tables import jobs as jobs_table
from app.db.tables import workers as workers_table
from app.domain.models import SyncStatus
from app.errors import DatabaseDown, DatabaseRejected
from app.worker import job_pool
from app.worker import runner as runner_module
from app.worker.fetcher import Fetcher
from app.worker.job_pool import LEASE, AttemptResult, JobPool
from app.worker.projector import Projector
from app.worker.runner import FETCHES_PER_COMPANY, Runner
from tests.factories import STARTED, T0, add_event, after, deliver, project
from tests.worker.fakes import Clock, FakeCodat, claim_jobs, job_of, visible


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short polls and heartbeats."""
    monkeypatch.setattr(runner_module, "JOB_POLL_S", 0.01)
    monkeypatch.setattr(runner_module, "EVENT_POLL_S", 0.01)
    monkeypatch.setattr(runner_module, "DOWN_POLL_S", 0.01)
    monkeypatch.setattr(runner_module, "HEARTBEAT_EVERY_S", 0.05)


def make_runner(
    database: Database, codat: FakeCodat, clock: Clock | None = None, **options: Any
) -> Runner:
    now = clock or Clock()
    fetcher = Fetcher(database, codat, now, max_attempts=12, random=lambda: 0.0)
    projector = options.pop("projector", Projector(database, now))
    return Runner(database, clock=now, projector=projector, fetcher=fetcher, **options)


async def until(condition: Callable[[], object], timeout_s: float = 10) -> None:
    """Wait in the event loop; the condition may block."""
    async with asyncio.timeout(timeout_s):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


def run_until(runner: Runner, condition: Callable[[], object]) -> None:
    """Run the worker until a condition holds, and stop it."""

    async def run() -> None:
        running = asyncio.create_task(runner.run())
        try:
            await until(condition)
        finally:
            runner.stop()
            await running

    asyncio.run(run())


def deliver_failed(database: Database, sync_ids: Iterable[str], **fields: Any) -> None:
    for sync_id in sync_ids:
        add_event(database, f"m-{sync_id}", sync_id=sync_id, **fields)


def job_states(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(jobs_table.c.state)).scalars())


def worker_ids(database: Database) -> list[str]:
    with database.reading() as connection:
        return list(connection.execute(select(workers_table.c.worker_id)).scalars())


def test_events_are_projected_and_every_sync_is_fetched_once(database: Database) -> None:
    deliver_failed(database, [f"s{n}" for n in range(20)])
    add_event(database, "start", sync_id="running", event_type=STARTED)
    codat = FakeCodat()
    attempts: list[tuple[str, str]] = []
    runner = make_runner(
        database, codat, on_attempt=lambda kind, result: attempts.append((kind, result))
    )
    run_until(runner, lambda: job_states(database) == ["done"] * 20)
    assert sorted(codat.calls) == sorted(
        f"{call} c1/s{n}" for n in range(20) for call in ("status", "list")
    )
    assert attempts == [("fetch", "done")] * 20
    assert worker_ids(database) == []


def test_wake_makes_polling_unnecessary(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are projected and fetched as soon as they are stored in the same process."""
    monkeypatch.setattr(runner_module, "JOB_POLL_S", 60)
    monkeypatch.setattr(runner_module, "EVENT_POLL_S", 60)
    runner = make_runner(database, FakeCodat())
    runner.wake()  # harmless before it runs

    async def run() -> None:
        running = asyncio.create_task(runner.run())
        await until(lambda: worker_ids(database))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(add_event, database, "m1")
        await asyncio.to_thread(runner.wake)
        await until(lambda: job_states(database) == ["done"])
        runner.stop()
        await running

    asyncio.run(run())
    assert visible(database)[2] == "fetched"


class HangingCodat(FakeCodat):
    """Does not answer for one company."""

    async def get_status(self, company_id: str, sync_id: str) -> SyncStatus:
        self.calls.append(company_id)
        if company_id == "slow":
            await asyncio.sleep(60)
        return await super().get_status(company_id, sync_id)


def test_a_slow_company_does_not_delay_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty of its syncs are due first; six are in hand, and another company is fetched."""
    monkeypatch.setattr(runner_module, "GRACE_S", 0.05)
    deliver_failed(database, [f"s{n}" for n in range(20)], company_id="slow")
    project(database)
    deliver(database, "late", company_id="quick", at=after(seconds=1))
    codat = HangingCodat()
    runner = make_runner(database, codat, Clock(after(seconds=2)))
    run_until(runner, lambda: "list quick/s1" in codat.calls)
    assert codat.calls.count("slow") == FETCHES_PER_COMPANY


def test_jobs_in_hand_are_released_on_stop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker can claim them now, and no attempt is lost."""
    monkeypatch.setattr(runner_module, "GRACE_S", 0.05)
    deliver(database, "m1", company_id="slow")
    codat = HangingCodat()
    run_until(make_runner(database, codat), lambda: codat.calls)
    job = job_of(database, "state", "run_at", "lease_token", "attempts")
    assert job == ("pending", T0, None, 0)
    assert worker_ids(database) == []


def test_an_unexpected_error_does_not_end_the_loops(database: Database) -> None:
    calls: list[str] = []

    class BrokenFirst(Projector):
        def project_pending(self) -> int:
            calls.append("project")
            if len(calls) == 1:
                raise KeyError("unexpected")
            return super().project_pending()

    class BrokenCodat(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> SyncStatus:
            if sync_id == "s0":
                raise KeyError("unexpected")
            return await super().get_status(company_id, sync_id)

    deliver_failed(database, ["s0", "s1", "s2"])
    runner = make_runner(database, BrokenCodat(), projector=BrokenFirst(database, Clock()))
    run_until(runner, lambda: sorted(job_states(database)) == ["done", "done", "pending"])
    assert len(calls) > 1


def run_pool(
    database: Database,
    handle: Callable[[Claim], Awaitable[AttemptResult]],
    clock: Clock,
    results: list[str],
) -> None:
    """Claim the due fetches once, and wait for their end."""

    async def run() -> None:
        pool = JobPool(
            database,
            "fetch",
            handle,
            clock=clock,
            worker_id="w",
            limit=4,
            per_group=4,
            on_attempt=lambda _kind, result: results.append(result),
        )
        await pool.claim_due()
        await pool.shut_down(60)

    asyncio.run(run())


def test_a_lease_is_renewed_while_its_handler_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a second worker would make the same calls, and each claim count as an attempt."""
    monkeypatch.setattr(job_pool, "RENEW_EVERY_S", 0.02)
    deliver(database, "m1")
    clock = Clock()
    stolen: list[Claim] = []

    async def handle(claim: Claim) -> AttemptResult:
        for _ in range(3):
            clock.now += LEASE * 0.8
            await asyncio.sleep(0.1)
            stolen.extend(await asyncio.to_thread(claim_jobs, database, now=clock.now))
        return "done"

    results: list[str] = []
    run_pool(database, handle, clock, results)
    assert (stolen, results) == ([], ["done"])


def test_a_lost_lease_cancels_the_handler(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls to Codat would be of no use."""
    monkeypatch.setattr(job_pool, "RENEW_EVERY_S", 0.02)
    monkeypatch.setattr(job_pool, "FINISH_WITHIN_S", 0.02)
    deliver(database, "m1")
    cancelled: list[bool] = []

    async def handle(claim: Claim) -> AttemptResult:
        try:
            late = T0 + LEASE + timedelta(seconds=1)
            await asyncio.to_thread(claim_jobs, database, now=late)
            await asyncio.sleep(60)
        finally:
            cancelled.append(True)
        return "done"

    results: list[str] = []
    run_pool(database, handle, Clock(), results)
    assert (cancelled, results) == ([True], ["lost"])


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(KeyError("unexpected"), 1), (DatabaseRejected("x"), 1), (DatabaseDown("busy"), 0)],
)
def test_a_result_that_cannot_be_recorded_is_retried_soon(
    database: Database, error: Exception, attempts: int
) -> None:
    """Before the lease expires; a database that is down costs no attempt."""
    deliver(database, "m1")

    async def handle(claim: Claim) -> AttemptResult:
        raise error

    results: list[str] = []
    run_pool(database, handle, Clock(), results)
    assert results == ["error"]
    expected = ("pending", attempts, after(seconds=5))
    assert job_of(database, "state", "attempts", "run_at") == expected


def beat(database: Database, worker_id: str, at: datetime) -> None:
    with database.writing() as connection:
        workers.beat(connection, worker_id, at)


def holder(database: Database) -> str | None:
    """The worker that has the one job in hand."""
    with database.reading() as connection:
        worker_id: str | None = connection.execute(select(jobs_table.c.worker_id)).scalar_one()
        return worker_id


def test_a_dead_workers_jobs_are_taken_over_within_seconds(database: Database) -> None:
    """Its lease would hold for a minute."""
    deliver(database, "m1")
    claim_jobs(database)
    alive: list[int] = []
    clock = Clock()
    runner = make_runner(database, FakeCodat(), clock, on_heartbeat=alive.append)

    def advance() -> bool:
        clock.now = after(seconds=3 * len(alive))
        return job_states(database) == ["done"] and alive[-1] == 1

    run_until(runner, advance)
    assert alive[0] == 2
    assert after(seconds=10) <= clock.now < after(seconds=50)


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_a_worker_on_a_host_with_another_clock_is_not_judged_by_it(
    database: Database, skew: int
) -> None:
    """Its heartbeats change, whatever they say."""
    deliver(database, "m1")
    claim_jobs(database)
    clock = Clock(after(seconds=skew))
    runner = make_runner(database, FakeCodat(), clock)
    for seconds in range(0, 30, 3):
        clock.now = after(seconds=skew + seconds)
        beat(database, "w", after(seconds=seconds))
        runner._beat()
    assert holder(database) == "w"


def test_no_worker_is_judged_right_after_an_outage(database: Database) -> None:
    """No worker could send a heartbeat meanwhile, so none is dead; a new one cannot know it."""
    deliver(database, "m1")
    claim_jobs(database)
    clock = Clock()
    old, new = (make_runner(database, FakeCodat(), clock) for _ in range(2))
    old._beat()
    clock.now = after(seconds=40)
    new._beat()
    for seconds in (40, 43, 46, 49):
        clock.now = after(seconds=seconds)
        old._beat()
        new._beat()
        assert holder(database) == "w"
    clock.now = after(seconds=50)
    old._beat()
    assert holder(database) is None


def test_a_database_that_is_down_is_waited_for_and_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However many loops poll; and the worker can be stopped meanwhile."""
    database = open_database("postgresql://u:canary@127.0.0.1:1/x")

    async def run() -> None:
        runner = make_runner(database, FakeCodat())
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.5)
        runner.stop()
        await asyncio.wait_for(running, 3)

    asyncio.run(run())
    database.close()
    output = capsys.readouterr().out
    assert output.count("the database is down") == 1
    assert "canary" not in output


def test_a_heartbeat_does_not_wait_for_connections_that_queries_hold(database_url: str) -> None:
    """Or other workers would take over the jobs of one that is only busy."""
    database = open_database(database_url, pool_size=1)
    runner = make_runner(database, FakeCodat())
    with database.reading() as connection:
        connection.execute(select(workers_table))
        assert runner._beat() == 1
    database.close()


def test_nothing_is_claimed_before_the_first_heartbeat(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker would immediately take over what an unknown worker holds."""
    deliver(database, "m1")
    order: list[str] = []
    claim, beat_ = jobs.claim, workers.beat

    def noted_claim(*args: Any, **kwargs: Any) -> list[Claim]:
        order.append("claim")
        return claim(*args, **kwargs)

    def noted_beat(*args: Any) -> None:
        order.append("beat")
        beat_(*args)

    monkeypatch.setattr(jobs, "claim", noted_claim)
    monkeypatch.setattr(workers, "beat", noted_beat)
    run_until(make_runner(database, FakeCodat()), lambda: job_states(database) == ["done"])
    assert order[0] == "beat"
