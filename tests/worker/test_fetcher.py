"""A failed sync's fetch, from the claim to a recorded end, whatever Codat answers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from app.db import jobs as owed
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.keep import keep_all
from app.db.sync_rows import to_sync
from app.db.tables import notes
from app.domain.models import CodatStatus, Item
from app.domain.sync_state import errors_state
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.fetcher import LEASE, Fetcher
from app.worker.runner import AT_ONCE_OF_ONE, Worker
from tests.reports import (
    COMPLETED,
    FAILED,
    STARTED,
    T0,
    after,
    delivery,
    fetch_row,
    item_rows,
    sync_row,
)

FEED = (
    "An error occurred in a downstream service. Correlation ID: "
    "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004. Message:  Feed Connection failed(409)"
)


@dataclass
class List:
    items: tuple[Item, ...] = ()
    expected: int | None = None
    steady: bool = True


@dataclass
class FakeCodat:
    """Codat with scripted answers; it records what it was asked."""

    code: int | None = 5130
    items: tuple[Item, ...] = (Item("t1", "PushError", FEED, "expense"), Item("t2", "Completed"))
    expected: int | None = None
    steady: bool = True
    status_error: CodatError | None = None
    list_error: CodatError | None = None
    meanwhile: Callable[[], None] = lambda: None
    asked: list[str] = field(default_factory=list)

    async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
        self.asked.append(f"status {company_id}/{sync_id}")
        if self.status_error:
            raise self.status_error
        return CodatStatus(
            company_id, sync_id, self.code, "PushError", "said", "thrown", False, after(minutes=3)
        )

    async def list_transactions(self, company_id: str, sync_id: str) -> List:
        self.asked.append(f"list {company_id}/{sync_id}")
        if self.list_error:
            raise self.list_error
        self.meanwhile()
        expected = len(self.items) if self.expected is None else self.expected
        return List(self.items, expected, self.steady)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now


def tell(database: Database, message_id: str = "m1", event: str = FAILED) -> None:
    with database.writing() as connection:
        keep_all(connection, [delivery(message_id, event)])


def claim(database: Database, now: datetime = T0) -> Claim:
    with database.writing() as connection:
        (claimed,) = owed.claim(connection, now=now, lease=LEASE, limit=1)
        return claimed


def fetch(
    database: Database, codat: FakeCodat, *, attempts: int = 12, clock: Clock | None = None
) -> None:
    now = clock or Clock()
    fetcher = Fetcher(database, codat, attempts, now, luck=lambda: 0.0)
    asyncio.run(fetcher.fetch(claim(database, now())))


def shown(database: Database) -> tuple[str, str, str]:
    row, owing = sync_row(database), fetch_row(database)
    assert owing is not None
    return row["state"], row["outcome"], errors_state(to_sync(row), owing["state"])


def test_a_failed_sync_gets_its_code_its_messages_and_every_items_error(
    database: Database,
) -> None:
    """The main job, in one go."""
    tell(database)
    fetch(database, FakeCodat())
    row = sync_row(database)
    assert (row["status_code"], row["error_message"], row["exception_message"]) == (
        5130,
        "said",
        "thrown",
    )
    assert (row["finished_at"], row["data_pushed"]) == (after(minutes=3), False)
    first, second = item_rows(database)
    assert (first["message"], first["failed"], second["failed"]) == (FEED, True, False)
    assert first["correlation_id"] == "0e7ee4bc-50d2-4e07-8f9e-25fdda6bc004"
    assert shown(database) == ("failed", "partly_failed", "fetched")


def test_a_completed_event_makes_codat_say_whether_all_was_written(database: Database) -> None:
    """Completed means finished: the status and the list say how."""
    tell(database, event=COMPLETED)
    codat = FakeCodat(code=2000, items=(Item("t1", "Completed"),))
    fetch(database, codat)
    assert codat.asked == ["status c1/s1", "list c1/s1"]
    assert shown(database) == ("completed", "all_written", "not_needed")


def test_a_completed_event_for_a_sync_that_failed_ends_failed(database: Database) -> None:
    """Codat sends SyncCompleted for syncs with failures too."""
    tell(database, event=COMPLETED)
    fetch(database, FakeCodat())
    assert shown(database) == ("failed", "partly_failed", "fetched")


def test_a_failed_event_is_overruled_by_codats_own_status(database: Database) -> None:
    """Failed beats completed only until Codat says otherwise."""
    tell(database)
    fetch(database, FakeCodat(code=2040, items=()))
    assert shown(database) == ("completed", "nothing_to_write", "not_needed")


def test_identical_rows_are_all_kept_in_order(database: Database) -> None:
    """Codat's documented sample lists one row twice."""
    row = Item("t1", "PushError", FEED, "bankfeeds")
    tell(database)
    fetch(database, FakeCodat(items=(row, row)))
    assert [r["position"] for r in item_rows(database)] == [0, 1]
    assert sync_row(database)["total"] == 2


def test_a_second_read_replaces_the_whole_set(database: Database) -> None:
    """No row of an older list survives."""
    tell(database)
    fetch(database, FakeCodat(items=tuple(Item(str(n), "PushError") for n in range(7))))
    tell(database, "m2")
    fetch(database, FakeCodat(items=(Item("only", "Completed"),), code=2000))
    assert [r["transaction_id"] for r in item_rows(database)] == ["only"]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 422])
def test_a_final_refusal_gives_up_at_once_and_says_why(database: Database, status: int) -> None:
    """A Portal example's sync does not exist; a wrong key does not get better."""
    tell(database)
    fetch(database, FakeCodat(status_error=CodatRefused(f"{status}: no", status=status)))
    owing = fetch_row(database)
    assert owing is not None
    assert str(status) in owing["last_error"]
    assert shown(database) == ("failed", "failed", "given_up")


def test_a_refused_list_still_records_the_status(database: Database) -> None:
    """What Codat did say is not thrown away."""
    tell(database)
    fetch(database, FakeCodat(list_error=CodatRefused("404: no", status=404)))
    assert sync_row(database)["status_code"] == 5130
    assert shown(database) == ("failed", "failed", "given_up")


def test_a_status_is_kept_though_the_list_fails_for_now(database: Database) -> None:
    """The list comes later; what is known already can be seen meanwhile."""
    tell(database)
    fetch(database, FakeCodat(list_error=CodatUnavailable("503", status=503)))
    assert sync_row(database)["status_code"] == 5130
    assert shown(database) == ("failed", "failed", "waiting")


def test_what_nobody_foresaw_is_put_off_with_its_name(database: Database) -> None:
    """No lease has to run out first, and the reason can be seen."""
    tell(database)
    broken = FakeCodat()
    broken.meanwhile = lambda: {}["nothing"]  # type: ignore[index]
    fetch(database, broken)
    owing = fetch_row(database)
    assert owing is not None
    assert (owing["state"], owing["last_error"]) == ("owed", "asking failed: KeyError")


def test_an_outage_is_waited_out_with_growing_pauses(database: Database) -> None:
    """The next try and the reason can be seen meanwhile."""
    tell(database)
    clock = Clock()
    pauses = []
    for _ in range(3):
        fetch(database, FakeCodat(status_error=CodatUnavailable("503")), clock=clock)
        owing = fetch_row(database)
        assert owing is not None
        assert owing["last_error"] == "503"
        pauses.append(owing["due"] - clock.now)
        clock.now = owing["due"]
    assert pauses == [timedelta(seconds=s) for s in (2, 6, 18)]
    assert shown(database) == ("failed", "failed", "waiting")


def test_the_last_attempt_gives_up_visibly(database: Database) -> None:
    """FETCH_MAX_ATTEMPTS is the end of it, until somebody redrives."""
    tell(database)
    fetch(database, FakeCodat(list_error=CodatUnavailable("503")), attempts=1)
    assert shown(database)[2] == "given_up"


def test_a_poisonous_fetch_ends_dead_and_not_in_a_loop(database: Database) -> None:
    """A fetch whose worker is killed each time never ends an attempt; the claims are counted."""
    tell(database)
    now = T0
    for _ in range(3):
        claim(database, now)
        now += LEASE + timedelta(seconds=1)
    clock = Clock()
    clock.now = now
    codat = FakeCodat()
    fetch(database, codat, attempts=3, clock=clock)
    assert codat.asked == []
    assert shown(database)[2] == "given_up"


def test_a_rate_limit_closes_the_gate_for_everybody(database: Database) -> None:
    """No replica asks again before Codat said so, and no attempt is lost."""
    tell(database)
    limited = CodatRateLimited("429", status=429, retry_after=timedelta(seconds=40))
    fetch(database, FakeCodat(status_error=limited))
    with database.writing() as connection:
        keep_all(connection, [delivery("m9", sync_id="s9")])
        assert owed.claim(connection, now=after(seconds=39), lease=LEASE, limit=9) == []
        claims = owed.claim(connection, now=after(seconds=40), lease=LEASE, limit=9)
    assert sorted((c.sync_id, c.attempts) for c in claims) == [("s1", 1), ("s9", 1)]


def test_the_timeline_says_until_when_a_rate_limit_puts_off(database: Database) -> None:
    """The fetch is due again in a second, but nothing goes out before the gate opens."""
    tell(database)
    limited = CodatRateLimited("429", status=429, retry_after=timedelta(seconds=40))
    fetch(database, FakeCodat(status_error=limited))
    with database.reading() as connection:
        (reason,) = connection.execute(select(notes.c.reason)).scalars().all()
    assert reason == "put off until 2026-01-01T09:00:40Z: 429"


def test_resting_never_closes_the_gate_again(database: Database) -> None:
    """A reset that comes while a fetch is refused at the gate must not be undone."""
    tell(database)
    resting = CodatRateLimited("all calls rest", retry_after=timedelta(hours=9))
    fetch(database, FakeCodat(status_error=resting))
    assert [c.attempts for c in [claim(database, after(seconds=1))]] == [1]


def test_a_short_list_is_kept_and_asked_for_again(database: Database) -> None:
    """The documented sample: 134 counted, two listed."""
    tell(database)
    fetch(database, FakeCodat(expected=134))
    assert (sync_row(database)["total"], sync_row(database)["expected"]) == (2, 134)
    assert shown(database)[2] == "incomplete"
    owing = fetch_row(database)
    assert owing is not None
    assert owing["due"] > T0


def test_a_list_that_moved_is_kept_and_asked_for_again(database: Database) -> None:
    """However often it comes out the same: whether it moved is judged where it is read."""
    tell(database)
    clock = Clock()
    moving = FakeCodat(items=(Item("a", "PushError"),), steady=False)
    for codat, state in ((moving, "incomplete"), (moving, "incomplete"), (FakeCodat(), "fetched")):
        fetch(database, codat, clock=clock)
        assert shown(database)[2] == state
        clock.now += timedelta(minutes=5)


def test_a_status_that_lags_behind_its_webhook_is_asked_again(database: Database) -> None:
    """Codat may still say in progress when its webhook said failed."""
    tell(database)
    codat = FakeCodat(code=1000)
    fetch(database, codat)
    assert codat.asked == ["status c1/s1"]
    assert shown(database) == ("failed", "failed", "waiting")


def test_news_that_came_while_codat_was_asked_is_asked_about_again(database: Database) -> None:
    """The answer may be older than the event."""
    tell(database, event=COMPLETED)
    codat = FakeCodat(
        code=2000, items=(Item("t", "Completed"),), meanwhile=lambda: tell(database, "m2", FAILED)
    )
    fetch(database, codat)
    assert sync_row(database)["state"] == "failed"
    fetch(database, FakeCodat(code=2000, items=(Item("t", "Completed"),)))
    assert shown(database) == ("completed", "all_written", "not_needed")


def test_a_worker_that_lost_its_lease_records_nothing(database: Database) -> None:
    """Another worker has taken the fetch over while this one slept."""
    tell(database)
    clock = Clock()

    def sleep_past_the_lease() -> None:
        clock.now = T0 + LEASE + timedelta(seconds=1)
        claim(database, clock.now)

    fetch(database, FakeCodat(meanwhile=sleep_past_the_lease), clock=clock)
    assert sync_row(database)["status_code"] is None
    assert item_rows(database) == []


def test_a_lease_is_renewed_as_long_as_codat_is_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a company's turn others may be waited for, and each answer may take most of a minute:
    a second worker would ask the same, and each claim count as an attempt.
    """
    monkeypatch.setattr("app.worker.fetcher.RENEW_EVERY_S", 0.02)
    tell(database)
    clock = Clock()
    taken: list[Claim] = []

    class Slow(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
            for _ in range(4):
                clock.now += LEASE * 0.8
                await asyncio.sleep(0.2)
                taken.extend(await asyncio.to_thread(claims))
            return await super().get_status(company_id, sync_id)

    def claims() -> list[Claim]:
        with database.writing() as connection:
            return owed.claim(connection, now=clock.now, lease=LEASE, limit=1)

    fetch(database, Slow(), clock=clock)
    assert taken == []
    assert shown(database)[2] == "fetched"


def test_a_lost_lease_ends_the_asking(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codat's limits are for whom the answer is of use."""
    monkeypatch.setattr("app.worker.fetcher.RENEW_EVERY_S", 0.02)
    tell(database)
    ended: list[bool] = []

    class Endless(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
            try:
                await asyncio.to_thread(claim, database, T0 + LEASE + timedelta(seconds=1))
                await asyncio.sleep(60)
            finally:
                ended.append(True)
            raise AssertionError("it was cancelled")

    fetch(database, Endless())
    assert ended == [True]


def test_each_step_is_explained_in_the_timeline(database: Database) -> None:
    """What was done and why, in words."""
    tell(database)
    fetch(database, FakeCodat(status_error=CodatUnavailable("Codat answered 503")))
    clock = Clock()
    clock.now = after(minutes=1)
    fetch(database, FakeCodat(), clock=clock)
    with database.reading() as connection:
        reasons = connection.execute(select(notes.c.reason).order_by(notes.c.id)).scalars().all()
    assert reasons[0].startswith("put off until 2026-01-01T09:00:02Z: Codat answered 503")
    assert reasons[1] == "Codat says 5130: Data write error; 2 items, 1 failed"


def test_a_webhooks_own_list_is_checked_against_codats(database: Database) -> None:
    """What differed is explained in the timeline."""
    with database.writing() as connection:
        keep_all(connection, [delivery("m1", items=(Item("t9", "Completed"),))])
    fetch(database, FakeCodat())
    with database.reading() as connection:
        (reason,) = connection.execute(select(notes.c.reason)).scalars().all()
    assert reason.endswith("2 items, 1 failed (the webhook had listed 1, 0 failed)")


def run_worker(database: Database, codat: FakeCodat, *, seconds: float = 5) -> Worker:
    """A worker that stops by itself once no fetch is due any more."""

    async def work() -> Worker:
        clock = Clock()
        worker = Worker(
            database, Fetcher(database, codat, 12, clock, lambda: 0.0), clock=clock, poll_s=0.01
        )
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(seconds):
            while await asyncio.to_thread(_is_due, database) or not codat.asked:
                await asyncio.sleep(0.01)
        worker.stop()
        await running
        return worker

    return asyncio.run(work())


def _is_due(database: Database) -> bool:
    with database.reading() as connection:
        return owed.is_due(connection, T0 + LEASE * 2)


def test_a_worker_drains_what_is_owed(database: Database) -> None:
    """Fifty failed syncs, each asked for exactly once."""
    with database.writing() as connection:
        keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}") for n in range(50)])
        keep_all(connection, [delivery("start", STARTED, sync_id="running")])
    codat = FakeCodat()
    run_worker(database, codat)
    assert sorted(codat.asked) == sorted(
        f"{what} c1/s{n}" for n in range(50) for what in ("status", "list")
    )


def test_a_slow_company_does_not_keep_the_others_waiting(database: Database) -> None:
    """Twenty syncs of it are due first, and Codat answers none: another's is asked for at once."""

    class Slow(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
            self.asked.append(company_id)
            if company_id == "slow":
                await asyncio.sleep(60)
            return await super().get_status(company_id, sync_id)

    with database.writing() as connection:
        keep_all(
            connection,
            [delivery(f"m{n}", sync_id=f"s{n}", company_id="slow") for n in range(20)],
        )
        keep_all(connection, [delivery("late", company_id="quick", at=after(seconds=1))])
    codat = Slow()

    async def work() -> None:
        clock = Clock()
        clock.now = after(seconds=2)
        worker = Worker(
            database, Fetcher(database, codat, 12, clock, lambda: 0.0), clock=clock, poll_s=0.01
        )
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(5):
            while "list quick/s1" not in codat.asked:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(work())
    assert codat.asked.count("slow") == AT_ONCE_OF_ONE


def test_a_worker_survives_an_unforeseen_error(database: Database) -> None:
    """One broken fetch must not end the loop for all others."""

    class Broken(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
            if sync_id == "s0" and len(self.asked) < 3:
                self.asked.append("broken")
                raise KeyError("unforeseen")
            return await super().get_status(company_id, sync_id)

    with database.writing() as connection:
        keep_all(connection, [delivery(f"m{n}", sync_id=f"s{n}") for n in range(3)])
    codat = Broken()

    async def work() -> None:
        worker = Worker(
            database, Fetcher(database, codat, 12, Clock(), lambda: 0.0), clock=Clock(), poll_s=0.01
        )
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(5):
            while len(codat.asked) < 5:
                await asyncio.sleep(0.01)
        worker.stop()
        await running

    asyncio.run(work())
    assert "list c1/s2" in codat.asked


def test_a_stopped_worker_gives_its_claims_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGTERM another worker need not wait for the lease, and no attempt is lost."""
    monkeypatch.setattr("app.worker.runner.GRACE_S", 0.05)

    class Hanging(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
            self.asked.append("hanging")
            await asyncio.sleep(60)
            raise AssertionError("it was cancelled")

    tell(database)
    codat = Hanging()

    async def work() -> None:
        worker = Worker(
            database, Fetcher(database, codat, 12, Clock(), lambda: 0.0), clock=Clock(), poll_s=0.01
        )
        running = asyncio.create_task(worker.run())
        while not codat.asked:
            await asyncio.sleep(0.01)
        worker.stop()
        await running

    asyncio.run(work())
    owing = fetch_row(database)
    assert owing is not None
    assert (owing["due"], owing["token"], owing["attempts"]) == (T0, None, 0)


def test_a_clock_that_is_behind_the_last_workers_loses_no_answer(database: Database) -> None:
    """Two hosts differ by seconds; that an answer is the newer one is held by its claim."""
    ahead, behind = Clock(), Clock()
    ahead.now = after(seconds=30)
    written = FakeCodat(code=2000, items=(Item("t", "Completed"),))
    tell(database, event=COMPLETED)
    fetch(database, written, clock=ahead)
    tell(database, "m2", FAILED)
    fetch(database, written, clock=behind)
    assert shown(database) == ("completed", "all_written", "not_needed")
    tell(database, "m3", FAILED)
    fetch(database, FakeCodat(), clock=behind)
    assert shown(database) == ("failed", "partly_failed", "fetched")


@pytest.mark.parametrize("error", [CodatRefused("404: no", status=404), CodatUnavailable("503")])
@pytest.mark.parametrize("most", [1, 12])
def test_news_that_came_while_codat_refused_is_asked_about_at_once(
    database: Database, error: CodatError, most: int
) -> None:
    """Both generations tell of one sync within a moment, and Codat may know it only after that."""

    class Early(FakeCodat):
        async def get_status(self, company_id: str, sync_id: str) -> CodatStatus:
            await asyncio.to_thread(tell, database, "m2")
            raise error

    tell(database)
    fetch(database, Early(), attempts=most)
    assert claim(database).attempts == 1
