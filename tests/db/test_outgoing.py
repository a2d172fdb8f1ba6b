"""What is owed to others, when, and once; and that a message is one worker's at a time."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.db import alerts, outgoing
from app.db import announcements as announce
from app.db.announcements import Requested
from app.db.engine import Database
from app.db.keep import keep_all
from app.db.outgoing import Message
from app.db.queries import syncs as queries
from app.db.tables_told import outgoing as kept
from app.domain.models import Item
from app.domain.outgoing import Recipients
from app.domain.webhook_loss import Finding
from app.errors import CodatRefused, CodatUnavailable, Conflicting
from tests.reports import COMPLETED, FAILED, STARTED, T0, after, delivery
from tests.worker.test_fetcher import Clock, FakeCodat, fetch

LEASE = timedelta(seconds=60)
BAD, DONE = Item("t1", "PushError", "closed", "expense"), Item("t1", "Completed", None, "expense")


@pytest.fixture(autouse=True)
def telling(database: Database) -> None:
    tell(database, Recipients(webhooks=("webhook:a", "webhook:b"), words=("words:w",)))


def tell(database: Database, recipients: Recipients) -> None:
    database.engine.update_execution_options(recipients=recipients)


def told(database: Database, recipient: str = "webhook:a") -> list[tuple[str, dict[str, Any]]]:
    with database.reading() as connection:
        rows = connection.execute(
            select(kept.c.body).where(kept.c.recipient == recipient).order_by(kept.c.id)
        )
        bodies = [json.loads(body) for body in rows.scalars()]
    return [(body["type"], body["data"]) for body in bodies]


def kinds(database: Database, recipient: str = "webhook:a") -> list[str]:
    return [kind for kind, _ in told(database, recipient)]


def hear(
    database: Database, message_id: str, event: str = FAILED, *, sync_id: str = "s1", day: int = 0
) -> None:
    at = after(days=day)
    with database.writing() as connection:
        told = ((f"{message_id}-start", STARTED), (message_id, event))
        keep_all(connection, [delivery(id_, e, sync_id=sync_id, at=at) for id_, e in told])


def answer(database: Database, *items: Item, code: int = 5130, day: int = 0, **more: Any) -> None:
    clock = Clock()
    clock.now = after(days=day)
    fetch(database, FakeCodat(code=code, items=items, **more), clock=clock)


def claim(database: Database, now: Any = T0, limit: int = 10) -> list[Message]:
    with database.writing() as connection:
        return outgoing.claim(connection, "webhook:a", now=now, lease=LEASE, limit=limit)


def test_a_failed_sync_is_told_once_its_transactions_are_known(database: Database) -> None:
    """Not on the webhook's word alone; and the same to every recipient, under one id."""
    hear(database, "m1")
    assert told(database) == []
    answer(database, BAD, Item("t2", "Completed"))
    ((kind, data),) = told(database)
    assert (kind, data["sync_id"], data["outcome"]) == ("sync.failed", "s1", "partly_failed")
    assert data["errors"] == "fetched"
    (row,) = data["failed_transactions"]
    assert (row["transaction_id"], row["message"], row["cured_by"]) == ("t1", "closed", None)
    with database.reading() as connection:
        ids = set(connection.execute(select(kept.c.message_id)).scalars())
    assert kinds(database, "webhook:b") == ["sync.failed"]
    assert len(ids) == 1


def test_asking_again_tells_nothing_new_and_other_failures_do(database: Database) -> None:
    """A refresh is no news."""
    hear(database, "m1")
    answer(database, BAD)
    hear(database, "m2")
    answer(database, BAD)
    assert kinds(database) == ["sync.failed"]
    hear(database, "m3")
    answer(database, BAD, Item("t2", "PushError"))
    assert kinds(database) == ["sync.failed"] * 2


def test_a_completed_sync_is_told_when_codat_proves_it(database: Database) -> None:
    """A status that is not final, or a list with pending rows, is not proof."""
    hear(database, "m1", COMPLETED)
    answer(database, Item("t1", "Pending"), code=2000)
    assert told(database) == []
    hear(database, "m2", COMPLETED)
    answer(database, DONE, code=2000)
    assert kinds(database) == ["sync.completed"]


def test_a_failed_sync_that_codat_does_not_explain_is_told_when_it_is_given_up(
    database: Database,
) -> None:
    """With null, not with an empty list: nothing is known."""
    hear(database, "m1")
    fetch(database, FakeCodat(status_error=CodatUnavailable("away")))
    assert told(database) == []
    hear(database, "m2")
    fetch(database, FakeCodat(status_error=CodatRefused("no such sync", status=404)))
    ((kind, data),) = told(database)
    assert (kind, data["errors"], data["failed_transactions"]) == ("sync.failed", "given_up", None)


def test_a_completed_sync_that_is_given_up_is_never_told_as_a_success(database: Database) -> None:
    """Nobody proved it."""
    hear(database, "m1", COMPLETED)
    fetch(database, FakeCodat(status_error=CodatRefused("no such sync", status=404)))
    assert told(database) == []


def test_a_transaction_is_told_as_cured_by_the_sync_that_wrote_it(database: Database) -> None:
    """Once; a second success cures nothing."""
    hear(database, "m1")
    answer(database, BAD)
    for day in (1, 2):
        hear(database, f"m-{day}", COMPLETED, sync_id=f"later-{day}", day=day)
        answer(database, DONE, code=2000, day=day)
    cures = [data for kind, data in told(database) if kind == "transaction.cured"]
    assert [(c["transaction_id"], c["cured_by"]) for c in cures] == [("t1", "later-1")]
    assert [row["sync_id"] for row in cures[0]["failed_in"]] == ["s1"]


def test_a_failure_learned_after_its_cure_says_so(database: Database) -> None:
    """News in any order: the earlier sync is read last."""
    hear(database, "m1", COMPLETED, sync_id="later", day=1)
    answer(database, DONE, code=2000, day=1)
    hear(database, "m2", sync_id="s1")
    answer(database, BAD)
    (data,) = [data for kind, data in told(database) if kind == "sync.failed"]
    assert data["failed_transactions"][0]["cured_by"] == "later"


def test_an_alert_is_told_to_programs_and_to_people(database: Database) -> None:
    """When it opens and when it is over."""
    finding = Finding("webhooks_lost", "c1", "no webhook since …")
    with database.writing() as connection:
        alerts.turn(connection, {"webhooks_lost"}, [finding], T0)
        alerts.turn(connection, {"webhooks_lost"}, [finding], after(hours=1))
        alerts.turn(connection, {"webhooks_lost"}, [], after(hours=2))
    for recipient in ("webhook:a", "words:w"):
        assert kinds(database, recipient) == ["alert.opened", "alert.resolved"]
    last = told(database)[-1][1]
    assert (last["company_id"], last["resolved_at"]) == ("c1", "2026-01-01T11:00:00Z")


def test_nothing_is_owed_when_nobody_is_to_be_told(database: Database) -> None:
    """No address is set."""
    tell(database, Recipients())
    hear(database, "m1")
    answer(database, BAD)
    with database.writing() as connection:
        alerts.turn(connection, {"x"}, [Finding("x", "", "text")], T0)
    with database.reading() as connection:
        assert connection.execute(select(kept)).all() == []


def retry(database: Database, at: Any = T0) -> Requested:
    with database.writing() as connection:
        sync = queries.get_sync(connection, "s1")
        return announce.request_retry(connection, sync.number, sync.sync, at, to="retry:r")


def test_a_retry_hands_on_what_failed_and_a_double_click_sends_once(database: Database) -> None:
    """Within a minute and with the same failures it is the same request."""
    hear(database, "m1")
    answer(database, BAD, Item("t2", "Completed"))
    first, second = retry(database), retry(database, after(seconds=59))
    assert (first.transactions, first.again) == (1, False)
    assert (second.message_id, second.again) == (first.message_id, True)
    assert not retry(database, after(seconds=61)).again
    requests = told(database, "retry:r")
    assert [kind for kind, _ in requests] == ["retry.requested"] * 2
    data = requests[0][1]
    assert (data["company_id"], data["sync_id"]) == ("c1", "s1")
    assert [row["transaction_id"] for row in data["failed_transactions"]] == ["t1"]


def test_what_a_later_sync_has_written_is_not_retried(database: Database) -> None:
    """It would be in the books twice."""
    hear(database, "m1")
    answer(database, BAD)
    hear(database, "m2", COMPLETED, sync_id="later", day=1)
    answer(database, DONE, code=2000, day=1)
    with pytest.raises(Conflicting):
        retry(database)


def test_a_message_is_one_workers_until_its_lease_ends(database: Database) -> None:
    """Then another one takes it over, and the first can write nothing any more."""
    hear(database, "m1")
    answer(database, BAD)
    (mine,) = claim(database)
    assert claim(database, after(seconds=59)) == []
    (theirs,) = claim(database, after(seconds=60))
    assert (theirs.message_id, theirs.attempts) == (mine.message_id, 2)
    with database.writing() as connection:
        assert not outgoing.finish(connection, mine, after(seconds=61))
        assert not outgoing.put_off(connection, mine, until=T0, error="late")
        assert not outgoing.give_up(connection, mine, "late", T0)
        assert outgoing.finish(connection, theirs, after(seconds=61))
    assert claim(database, after(days=9)) == []


def test_a_message_given_up_can_be_put_back_to_work(database: Database) -> None:
    """With all attempts ahead."""
    hear(database, "m1")
    answer(database, BAD)
    (mine,) = claim(database)
    with database.writing() as connection:
        assert outgoing.give_up(connection, mine, "answered 500", T0)
        assert outgoing.given_up(connection) == {"webhook:a": 1}
        assert outgoing.redrive(connection, T0) == 1
    assert [each.attempts for each in claim(database)] == [1]


def test_what_is_owed_to_an_address_that_is_gone_is_given_up_in_the_end(
    database: Database,
) -> None:
    """And what has ended long ago is forgotten."""
    hear(database, "m1")
    answer(database, BAD)
    with database.writing() as connection:
        names = ("webhook:a",)
        assert outgoing.abandon(connection, names, before=T0, now=after(days=5)) == 0
        assert outgoing.abandon(connection, names, before=after(days=1), now=after(days=5)) == 1
        assert outgoing.given_up(connection) == {"webhook:b": 1}
        assert outgoing.forget_messages(connection, after(days=5)) == 0
        assert outgoing.forget_messages(connection, after(days=6)) == 1
        assert outgoing.are_due(connection, ["webhook:a", "webhook:b"], T0) == ["webhook:a"]
