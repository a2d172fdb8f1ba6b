"""How one message leaves: signed, by HTTP; or in words, by Apprise.

A sender returns when the message has arrived and raises NotDelivered otherwise. Neither ever shows
an address: it may hold a secret.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

import httpx

from app.db.outgoing import Message
from app.errors import ServiceError, SettingsError

ANSWER_WITHIN_S = 15.0
CONNECT_WITHIN_S = 5.0
SHORT_BODY = 4096  # read, so that the connection can be used again; a longer one is not
GONE = 410

Send = Callable[[Message, datetime], Awaitable[None]]


class NotDelivered(ServiceError):
    """The message did not arrive. `final` means that trying again is not wanted."""

    def __init__(
        self, text: str, *, final: bool = False, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(text)
        self.final = final
        self.retry_after = retry_after


class WebhookSender:
    """Posts to one address, signed as Standard Webhooks say, with each of the secrets."""

    def __init__(self, http: httpx.AsyncClient, address: str, secrets: Sequence[str]) -> None:
        from svix.webhooks import Webhook  # heavy, and only for who is told anything

        self._http = http
        self._address = address
        self._keys = [Webhook(secret) for secret in secrets]

    async def __call__(self, message: Message, now: datetime) -> None:
        """Return once the receiver answered 2xx. A redirect is not followed: it is a failure."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._post(message, now)
        except TimeoutError:
            raise NotDelivered(f"no answer within {ANSWER_WITHIN_S:.0f} s") from None
        except httpx.HTTPError as error:
            raise NotDelivered(f"could not be reached: {type(error).__name__}") from None

    async def _post(self, message: Message, now: datetime) -> None:
        request = self._http.stream(
            "POST",
            self._address,
            content=message.body.encode(),
            headers=self._headers(message, now),
            timeout=httpx.Timeout(ANSWER_WITHIN_S, connect=CONNECT_WITHIN_S),
            follow_redirects=False,
        )
        async with request as answer:
            if _number(answer.headers.get("content-length")) <= SHORT_BODY:
                await answer.aread()
            if not answer.is_success:
                raise NotDelivered(
                    f"answered {answer.status_code}",
                    final=answer.status_code == GONE,
                    retry_after=_seconds(answer.headers.get("retry-after")),
                )

    def _headers(self, message: Message, now: datetime) -> dict[str, str]:
        signatures = [key.sign(message.message_id, now, message.body) for key in self._keys]
        return {
            "content-type": "application/json",
            "user-agent": "codat-sync-receiver",
            "webhook-id": message.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def _number(told: str | None) -> int:
    """A body of unknown length counts as long."""
    return int(told) if told and told.isdigit() and len(told) < 10 else SHORT_BODY + 1


def _seconds(told: str | None) -> timedelta | None:
    """Retry-After in seconds; its form as a date is left to our own schedule."""
    return timedelta(seconds=int(told)) if told and told.isdigit() and len(told) < 10 else None


class WordsSender:
    """Tells an alert to people through one Apprise address, off the event loop's thread."""

    def __init__(self, address: str) -> None:
        """Raises SettingsError when Apprise can make nothing of the address."""
        import apprise  # only where it is wanted: it brings a hundred services along

        for name in ("apprise", "urllib3", "requests"):
            # These name addresses, which hold secrets, in what they log.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        # A thread of its own: a service that hangs must not take those the worker claims with.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="words")
        self._apprise = apprise.Apprise()
        if not self._apprise.add(address):
            raise SettingsError("NOTIFY_URLS: Apprise does not know one of these addresses")

    async def __call__(self, message: Message, _now: datetime) -> None:
        """Return once the service took the message."""
        told = json.loads(message.body)["data"]
        over = message.kind == "alert.resolved"
        title = f"{'Resolved' if over else 'Alert'}: {told['cause'].replace('_', ' ')}"
        if told["company_id"]:
            title += f" (company {told['company_id']})"
        try:
            say = partial(self._apprise.notify, body=told["text"] or title, title=title)
            taken = await asyncio.get_running_loop().run_in_executor(self._thread, say)
        except Exception as error:
            raise NotDelivered(f"the service failed: {type(error).__name__}") from None
        if not taken:
            raise NotDelivered("the service did not take it")
