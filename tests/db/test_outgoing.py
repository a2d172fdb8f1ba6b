"""Outgoing messages: what is announced, when, and once; and that none is lost."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from app.db import jobs, outgoing, retries, sync_writer
from app.db.engine import Database
from app.db.jobs import Claim
from app.db.retries import LastRetry, RetryRequest
from app.db.tables import jobs as job_table
from app.db.tables import outgoing_messages as table
from app.domain.models import SYNC_COMPLETED, Transaction
from app.errors import Conflict
from tests.db.stored import COMPLETED_ROW, FAILED_ROW, answered, pk_of, reported, write
from tests.factories import T0, after
from tests.worker.fakes import claim_jobs

RECIPIENTS = ("webhook:a", "webhook:b", "notification:n")


def address(database: Database, *recipients: str) -> int:
    with database.writing() as connection:
        return outgoing.address(connection, recipients or RECIPIENTS, T0)


def sent(database: Database, recipient: str = "webhook:a") -> list[tuple[str, dict[str, Any]]]:
    address(database)
    with database.reading() as connection:
        bodies = connection.execute(
            select(table.c.body).where(table.c.recipient == recipient).order_by(table.c.id)
        ).scalars()
        found = [json.loads(body) for body in bodies]
    return [(body["type"], body["data"]) for body in found]


def kinds(database: Database, recipient: str = "webhook:a") -> list[str]:
    return [kind for kind, _ in sent(database, recipient)]


def fail(database: Database, *rows: Transaction, sync_id: str = "s1", day: int = 0) -> int:
    """Codat answers that a sync failed with these rows."""
    at = after(days=day)
    sync = answered(reported(sync_id, at=at), *(rows or (FAILED_ROW,)), at=at)
    return write(database, sync, *(rows or (FAILED_ROW,)), now=at)


def complete(database: Database, *, sync_id: str, day: int) -> int:
    at = after(days=day)
    sync = answered(reported(sync_id, SYNC_COMPLETED, at=at), COMPLETED_ROW, code=2000, at=at)
    return write(database, sync, COMPLETED_ROW, now=at)


def claim(database: Database, kind: jobs.Kind = "message", now: datetime = T0) -> list[Claim]:
    address(database)
    return claim_jobs(database, kind, now=now, limit=10)


def test_a_failed_sync_is_announced_once_its_transactions_are_known(database: Database) -> None:
    """Not because of the webhook alone; and the same to every recipient, under one id."""
    write(database, reported())
    assert sent(database) == []
    fail(database, FAILED_ROW, Transaction("t2", "Completed"))
    ((kind, data),) = sent(database)
    assert (kind, data["sync_id"], data["outcome"]) == ("sync.failed", "s1", "partly_failed")
    assert data["errors"] == "fetched"
    (row,) = data["failed_transactions"]
    assert (row["transaction_id"], row["message"]) == ("t1", "The account is closed")
    assert row["resolved_by"] is None
    assert set(row["cause"]) == {
        *("key", "title", "owner", "next_step", "customer_message", "retry_advice")
    }
    with database.reading() as connection:
        ids = set(connection.execute(select(table.c.message_id)).scalars())
    assert kinds(database, "webhook:b") == ["sync.failed"]
    assert sent(database, "notification:n") == []
    assert len(ids) == 1


def test_the_same_answer_is_not_announced_again_and_other_failures_are(
    database: Database,
) -> None:
    """One that failed as a whole carries its cause."""
    fail(database)
    fail(database)
    assert kinds(database) == ["sync.failed"]
    fail(database, FAILED_ROW, Transaction("t2", "PushError"))
    assert kinds(database) == ["sync.failed"] * 2
    write(database, answered(reported("s2"), code=4040, error_message="The company is gone"))
    data = sent(database)[-1][1]
    assert data["cause"]["title"]
    assert data["failed_transactions"] == []


def test_a_completed_sync_is_announced_when_codat_proves_it(database: Database) -> None:
    """A list with pending rows is no proof."""
    sync = reported("s1", SYNC_COMPLETED)
    pending = Transaction("t1", "Pending")
    write(database, answered(sync, pending, code=2000), pending)
    assert sent(database) == []
    write(database, answered(sync, COMPLETED_ROW, code=2000), COMPLETED_ROW)
    assert kinds(database) == ["sync.completed"]


def give_up(database: Database) -> None:
    (claimed,) = claim(database, "fetch")
    with database.writing() as connection:
        assert sync_writer.give_up(connection, claimed, "404", now=T0)


def test_an_unexplained_failure_is_announced_when_its_fetch_is_given_up(
    database: Database,
) -> None:
    """With null, not with an empty list: nothing is known. An unproved completion never is."""
    write(database, reported("s2", SYNC_COMPLETED))
    give_up(database)
    assert sent(database) == []
    write(database, reported())
    give_up(database)
    ((kind, data),) = sent(database)
    assert (kind, data["errors"], data["failed_transactions"]) == ("sync.failed", "given_up", None)


def test_a_resolved_transaction_is_announced_by_the_sync_that_completed_it(
    database: Database,
) -> None:
    """Once; a second success resolves nothing."""
    fail(database)
    for day in (1, 2):
        complete(database, sync_id=f"later-{day}", day=day)
    resolved = [data for kind, data in sent(database) if kind == "transaction.resolved"]
    assert [(data["transaction_id"], data["resolved_by"]) for data in resolved] == [
        ("t1", "later-1")
    ]
    (row,) = resolved[0]["failed_in"]
    assert (row["sync_id"], row["message"]) == ("s1", "The account is closed")
    assert row["cause"]["key"]


def test_a_transaction_that_fails_again_is_resolved_again(database: Database) -> None:
    """The second message is about the second failure."""
    fail(database)
    complete(database, sync_id="s2", day=1)
    fail(database, sync_id="s3", day=2)
    complete(database, sync_id="s4", day=3)
    resolved = [data for kind, data in sent(database) if kind == "transaction.resolved"]
    assert [data["resolved_by"] for data in resolved] == ["s2", "s4"]
    assert [[row["sync_id"] for row in data["failed_in"]] for data in resolved] == [["s1"], ["s3"]]


def test_a_failure_learned_after_its_resolution_says_so(database: Database) -> None:
    """Answers may come in any order."""
    complete(database, sync_id="later", day=1)
    fail(database)
    (data,) = [data for kind, data in sent(database) if kind == "sync.failed"]
    assert data["failed_transactions"][0]["resolved_by"] == "later"


def test_a_worker_with_recipients_addresses_what_any_process_wrote(database: Database) -> None:
    """Each message once, to those that get its kind; the rest is left to other workers."""
    fail(database)
    with database.writing() as connection:
        outgoing.alerts(connection, "alert.opened", [{"company_id": "c1"}], T0)
    assert address(database, "retry:r") == 0
    with database.reading() as connection:
        assert not outgoing.has_unaddressed(connection, ["retry:r"])
        assert outgoing.has_unaddressed(connection, ["notification:n"])
    assert address(database, "notification:n") == 1
    assert address(database, "webhook:a", "webhook:b", "retry:r") == 1
    assert address(database) == 0
    with database.reading() as connection:
        found = connection.execute(select(table.c.kind, table.c.recipient).order_by(table.c.id))
        assert found.all() == [
            ("alert.opened", "notification:n"),
            ("sync.failed", "webhook:a"),
            ("sync.failed", "webhook:b"),
        ]


def test_two_workers_address_each_message_once(database: Database) -> None:
    for n in range(20):
        fail(database, sync_id=f"s{n}")

    def run(_: int) -> int:
        total = 0
        while True:
            with database.writing() as connection:
                count = outgoing.address(connection, ["webhook:a"], T0, limit=3)
            with database.reading() as connection:
                if not outgoing.has_unaddressed(connection, ["webhook:a"]):
                    return total + count
            total += count

    with ThreadPoolExecutor(2) as both:
        assert sum(both.map(run, range(2))) == 20
    assert len({data["sync_id"] for _, data in sent(database)}) == len(sent(database)) == 20


def test_messages_that_no_worker_addresses_are_removed_in_the_end(database: Database) -> None:
    """In an installation without recipients."""
    fail(database)
    fail(database, sync_id="s2", day=2)
    with database.writing() as connection:
        assert outgoing.abandon(connection, before=after(days=1), now=after(days=5)) == 0
    assert [data["sync_id"] for _, data in sent(database)] == ["s2"]


def end_retry(database: Database, failure: str | None = None) -> None:
    """Deliver the retry that waits, or give it up."""
    (mine,) = (job for job in claim(database) if job.group_key == "retry:r")
    with database.writing() as connection:
        outgoing.end(connection, mine, T0, failure=failure)


def last_retry(database: Database, pk: int) -> LastRetry | None:
    with database.reading() as connection:
        return retries.last_retry(connection, pk)


def retry(database: Database, at: datetime = T0) -> RetryRequest:
    with database.writing() as connection:
        return retries.request_retry(connection, pk_of(database, "s1"), at, to="retry:r")


def test_a_retry_contains_what_failed_and_a_double_click_sends_once(database: Database) -> None:
    """Within a minute, or until it is delivered, the same failures are the same request."""
    fail(database, FAILED_ROW, Transaction("t2", "Completed"))
    first, second = retry(database), retry(database, after(seconds=59))
    assert (first.transactions, first.already_requested) == (1, False)
    assert (second.message_id, second.already_requested) == (first.message_id, True)
    assert retry(database, after(seconds=61)).message_id == first.message_id
    end_retry(database)
    assert not retry(database, after(seconds=61)).already_requested
    requests = sent(database, "retry:r")
    assert [kind for kind, _ in requests] == ["retry.requested"] * 2
    data = requests[0][1]
    assert (data["company_id"], data["sync_id"]) == ("c1", "s1")
    assert [row["transaction_id"] for row in data["failed_transactions"]] == ["t1"]


def test_what_has_not_failed_or_was_completed_later_is_not_retried(database: Database) -> None:
    """It would be recorded twice."""
    complete(database, sync_id="s1", day=0)
    with pytest.raises(Conflict, match="recorded since"):
        retry(database)
    fail(database)
    complete(database, sync_id="later", day=1)
    with pytest.raises(Conflict, match="recorded since"):
        retry(database)


@pytest.mark.parametrize("failure", [None, "answered 410"])
def test_the_state_of_the_last_retry_is_known(database: Database, failure: str | None) -> None:
    """One that was given up does not stand in the way of another."""
    pk = fail(database)
    assert last_retry(database, pk) is None
    first = retry(database)
    waiting = last_retry(database, pk)
    assert waiting is not None
    assert (waiting.message_id, waiting.state) == (first.message_id, "waiting")
    assert (waiting.attempts, waiting.next_attempt_at, waiting.ended_at) == (0, T0, None)
    end_retry(database, failure)
    ended = last_retry(database, pk)
    assert ended is not None
    assert (ended.state, ended.last_error) == ("given_up" if failure else "delivered", failure)
    assert (ended.attempts, ended.next_attempt_at, ended.ended_at) == (1, None, T0)
    assert retry(database).already_requested == (failure is None)


def test_all_failed_transactions_are_retried(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also more than one `sync.failed` lists."""
    monkeypatch.setattr(outgoing, "MAX_FAILED", 2)
    fail(database, *(Transaction(f"t{n}", "PushError") for n in range(5)))
    assert retry(database).transactions == 5
    (failed,) = [data for kind, data in sent(database) if kind == "sync.failed"]
    assert len(failed["failed_transactions"]) == 2


def test_a_message_is_loaded_delivered_and_pruned(database: Database) -> None:
    """Not by a worker that lost it."""
    pk = fail(database)
    late, _ = claim(database)
    first, second = claim(database, now=after(seconds=61))
    with database.writing() as connection:
        assert not outgoing.end(connection, late, T0)
        assert not outgoing.end(connection, late, T0, failure="late")
    with database.reading() as connection:
        message = outgoing.load(connection, first.key)
    assert message
    assert (message.recipient, message.kind) == (first.group_key, "sync.failed")
    assert message.sync_pk == pk
    assert {first.group_key, second.group_key} == {"webhook:a", "webhook:b"}
    with database.writing() as connection:
        assert outgoing.end(connection, first, after(seconds=1))
        assert not outgoing.end(connection, first, after(seconds=2))
        assert outgoing.prune(connection, after(seconds=1), 10) == 0
        assert outgoing.prune(connection, after(days=9), 10) == 1
        assert outgoing.load(connection, first.key) is None
        assert outgoing.load(connection, second.key)
        of_messages = select(job_table.c.key).where(job_table.c.kind == "message")
        assert connection.execute(of_messages).scalars().all() == [second.key]


def test_a_message_given_up_can_be_redriven(database: Database) -> None:
    """With all attempts left; and it is not pruned while it waits."""
    fail(database)
    mine, _ = claim(database)
    with database.writing() as connection:
        assert outgoing.end(connection, mine, T0, failure="answered 500")
        assert outgoing.dead_by_recipient(connection) == {mine.group_key: 1}
        assert outgoing.redrive(connection, now=T0) == 1
        assert outgoing.redrive(connection, now=T0) == 0
        assert outgoing.prune(connection, after(days=9), 10) == 0
    assert [(claimed.key, claimed.attempts) for claimed in claim(database)] == [(mine.key, 1)]


def test_messages_to_an_address_that_is_gone_are_given_up_in_the_end(
    database: Database,
) -> None:
    """Not those that another replica has in hand or tries again, nor one that was redriven."""
    fail(database)
    kept, late = claim(database, now=T0)
    with database.writing() as connection:
        jobs.release(connection, late)
        assert not outgoing.has_abandoned(connection, before=T0)
        assert outgoing.abandon(connection, before=T0, now=after(days=5)) == 0
        jobs.reschedule(connection, kept, run_at=after(days=4), error="answered 500")
        assert outgoing.has_abandoned(connection, before=after(days=1))
        assert outgoing.abandon(connection, before=after(days=1), now=after(days=5)) == 1
        assert outgoing.dead_by_recipient(connection) == {late.group_key: 1}
        assert outgoing.redrive(connection, now=after(days=5)) == 1
        assert outgoing.abandon(connection, before=after(days=1), now=after(days=5)) == 0
