"""Channels: signed webhooks that every receiver can verify, and notifications in plain text."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import httpx
import pytest
from svix.webhooks import Webhook

from app.db.outgoing import OutgoingMessage
from app.domain.outgoing import MessageKind
from app.errors import SettingsError
from app.worker.channels import DeliveryFailed, NotificationChannel, WebhookChannel

# Apprise looks for a deprecated module of the standard library.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SECRET, OTHER_SECRET = "whsec_" + "A" * 40, "whsec_" + "B" * 40
URL = "https://user:canary@receiver.example/in?token=canary"
MESSAGE = OutgoingMessage(1, "msg_1", "webhook:a", "sync.failed", '{"type":"sync.failed"}', None)


def post(handler: Callable[[httpx.Request], httpx.Response], *secrets: str) -> httpx.Request:
    """Send the message to a receiver that answers like this; the request it got."""
    requests: list[httpx.Request] = []

    def receive(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return handler(request)

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(receive)) as http:
            channel = WebhookChannel(http, URL, secrets or [SECRET])
            assert channel.label == "receiver.example"
            await channel.send(MESSAGE, datetime.now(UTC))

    asyncio.run(run())
    (request,) = requests
    return request


def test_every_secret_of_a_rotation_verifies_the_message() -> None:
    """The receiver may change its secret at any time in between."""
    request = post(lambda _: httpx.Response(204), SECRET, OTHER_SECRET)
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(request.content, dict(request.headers))
    assert request.headers["webhook-id"] == "msg_1"
    assert request.content == MESSAGE.body.encode()


class Endless(httpx.AsyncByteStream):
    """A body that never ends."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 4096


@pytest.mark.parametrize(
    ("response", "final"),
    [
        (httpx.Response(302, headers={"location": "https://elsewhere.example"}), False),
        (httpx.Response(500, stream=Endless()), False),
        (httpx.Response(410), True),
        (httpx.Response(404), False),
    ],
)
def test_anything_but_a_2xx_is_a_failure(response: httpx.Response, final: bool) -> None:
    """A redirect is not followed, and an endless body is not read."""
    with pytest.raises(DeliveryFailed, match=f"answered {response.status_code}") as caught:
        post(lambda _: response)
    assert caught.value.final is final


def test_a_receiver_that_is_down_is_reported_without_its_url() -> None:
    """The URL may contain a secret."""

    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot reach {request.url}")

    with pytest.raises(DeliveryFailed) as caught:
        post(fail)
    assert str(caught.value) == "could not connect (ConnectError)"


def test_a_receiver_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it keeps the connection open."""
    monkeypatch.setattr("app.worker.channels.ANSWER_WITHIN_S", 0.05)

    async def hang(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return httpx.Response(204)

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as http:
            await WebhookChannel(http, URL, [SECRET]).send(MESSAGE, datetime.now(UTC))

    with pytest.raises(DeliveryFailed, match="no answer within"):
        asyncio.run(run())


def notify(channel: NotificationChannel, kind: MessageKind, company_id: str | None = "c1") -> None:
    data = {"cause": "webhooks_lost", "company_id": company_id, "text": "No webhooks since …"}
    body = httpx.Response(200, json={"type": kind, "data": data}).text
    message = OutgoingMessage(1, "m", "notification:n", kind, body, None)
    asyncio.run(channel.send(message, datetime.now(UTC)))


def test_alerts_are_sent_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opened or was resolved, and for which company; off the event loop's thread."""
    sent: list[tuple[str, str, bool]] = []

    def accept_twice(_self: object, body: str, title: str) -> bool:
        sent.append((title, body, threading.current_thread() is threading.main_thread()))
        return len(sent) < 3

    monkeypatch.setattr("apprise.Apprise.notify", accept_twice)
    channel = NotificationChannel("json://127.0.0.1:1/")
    notify(channel, "alert.opened")
    notify(channel, "alert.resolved", None)
    assert sent == [
        ("Alert: webhooks lost (company c1)", "No webhooks since …", False),
        ("Resolved: webhooks lost", "No webhooks since …", False),
    ]
    with pytest.raises(DeliveryFailed, match="did not accept"):
        notify(channel, "alert.opened")


def test_a_notification_address_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Apprise itself would log it."""
    caplog.set_level(logging.DEBUG)
    channel = NotificationChannel("json://user:canary@127.0.0.1:1/canary-path")
    with pytest.raises(DeliveryFailed) as failed:
        notify(channel, "alert.opened")
    assert "canary" not in caplog.text + str(failed.value) + channel.label
    with pytest.raises(SettingsError, match="NOTIFY_URLS") as refused:
        NotificationChannel("nosuchservice://canary")
    assert "canary" not in str(refused.value)
