"""Deliveries: at least once, on a schedule; a recipient that is down delays no other."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import RowMapping, select

from app.db import outgoing, retries
from app.db.engine import Database
from app.db.outgoing import OutgoingMessage
from app.db.queries import outgoing as outgoing_queries
from app.db.tables import jobs, outgoing_messages
from app.domain.retry_policy import MAX_DELIVERY_ATTEMPTS
from app.worker.channels import DeliveryFailed
from app.worker.dispatcher import Dispatcher
from app.worker.fetcher import Fetcher
from app.worker.job_pool import LEASE, JobPool
from app.worker.projector import Projector
from app.worker.runner import Runner
from app.worker.tasks.failure_alerts import check_failures
from tests.factories import T0, after, count_rows, deliver, sync_row, timeline
from tests.worker.fakes import Clock, FakeCodat, claim_jobs, fetch


@dataclass
class FakeChannel:
    """A recipient that fails as scripted."""

    failures: list[DeliveryFailed] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    wait_for: asyncio.Event | None = None
    label: str = "receiver.example"

    async def send(self, message: OutgoingMessage, now: datetime) -> None:
        self.received.append(message.message_id)
        if self.wait_for:
            await self.wait_for.wait()
        if self.failures:
            raise self.failures.pop(0)


def send(database: Database, *names: str) -> None:
    """Create a message to each of these recipients."""
    fields = {"cause": "x", "company_id": "c1", "text": "x", "opened_at": T0}
    with database.writing() as connection:
        outgoing.alerts(connection, "alert.opened", [fields], T0)
        outgoing.address(connection, names, T0)


def message_jobs(database: Database) -> list[RowMapping]:
    with database.reading() as connection:
        statement = (
            select(jobs, outgoing_messages.c.ended_at)
            .join(outgoing_messages, outgoing_messages.c.id == jobs.c.key)
            .where(jobs.c.kind == "message")
            .order_by(jobs.c.id)
        )
        return list(connection.execute(statement).mappings())


def make_pool(database: Database, clock: Clock, **channels: FakeChannel) -> JobPool:
    named = {name.replace("_", ":"): channel for name, channel in channels.items()}
    dispatcher = Dispatcher(database, named, clock, random=lambda: 0.0)
    return JobPool(
        database,
        "message",
        dispatcher.handle,
        clock=clock,
        worker_id="w",
        limit=4 * len(named),
        per_group=4,
        groups=dispatcher.channels,
        before_claim=dispatcher.address,
    )


def deliver_due(pool: JobPool) -> None:
    async def run() -> None:
        await pool.claim_due()
        await pool.shut_down(60)

    asyncio.run(run())


def test_a_failed_delivery_is_repeated_under_the_same_id(database: Database) -> None:
    """After its pause, not before."""
    clock, channel = Clock(), FakeChannel([DeliveryFailed("answered 500")])
    send(database, "webhook:a")
    pool = make_pool(database, clock, webhook_a=channel)
    deliver_due(pool)
    (job,) = message_jobs(database)
    assert (job["state"], job["last_error"], job["run_at"]) == (
        "pending",
        "answered 500",
        after(seconds=5),
    )
    clock.now = after(seconds=4)
    deliver_due(pool)
    assert len(channel.received) == 1
    clock.now = after(seconds=5)
    deliver_due(pool)
    assert len(channel.received) == 2
    assert len(set(channel.received)) == 1
    (job,) = message_jobs(database)
    assert (job["state"], job["attempts"], job["ended_at"]) == ("done", 2, clock.now)
    with database.reading() as connection:
        log = outgoing_queries.get_message(connection, job["key"]).attempt_log
    assert log == [(T0, "answered 500"), (after(seconds=5), "Delivered")]


def test_a_message_that_is_sent_again_is_delivered_under_the_same_id(database: Database) -> None:
    clock, channel = Clock(), FakeChannel()
    send(database, "webhook:a")
    pool = make_pool(database, clock, webhook_a=channel)
    deliver_due(pool)
    (job,) = message_jobs(database)
    with database.writing() as connection:
        message = outgoing.load(connection, job["key"])
        assert message
        outgoing.resend(connection, message, clock.now)
    deliver_due(pool)
    assert channel.received == [message.message_id] * 2
    (job,) = message_jobs(database)
    assert (job["state"], job["ended_at"]) == ("done", clock.now)


def test_deliveries_are_in_the_timeline(database: Database) -> None:
    """With the host only."""
    deliver(database, "m1")
    fetch(database, FakeCodat())
    channel = FakeChannel()
    deliver_due(make_pool(database, Clock(), webhook_a=channel))
    (message_id,) = channel.received
    assert timeline(database)[-1] == (
        "notify",
        f"sync.failed delivered to receiver.example ({message_id})",
    )


def test_each_attempt_of_a_retry_is_in_the_timeline(database: Database) -> None:
    """With its result and the time of the next one."""
    deliver(database, "m1")
    fetch(database, FakeCodat())
    with database.writing() as connection:
        retries.request_retry(connection, sync_row(database)["id"], T0, to="retry:a")
    clock, channel = Clock(), FakeChannel([DeliveryFailed("answered 500")] * 2)
    check = partial(check_failures, database, clock, {"retry:a": "receiver.example"})
    results = []
    for seconds in (0, 5, 400):
        clock.now = after(seconds=seconds)
        deliver_due(make_pool(database, clock, retry_a=channel))
        results.append(asyncio.run(check()))
    # the first is about the failure itself, the second about the two attempts
    assert results == [
        "1 alerts opened, 0 resolved",
        "1 alerts opened, 0 resolved",
        "0 alerts opened, 1 resolved",
    ]
    not_delivered = "Retry request not delivered to receiver.example (attempt {}): answered 500. "
    first, second, third = timeline(database)[-3:]
    assert first == (
        "not_delivered",
        f"{not_delivered.format(1)}Next attempt 2026-01-01T09:00:05Z.",
    )
    assert second[1].startswith(not_delivered.format(2))
    assert third[1].startswith("Retry request delivered to receiver.example (msg_")


def test_a_delivery_stops_after_days_with_an_alert(database: Database) -> None:
    """Ten attempts; the alert is open until the message is redriven."""
    deliver(database, "m1")
    fetch(database, FakeCodat())
    clock = Clock()
    channel = FakeChannel([DeliveryFailed("answered 500")] * 99)
    pool = make_pool(database, clock, webhook_a=channel)
    deliver_due(pool)
    while message_jobs(database)[0]["state"] == "pending":
        clock.now = message_jobs(database)[0]["run_at"]
        deliver_due(pool)
    assert len(channel.received) == MAX_DELIVERY_ATTEMPTS
    assert timedelta(days=3) < clock.now - T0 < timedelta(days=4)
    assert "stopped after 10 attempts: answered 500" in timeline(database)[-1][1]
    alerts = partial(check_failures, database, clock)
    assert asyncio.run(alerts()) == "2 alerts opened, 0 resolved"  # one is about the failure
    with database.writing() as connection:
        assert outgoing.redrive(connection, now=clock.now) == 1
    assert asyncio.run(alerts()) == "0 alerts opened, 1 resolved"


@pytest.mark.parametrize("failure", [DeliveryFailed("answered 410", final=True), None])
def test_a_message_that_is_not_wanted_or_kills_its_workers_ends_up_dead(
    database: Database, failure: DeliveryFailed | None
) -> None:
    """410 is final; and claims count, also those whose worker never came back."""
    send(database, "webhook:a")
    clock = Clock()
    if failure is None:
        for _ in range(MAX_DELIVERY_ATTEMPTS):
            claim_jobs(database, "message", now=clock.now)
            clock.now += LEASE
    channel = FakeChannel([failure] if failure else [])
    deliver_due(make_pool(database, clock, webhook_a=channel))
    assert len(channel.received) == (1 if failure else 0)
    assert message_jobs(database)[0]["state"] == "dead"


def test_a_delivery_whose_message_is_gone_is_removed(database: Database) -> None:
    """It would be claimed again each time its lease ends."""
    send(database, "webhook:a")
    with database.writing() as connection:
        connection.execute(outgoing_messages.delete())
    channel = FakeChannel()
    deliver_due(make_pool(database, Clock(), webhook_a=channel))
    assert (channel.received, count_rows(database, "jobs")) == ([], 0)


def test_a_recipient_that_hangs_delays_no_other(database: Database) -> None:
    """It has a few places of its own."""
    for _ in range(6):
        send(database, "webhook:slow")
    send(database, "webhook:quick")
    slow, quick = FakeChannel(wait_for=asyncio.Event()), FakeChannel()

    async def run() -> None:
        pool = make_pool(database, Clock(), webhook_slow=slow, webhook_quick=quick)
        while not quick.received or len(slow.received) < 4:
            await pool.claim_due()
            await asyncio.sleep(0.01)
        assert await pool.claim_due() == 0
        assert slow.wait_for
        slow.wait_for.set()
        await pool.shut_down(60)
        await pool.claim_due()
        await pool.shut_down(60)

    asyncio.run(run())
    assert (len(slow.received), len(quick.received)) == (6, 1)
    assert {job["state"] for job in message_jobs(database)} == {"done"}


def test_messages_to_addresses_that_are_no_longer_set_are_abandoned(database: Database) -> None:
    """After longer than deliveries are retried; the alert says so."""
    send(database, "webhook:gone")
    clock = Clock(after(days=3))
    alerts = partial(check_failures, database, clock)
    assert asyncio.run(alerts()) == "0 alerts opened, 0 resolved"
    clock.now = after(days=5)
    assert asyncio.run(alerts()) == "1 alerts opened, 0 resolved"
    assert message_jobs(database)[0]["state"] == "dead"


def test_the_runner_delivers_to_the_recipients_that_it_has_channels_for(database: Database) -> None:
    """Messages to other recipients wait, untried, for a worker that is configured for them."""
    send(database, "webhook:a", "webhook:unknown")
    clock, channel = Clock(), FakeChannel()

    async def run() -> None:
        runner = Runner(
            database,
            clock=clock,
            projector=Projector(database, clock),
            fetcher=Fetcher(database, FakeCodat(), clock, max_attempts=1),
            dispatcher=Dispatcher(database, {"webhook:a": channel}, clock),
        )
        running = asyncio.create_task(runner.run())
        async with asyncio.timeout(10):
            while message_jobs(database)[0]["state"] != "done":
                await asyncio.sleep(0.01)
        runner.stop()
        await running

    asyncio.run(run())
    unknown = message_jobs(database)[1]
    assert (unknown["state"], unknown["attempts"]) == ("pending", 0)
