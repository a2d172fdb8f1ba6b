"""Codat's door: one address, hot and public.

A plain ASGI endpoint in front of the rest of the application, because this is the one place where
the cost of a request matters: read the body, verify it, understand it, keep it, answer.

    204  authentic and committed     401  not provably Codat's     413  too large
    405  neither POST nor PUT        408  the body came too slowly 503  cannot be kept now,
                                                                       or the service is stopping

Codat counts any 2xx within 15 seconds as delivered and everything else, redirects included, as
failed (Codat docs, "Webhooks: retry policy"); so a failure to store must never look like success.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logging as log
from app.codat.webhooks import payloads as events
from app.codat.webhooks.signature import Verifier
from app.db.event_store import Inbox
from app.domain.models import Delivery
from app.errors import SignatureError, StorageUnavailable
from app.web.http_limits import WHOLE
from app.web.metrics import Counted

PATHS = frozenset({b"/webhooks/codat", b"/webhooks/codat/"})  # as sent: no other spelling
METHODS = frozenset({"POST", "PUT"})
BODY_WITHIN_S = 20.0
RETRY_AFTER = b"30"

_log = log.get(__name__)
_PROBLEM = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]


class TooLarge(Exception):
    """The body is larger than an operator allows."""


class ClientGone(Exception):
    """The sender hung up before its body was complete: there is nobody to answer."""


class Door:
    """ASGI middleware: answers Codat's deliveries itself and passes everything else on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: Verifier,
        inbox: Callable[[], Inbox],
        max_body_bytes: int,
        clock: Callable[[], datetime],
        counted: Counted,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._inbox = inbox
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a delivery, by no 5xx but 503; hand everything else on."""
        if scope["type"] != "http" or _spelling(scope) not in PATHS:
            await self._app(scope, receive, send)
            return
        if scope["method"] not in METHODS:
            await _refuse(send, 405, "Method Not Allowed", (b"allow", b"POST, PUT"))
            return
        try:
            body = await self._body(scope, receive)
        except TooLarge:
            await self._turned_away(send, "too_large", 413, "Content Too Large")
        except TimeoutError:
            await self._turned_away(send, "too_slow", 408, "Request Timeout")
        except ClientGone:
            self._counted.delivery("hung_up")
        except asyncio.CancelledError:
            await self._not_now(send)
        else:
            await self._accept(scope, body, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if WHOLE in scope:  # nothing to wait for, and a timer costs half as much as the signature
            return await self._read(scope, receive)
        async with asyncio.timeout(BODY_WITHIN_S):
            return await self._read(scope, receive)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            if name == b"content-length" and _number(value) > self._max_body_bytes:
                raise TooLarge
        chunks, size, more = [], 0, True
        while more:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                raise TooLarge
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _accept(self, scope: Scope, body: bytes, send: Send) -> None:
        try:
            verified = self._verifier.verify(scope["headers"], body)
        except SignatureError as error:
            await self._turned_away(send, f"refused_{error}", 401, "Unauthorized")
            return
        now = self._clock()
        self._counted.match(verified.secret_index, now)
        delivery = Delivery(verified.message_id, now, body, events.read(body))
        try:
            new = await self._inbox().keep(delivery)
        except (StorageUnavailable, asyncio.CancelledError) as error:
            _log.debug("a delivery was not kept", event_id=delivery.message_id, why=str(error))
            await self._not_now(send)
            return
        self._counted.delivery("new" if new else "duplicate")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def _not_now(self, send: Send) -> None:
        """Even to whom the server cancels because it stops: Codat is asked to come again."""
        self._counted.delivery("not_kept")
        await _refuse(send, 503, "Service Unavailable", (b"retry-after", RETRY_AFTER))

    async def _turned_away(self, send: Send, fate: str, status: int, title: str) -> None:
        self._counted.delivery(fate)
        await _refuse(send, status, title)


def _spelling(scope: Scope) -> bytes:
    """The path as it was sent, without the query: an encoded spelling is not this address."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"].encode() if raw is None else raw


def _number(value: bytes) -> int:
    """A Content-Length; one that is no number is left to the count of what really comes.

    Digits beyond twenty only say "more than anybody allows"; reading them all would cost time.
    """
    return int(value[:20]) if value.isdigit() else 0


async def _refuse(send: Send, status: int, title: str, *headers: tuple[bytes, bytes]) -> None:
    """The same few words for every cause: a forger learns nothing from the answer."""
    body = b'{"type":"about:blank","title":"%s","status":%d}' % (title.encode(), status)
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*_PROBLEM, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
