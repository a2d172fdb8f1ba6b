"""Delivery: signed, at least once, on a schedule; a receiver that is down delays nobody else."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import RowMapping, select
from svix.webhooks import Webhook

from app.db import outgoing
from app.db.engine import Database
from app.db.outgoing import Message
from app.db.tables import alerts, notes, transactions
from app.db.tables_told import outgoing as kept
from app.domain import retry_policy as retry
from app.domain.retry_policy import MOST_MESSAGE_ATTEMPTS, Again, GiveUp
from app.errors import SettingsError
from app.worker.channels import NotDelivered, WebhookSender, WordsSender
from app.worker.dispatcher import LEASE, Notifier
from app.worker.tasks.failure_alerts import Failures
from tests.processes import SECRET
from tests.reports import T0, after, sync_row
from tests.worker.test_fetcher import Clock, FakeCodat, fetch, tell

# Apprise looks for a module of the standard library that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

OTHER_SECRET = "whsec_" + "B" * 40
MESSAGE = Message(1, "msg_1", "webhook:a", "sync.failed", '{"type":"sync.failed"}', None, "t", 1)


@dataclass
class Receiver:
    """A receiver that fails as often as it is told to."""

    failures: list[Exception] = field(default_factory=list)
    got: list[str] = field(default_factory=list)
    wait_for: asyncio.Event | None = None

    async def __call__(self, message: Message, _now: datetime) -> None:
        self.got.append(message.message_id)
        if self.wait_for:
            await self.wait_for.wait()
        if self.failures:
            raise self.failures.pop(0)


def owe(database: Database, *to: str, sync: int | None = None) -> str:
    with database.writing() as connection:
        return outgoing.owe(connection, "sync.failed", {"x": 1}, T0, to=to, sync=sync)


def rows(database: Database) -> list[RowMapping]:
    with database.reading() as connection:
        return list(connection.execute(select(kept).order_by(kept.c.id)).mappings())


def deliver(notifier: Notifier) -> None:
    async def once() -> None:
        await notifier.look()
        await notifier.settle()

    asyncio.run(once())


def test_a_failed_delivery_is_made_again_under_the_same_id(database: Database) -> None:
    """After its pause, and not before."""
    clock, receiver = Clock(), Receiver([NotDelivered("answered 500")])
    message_id = owe(database, "webhook:a")
    notifier = Notifier(database, {"webhook:a": receiver}, clock, luck=lambda: 0.5)
    deliver(notifier)
    (row,) = rows(database)
    assert (row["state"], row["last_error"], row["due"]) == (
        "owed", "answered 500", after(seconds=5.5)
    )  # fmt: skip
    clock.now = after(seconds=5)
    deliver(notifier)
    assert receiver.got == [message_id]
    clock.now = after(seconds=6)
    deliver(notifier)
    assert receiver.got == [message_id] * 2
    (row,) = rows(database)
    assert (row["state"], row["attempts"], row["due"]) == ("sent", 2, None)


def test_it_is_given_up_after_days_and_the_timeline_says_so(database: Database) -> None:
    """Ten attempts; then an alert is open until somebody puts it back to work."""
    tell(database)
    number = sync_row(database)["id"]
    owe(database, "webhook:a", sync=number)
    clock = Clock()
    receiver = Receiver([NotDelivered("answered 500")] * 99)
    notifier = Notifier(database, {"webhook:a": receiver}, clock, luck=lambda: 0.0)
    while rows(database)[0]["state"] == "owed":
        clock.now = rows(database)[0]["due"]
        deliver(notifier)
    assert len(receiver.got) == MOST_MESSAGE_ATTEMPTS
    assert timedelta(days=3) < clock.now - T0 < timedelta(days=4)
    failures = Failures(database, clock, {"webhook:a"})
    assert asyncio.run(failures.run()) == "1 alerts opened, 0 resolved"
    with database.writing() as connection:
        said = connection.execute(select(notes.c.reason)).scalars().all()
        assert any("given up after 10 attempts" in reason for reason in said)
        outgoing.redrive(connection, clock.now)
    assert asyncio.run(failures.run()) == "0 alerts opened, 1 resolved"


def test_a_message_that_kills_its_worker_does_not_go_on_for_ever(database: Database) -> None:
    """Claims count, also those that nobody came back from."""
    owe(database, "webhook:a")
    now = T0
    for _ in range(MOST_MESSAGE_ATTEMPTS):
        with database.writing() as connection:
            outgoing.claim(connection, "webhook:a", now=now, lease=LEASE, limit=1)
        now += LEASE
    clock, receiver = Clock(), Receiver()
    clock.now = now
    deliver(Notifier(database, {"webhook:a": receiver}, clock))
    assert receiver.got == []
    assert rows(database)[0]["state"] == "dead"


def test_a_receiver_that_hangs_delays_nobody_else(database: Database) -> None:
    """It has a few places of its own."""
    for _ in range(6):
        owe(database, "webhook:slow")
    owe(database, "webhook:quick")

    async def scene() -> tuple[Receiver, Receiver]:
        slow, quick = Receiver(wait_for=asyncio.Event()), Receiver()
        senders = {"webhook:slow": slow, "webhook:quick": quick}
        notifier = Notifier(database, senders, Clock())
        await notifier.look()
        while not quick.got:
            await asyncio.sleep(0.01)
        await notifier.look()
        assert len(slow.got) == 4
        assert slow.wait_for
        slow.wait_for.set()
        await notifier.settle()
        await notifier.look()
        await notifier.settle()
        return slow, quick

    slow, quick = asyncio.run(scene())
    assert (len(slow.got), len(quick.got)) == (6, 1)
    assert {row["state"] for row in rows(database)} == {"sent"}


def test_two_workers_deliver_each_message_once(database: Database) -> None:
    """Whoever claims it has it."""
    for _ in range(20):
        owe(database, "webhook:a")
    receiver = Receiver()

    async def scene() -> None:
        both = [Notifier(database, {"webhook:a": receiver}, Clock()) for _ in range(2)]
        for _ in range(6):
            await asyncio.gather(*(each.look() for each in both))
            await asyncio.gather(*(each.settle() for each in both))

    asyncio.run(scene())
    assert len(receiver.got) == len(set(receiver.got)) == 20


def test_what_is_in_hand_at_the_end_is_given_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker sends it at once; the attempt does not count."""
    monkeypatch.setattr("app.worker.dispatcher.GRACE_S", 0.05)
    owe(database, "webhook:a")

    async def scene() -> None:
        receiver = Receiver(wait_for=asyncio.Event())
        task = asyncio.create_task(Notifier(database, {"webhook:a": receiver}, Clock()).run())
        while not receiver.got:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())
    (row,) = rows(database)
    assert (row["state"], row["attempts"], row["due"], row["token"]) == ("owed", 0, T0, None)


def test_the_schedule_honours_what_a_receiver_asks_and_ends() -> None:
    """Up to a day; and luck only ever adds."""
    asked = timedelta(hours=1)
    lucky: Callable[[], float] = lambda: 0.999  # noqa: E731  # one word for a number
    first = retry.decide_message(1, now=T0, retry_after=None, luck=lucky)
    assert isinstance(first, Again)
    assert timedelta(seconds=5) < first.at - T0 < timedelta(seconds=6.01)
    assert retry.decide_message(1, now=T0, retry_after=asked, luck=lucky) == Again(T0 + asked)
    late = retry.decide_message(1, now=T0, retry_after=timedelta(days=9), luck=lucky)
    assert late == Again(T0 + timedelta(days=1))
    last = retry.decide_message(MOST_MESSAGE_ATTEMPTS, now=T0, retry_after=asked, luck=lucky)
    assert isinstance(last, GiveUp)


def post(answer: Callable[[httpx.Request], httpx.Response], *secrets: str) -> httpx.Request:
    """Send the message to a receiver that answers so; the request it got."""
    got: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        got.append(request)
        return answer(request)

    async def scene() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as http:
            sender = WebhookSender(http, "https://receiver.example/in", secrets or [SECRET])
            await sender(MESSAGE, datetime.now(T0.tzinfo))

    asyncio.run(scene())
    assert len(got) == 1
    return got[0]


def test_every_secret_of_a_rotation_verifies_the_message() -> None:
    """The receiver may change over at any time in between."""
    request = post(lambda _: httpx.Response(204), SECRET, OTHER_SECRET)
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(request.content, dict(request.headers))
    assert request.headers["webhook-id"] == "msg_1"
    assert request.content == MESSAGE.body.encode()


class Endless(httpx.AsyncByteStream):
    """A body that never ends."""

    async def __aiter__(self) -> Any:
        while True:
            yield b"x" * 4096


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        (httpx.Response(302, headers={"location": "https://elsewhere.example"}), False),
        (httpx.Response(500, stream=Endless()), False),
        (httpx.Response(410), True),
        (httpx.Response(404), False),
    ],
)
def test_anything_but_a_2xx_is_a_failure(answer: httpx.Response, final: bool) -> None:
    """A redirect is not followed, and a body without end is not read."""
    with pytest.raises(NotDelivered, match=f"answered {answer.status_code}") as caught:
        post(lambda _: answer)
    assert caught.value.final is final


def test_a_receiver_that_is_away_is_named_by_its_failure_alone() -> None:
    """An address may hold a secret."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot reach {request.url}")

    with pytest.raises(NotDelivered) as caught:
        post(fail)
    assert str(caught.value) == "could not be reached: ConnectError"


def test_a_receiver_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that keeps the connection busy."""
    monkeypatch.setattr("app.worker.channels.ANSWER_WITHIN_S", 0.05)

    async def hang(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return httpx.Response(204)

    async def scene() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as http:
            await WebhookSender(http, "https://receiver.example", [SECRET])(MESSAGE, T0)

    with pytest.raises(NotDelivered, match="no answer within"):
        asyncio.run(scene())


def words(kind: str, company: str | None = "c1") -> Message:
    told = {"cause": "webhooks_lost", "company_id": company, "text": "no webhook since …"}
    body = httpx.Response(200, json={"type": kind, "data": told}).text
    return Message(1, "m", "words:w", kind, body, None, "t", 1)  # type: ignore[arg-type]  # a kind


def test_people_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opened and what is over, and for which company; not on the event loop's thread."""
    import threading

    said: list[tuple[str, str, bool]] = []

    def notify(_self: object, body: str, title: str) -> bool:
        said.append((title, body, threading.current_thread() is threading.main_thread()))
        return len(said) < 3

    monkeypatch.setattr("apprise.Apprise.notify", notify)
    sender = WordsSender("json://127.0.0.1:1/")
    run: Callable[[Awaitable[None]], None] = asyncio.run  # type: ignore[assignment]  # a coroutine
    run(sender(words("alert.opened"), T0))
    run(sender(words("alert.resolved", None), T0))
    assert said == [
        ("Alert: webhooks lost (company c1)", "no webhook since …", False),
        ("Resolved: webhooks lost", "no webhook since …", False),
    ]
    with pytest.raises(NotDelivered, match="did not take it"):
        run(sender(words("alert.opened"), T0))


def test_a_service_that_is_away_is_a_failure_and_its_address_stays_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Apprise itself would log it."""
    caplog.set_level(logging.DEBUG)
    sender = WordsSender("json://user:canary-word@127.0.0.1:1/canary-path")
    with pytest.raises(NotDelivered) as caught:
        asyncio.run(sender(words("alert.opened"), T0))
    assert "canary" not in caplog.text + str(caught.value)


def test_an_address_that_apprise_does_not_know_is_refused_without_showing_it() -> None:
    """Before anything is sent."""
    with pytest.raises(SettingsError, match="NOTIFY_URLS") as caught:
        WordsSender("nosuchservice://canary")
    assert "canary" not in str(caught.value)


def test_open_failures_are_one_alert_per_cause_and_company(database: Database) -> None:
    """However many there are; it is over when a later sync has written them."""
    clock = Clock()
    clock.now = after(hours=1)
    tell(database)
    fetch(database, FakeCodat())
    failures = Failures(database, clock, ())
    assert asyncio.run(failures.run()) == "1 alerts opened, 0 resolved"
    assert asyncio.run(failures.run()) == "0 alerts opened, 0 resolved"
    with database.reading() as connection:
        (row,) = connection.execute(select(alerts)).mappings().all()
    assert (row["cause"], row["company_id"]) == ("push_error:unclassified", "c1")
    assert row["text"].startswith("transactions stay failed: Not recognised")
    with database.writing() as connection:
        connection.execute(transactions.update().values(failed=False, status="Completed"))
    assert asyncio.run(failures.run()) == "0 alerts opened, 1 resolved"
