"""Channels for outgoing messages: signed webhooks and notifications.

Logs and timelines show a channel's `label`, and never its address, which may contain a secret.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from app.codat.transport import EnvironmentUnusable
from app.db.outgoing import OutgoingMessage
from app.domain.outgoing import Channel as ChannelName
from app.errors import ServiceError, SettingsError

ANSWER_WITHIN_S = 15.0
CONNECT_WITHIN_S = 5.0
MAX_BODY_READ = 4096  # so that the connection can be used again; a longer body is not read
GONE = 410


class DeliveryFailed(ServiceError):
    """The message did not arrive. `final`: the receiver accepts no further attempts."""

    def __init__(
        self, text: str, *, final: bool = False, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(text)
        self.final = final
        self.retry_after = retry_after


class Channel(Protocol):
    """Delivers messages to one recipient."""

    @property
    def label(self) -> str:
        """Where it goes, without secrets."""

    async def send(self, message: OutgoingMessage, now: datetime) -> None:
        """Return once the recipient has the message. Raises DeliveryFailed."""


def label(channel: ChannelName, url: str) -> str:
    """Where a channel leads, without secrets: the host, or the service of a notification."""
    if channel == "notification":
        return url.partition("://")[0]
    return urlsplit(url).hostname or "webhook"


class WebhookChannel:
    """Posts to one URL, signed by the Standard Webhooks scheme with each of the secrets."""

    def __init__(self, http: httpx.AsyncClient, url: str, secrets: Sequence[str]) -> None:
        from svix.webhooks import Webhook  # slow to import, and only needed with recipients

        self.label = label("webhook", url)
        self._http = http
        self._url = url
        self._signers = [Webhook(secret) for secret in secrets]

    async def send(self, message: OutgoingMessage, now: datetime) -> None:
        """Return once the receiver answered 2xx. A redirect is a failure and is not followed."""
        signatures = [key.sign(message.message_id, now, message.body) for key in self._signers]
        request = self._http.stream(
            "POST",
            self._url,
            content=message.body.encode(),
            headers={
                "content-type": "application/json",
                "user-agent": "codat-sync-receiver",
                "webhook-id": message.message_id,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": " ".join(signatures),
            },
            timeout=httpx.Timeout(ANSWER_WITHIN_S, connect=CONNECT_WITHIN_S),
            follow_redirects=False,
        )
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S), request as response:
                size = _digits(response.headers.get("content-length"))
                if size is not None and size <= MAX_BODY_READ:
                    await response.aread()
        except TimeoutError:
            raise DeliveryFailed(f"no answer within {ANSWER_WITHIN_S:.0f} s") from None
        except EnvironmentUnusable as error:
            raise DeliveryFailed(str(error)) from None
        except httpx.HTTPError as error:
            raise DeliveryFailed(f"could not connect ({type(error).__name__})") from None
        status, seconds = response.status_code, _digits(response.headers.get("retry-after"))
        if not response.is_success:
            retry_after = None if seconds is None else timedelta(seconds=seconds)
            raise DeliveryFailed(
                f"answered {status}", final=status == GONE, retry_after=retry_after
            )


def _digits(value: str | None) -> int | None:
    """A header's number; None for anything else, such as a date, where our own schedule applies."""
    return int(value) if value and value.isdigit() and len(value) < 10 else None


class NotificationChannel:
    """Sends alerts as text through one Apprise address, off the event loop's thread."""

    def __init__(self, url: str) -> None:
        """Raises SettingsError when Apprise does not support the address."""
        import apprise  # only when needed: it brings a hundred services along

        for name in ("apprise", "urllib3", "requests"):
            # They log addresses, which contain secrets.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self.label = label("notification", url)
        # a thread of its own: a service that hangs must not block the worker's other threads
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notification")
        self._apprise = apprise.Apprise()
        if not self._apprise.add(url):
            raise SettingsError("NOTIFY_URLS contains an address that Apprise does not support.")

    async def send(self, message: OutgoingMessage, now: datetime) -> None:  # noqa: ARG002 - Channel
        """Return once the service accepted the message."""
        data = json.loads(message.body)["data"]
        state = "Resolved" if message.kind == "alert.resolved" else "Alert"
        title = f"{state}: {data['cause'].replace('_', ' ')}"
        if data["company_id"]:
            title += f" (company {data['company_id']})"
        notify = partial(self._apprise.notify, body=data["text"] or title, title=title)
        try:
            accepted = await asyncio.get_running_loop().run_in_executor(self._thread, notify)
        except Exception as error:
            raise DeliveryFailed(f"the service failed ({type(error).__name__})") from None
        if not accepted:
            raise DeliveryFailed("the service did not accept the message")
