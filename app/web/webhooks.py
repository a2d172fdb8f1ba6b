"""The webhook endpoint: verify the signature, store the raw event, answer.

A plain ASGI endpoint in front of the rest of the application, because here the cost of a request
matters.

    204  authentic and committed     401  not provably Codat's     413  too large
    405  neither POST nor PUT        408  the body came too slowly 503  cannot be stored now

Codat counts any 2xx within 15 seconds as delivered and everything else, redirects included, as
failed (Codat docs, "Webhooks: retry policy"), so a failure to store must never look like success.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from app import logging
from app.codat.webhooks.signature import Verifier
from app.db.event_store import EventStore, ReceivedEvent
from app.errors import DatabaseUnavailable, ServiceError, SignatureError
from app.web.http_limits import BODY_COMPLETE, BodyBudget

PATHS = frozenset({b"/webhooks/codat", b"/webhooks/codat/"})  # as sent: no other spelling
METHODS = frozenset({"POST", "PUT"})
BODY_WITHIN_S = 20.0
RETRY_AFTER = (b"retry-after", b"30")

_log = logging.get(__name__)
_HEADERS = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]


class EndpointMetrics(Protocol):
    """What the endpoint counts."""

    def delivery(self, result: str) -> None:
        """One delivery ended with this result."""

    def secret_matched(self, index: int, at: datetime) -> None:
        """A delivery was signed with the secret at this place of the setting."""


class _Rejected(ServiceError):
    """A body that is not read to its end: the result for metrics, and the answer, if any."""

    def __init__(
        self, result: str, status: int | None, title: str = "", *headers: tuple[bytes, bytes]
    ) -> None:
        super().__init__(result)
        self.result = result
        self.status = status
        self.title = title
        self.headers = headers


class WebhookEndpoint:
    """ASGI middleware: answers Codat's deliveries and passes every other request on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: Verifier,
        store: Callable[[], EventStore],
        max_body_bytes: int,
        clock: Callable[[], datetime],
        metrics: EndpointMetrics,
        body_budget: BodyBudget,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._store = store
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._metrics = metrics
        self._budget = body_budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a delivery, by no 5xx but 503."""
        if scope["type"] != "http" or _raw_path(scope) not in PATHS:
            await self._app(scope, receive, send)
        elif scope["method"] not in METHODS:
            await _answer(send, 405, "Method Not Allowed", (b"allow", b"POST, PUT"))
        else:
            await self._respond(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            result = await self._receive(scope, receive)
        except SignatureError:
            self._metrics.delivery("invalid_signature")
            await _answer(send, 401, "Unauthorized")
        except _Rejected as rejected:
            self._metrics.delivery(rejected.result)
            if rejected.status is not None:
                await _answer(send, rejected.status, rejected.title, *rejected.headers)
        except (DatabaseUnavailable, asyncio.CancelledError) as error:
            # Also when the server cancels because it stops: Codat is asked to come again.
            _log.debug("a webhook event was not stored", reason=str(error))
            self._metrics.delivery("unavailable")
            await _answer(send, 503, "Service Unavailable", RETRY_AFTER)
        else:
            self._metrics.delivery(result)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def _receive(self, scope: Scope, receive: Receive) -> str:
        """Read, verify and store one delivery; returns `stored` or `duplicate`."""
        if BODY_COMPLETE in scope:  # nothing to wait for, and a timer is not for free
            body = await self._read(scope, receive, None)
            verified = self._verifier.verify(scope["headers"], body)
        else:
            with _BudgetShare(self._budget) as share:
                try:
                    async with asyncio.timeout(BODY_WITHIN_S):
                        body = await self._read(scope, receive, share)
                except TimeoutError:
                    raise _Rejected("timeout", 408, "Request Timeout") from None
                verified = self._verifier.verify(scope["headers"], body)
        now = self._clock()
        self._metrics.secret_matched(verified.secret_index, now)
        is_new = await self._store().store(ReceivedEvent(verified.message_id, now, body))
        return "stored" if is_new else "duplicate"

    async def _read(self, scope: Scope, receive: Receive, share: "_BudgetShare | None") -> bytes:
        self._require_size(_content_length(scope))
        chunks: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Rejected("disconnected", None)
            chunk = message.get("body", b"")
            size += len(chunk)
            self._require_size(size)
            if share is not None:
                share.acquire(len(chunk))
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _require_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise _Rejected("too_large", 413, "Content Too Large")


class _BudgetShare:
    """What one request holds of the budget for bodies; released however it ends."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._held = 0

    def __enter__(self) -> "_BudgetShare":
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.release(self._held)

    def acquire(self, size: int) -> None:
        if not self._budget.acquire(size):
            raise _Rejected("unavailable", 503, "Service Unavailable", RETRY_AFTER)
        self._held += size


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent, without the query: an encoded spelling is not this address."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"].encode() if raw is None else raw


def _content_length(scope: Scope) -> int:
    """The announced length; 0 where it is absent or no number: then what arrives is counted.

    Digits beyond twenty only mean "more than anybody allows"; reading them all would cost time.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _answer(send: Send, status: int, title: str, *headers: tuple[bytes, bytes]) -> None:
    """The same body for every cause: a forger learns nothing from it."""
    body = b'{"type":"about:blank","title":"%s","status":%d}' % (title.encode(), status)
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*_HEADERS, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
