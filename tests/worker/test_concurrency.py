"""Writers that meet wait for each other, and none deadlocks."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, make_url

from app.codat.webhooks import payloads
from app.db import erasure, jobs, outgoing, pending_events, rate_limit, sync_writer
from app.db.engine import Database, open_database
from app.db.outgoing import OutgoingMessage
from app.errors import CodatRateLimited, CodatUnavailable
from app.worker.dispatcher import Dispatcher
from app.worker.fetcher import Fetcher
from tests.factories import (
    COMPLETED,
    T0,
    add_event,
    after,
    count_rows,
    deliver,
    sync_row,
)
from tests.worker.fakes import (
    Clock,
    FakeCodat,
    FakeLists,
    claim_jobs,
    fetch,
    job_of,
    reconcile,
    status,
)

UNTIL_IT_WAITS_S = 0.3
T = TypeVar("T")


def beside(work: Callable[[], T]) -> "Future[T]":
    """Do this in a thread until it waits for what the caller has locked."""
    thread = ThreadPoolExecutor(1)
    result = thread.submit(work)
    thread.shutdown(wait=False)
    time.sleep(UNTIL_IT_WAITS_S)
    return result


@contextmanager
def open_projection(database: Database) -> Iterator[Connection]:
    """A projection of the pending events that stays open, so that others meet it."""
    with database.writing() as connection:
        project_in(connection)
        yield connection


def project_in(connection: Connection) -> None:
    events = pending_events.claim(connection, 10, 1_000_000)
    for event in events:
        event.payload = payloads.parse(event.body or b"")
    pending_events.apply(connection, events, now=T0)


def test_a_rate_limit_that_is_met_and_reported_at_once(database: Database) -> None:
    """The event is projected with one about the very sync for which Codat just answered 429."""
    deliver(database, "m1")
    (claim,) = claim_jobs(database)
    limited = CodatRateLimited("429", status=429, retry_after=timedelta(hours=1))
    fetcher = Fetcher(database, FakeCodat(status_error=limited), Clock(), max_attempts=12)
    add_event(database, "m2")

    with open_projection(database) as connection:
        meeting = beside(lambda: asyncio.run(fetcher.handle(claim)))
        rate_limit.pause(connection, after(minutes=1), "reported", T0)
    meeting.result()
    with database.reading() as connection:
        assert rate_limit.paused_until(connection, after(minutes=59)) == after(hours=1)


def test_a_rate_limit_is_reported_in_a_batch_with_the_sync_that_met_it(database: Database) -> None:
    """The projector locks the pause, then the job; so does the fetcher."""
    deliver(database, "m1")
    (claim,) = claim_jobs(database)
    limited = CodatRateLimited("429", status=429, retry_after=timedelta(hours=1))
    fetcher = Fetcher(database, FakeCodat(status_error=limited), Clock(), max_attempts=12)

    with database.writing() as connection:
        rate_limit.pause(connection, after(minutes=1), "reported", T0)
        meeting = beside(lambda: asyncio.run(fetcher.handle(claim)))
        jobs.enqueue(connection, "fetch", [(claim.key, claim.group_key)], now=T0)
    meeting.result()
    assert job_of(database, "generation", "attempts", "lease_token") == (2, 0, None)


class FakeChannel:
    label = "receiver.example"

    async def send(self, message: OutgoingMessage, now: datetime) -> None:
        pass


@pytest.mark.parametrize("kind", ["fetch", "message", "refresh"])
def test_a_company_is_erased_while_a_worker_records_a_result(
    database: Database, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Both lock the sync before its jobs; then nothing is left to write to."""
    deliver(database, "m1")
    fetch(database, FakeCodat())
    deliver(database, "m2")
    (fetch_claim,) = claim_jobs(database)
    with database.writing() as connection:
        outgoing.address(connection, ["webhook:a"], T0)
    (message_claim,) = claim_jobs(database, "message")
    refused = FakeCodat(status_error=CodatUnavailable("503", status=503))
    fetcher = Fetcher(database, refused, Clock(), max_attempts=12)
    dispatcher = Dispatcher(database, {"webhook:a": FakeChannel()}, Clock())
    meetings: list[Future[object]] = []
    remove = jobs.remove

    def record() -> object:
        if kind == "refresh":
            with database.writing() as connection:
                return sync_writer.refresh(connection, fetch_claim.key, now=T0, actor=None)
        if kind == "fetch":
            return asyncio.run(fetcher.handle(fetch_claim))
        return asyncio.run(dispatcher.handle(message_claim))

    def meet_first(*args: Any, **options: Any) -> int:
        if not meetings:
            meetings.append(beside(record))
        return remove(*args, **options)

    monkeypatch.setattr(jobs, "remove", meet_first)
    with database.writing() as connection:
        assert erasure.erase(connection, "syncs", "c1")["syncs"] == 1
    assert meetings[0].result() == (False if kind == "refresh" else "lost")
    assert count_rows(database, "jobs") == 0


def test_a_sync_that_is_reported_while_reconciliation_finds_it(database: Database) -> None:
    """Both lock the company before they insert the sync."""
    deliver(database, "m1")
    add_event(database, "m3", sync_id="s3")

    lists = FakeLists({"c1": [status("s2")]})

    with open_projection(database) as connection:
        if not database.is_sqlite:  # whose one writer is the projection
            add_event(database, "m2", sync_id="s2")
        meeting = beside(lambda: reconcile(database, lists, company_id="c1"))
        project_in(connection)
    meeting.result()
    if database.is_sqlite:
        deliver(database, "m2", sync_id="s2")
    assert sync_row(database, "s2")["failed_received_at"] is not None
    assert job_of(database, "state", "generation", sync_id="s2") == ("pending", 2)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_the_server_may_prefer_another_isolation_level(database_url: str) -> None:
    """Every lock is taken to see what is there afterwards, not what was there before."""
    server = open_database(database_url)
    with server.writing() as connection:
        name = make_url(database_url).database
        connection.exec_driver_sql(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
        )
    server.close()
    database = open_database(database_url)
    deliver(database, "m1")
    add_event(database, "m2")

    with open_projection(database):
        meeting = beside(lambda: deliver(database, "m3", event_type=COMPLETED))
    meeting.result()
    row = sync_row(database)
    assert row["failed_received_at"] is not None
    assert row["completed_received_at"] is not None
    database.close()
