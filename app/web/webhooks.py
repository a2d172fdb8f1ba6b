"""The webhook endpoint: verify the signature, store the raw event, answer.

A plain ASGI endpoint in front of the rest of the application, to keep the cost of a request low.

    204  authentic and committed     401  invalid signature        413  too large
    405  neither POST nor PUT        408  the body came too slowly 503  cannot be stored now

Codat counts any 2xx within 15 seconds as delivered and everything else, redirects included, as
failed (Codat docs, "Webhooks: retry policy"), so a delivery that is not stored must not get a 2xx.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from starlette.types import ASGIApp, Receive, Scope, Send

from app import logging
from app.codat.webhooks.signature import Verifier
from app.db.event_store import EventStore, ReceivedEvent
from app.errors import DatabaseUnavailable, ServiceError, SignatureError
from app.web.http_limits import BODY_COMPLETE, BodyBudget
from app.web.metrics import Metrics
from app.web.request_context import request_id_header

PATHS = frozenset({b"/webhooks/codat", b"/webhooks/codat/"})  # as sent: no other spelling
METHODS = frozenset({"POST", "PUT"})
BODY_WITHIN_S = 20.0
RETRY_AFTER_S = 30
_ERRORS = {
    401: b"Unauthorized",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    503: b"Service Unavailable",
}
_EXTRA_HEADERS = {405: [(b"allow", b"POST, PUT")], 503: [(b"retry-after", b"%d" % RETRY_AFTER_S)]}

_log = logging.get(__name__)


class _Rejected(ServiceError):
    """A body that is not read to its end: the result for metrics, and the answer, if any."""

    def __init__(self, result: str, status: int | None) -> None:
        super().__init__(result)
        self.result = result
        self.status = status


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
        metrics: Metrics,
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
            return
        request_id = request_id_header(scope)
        status: int | None = 204
        if scope["method"] not in METHODS:
            status = 405
        else:
            try:
                result = await self._receive(scope, receive)
            except SignatureError:
                result, status = "invalid_signature", 401
            except _Rejected as rejected:
                result, status = rejected.result, rejected.status
            except (DatabaseUnavailable, asyncio.CancelledError) as error:
                # Also when the server cancels because it stops: Codat sends the event again.
                fields = {"reason": str(error), "request_id": request_id[1].decode()}
                _log.debug("a webhook event was not stored", **fields)
                result, status = "unavailable", 503
            self._metrics.delivery(result)
        if status == 204:
            await send({"type": "http.response.start", "status": 204, "headers": [request_id]})
            await send({"type": "http.response.body"})
        elif status is not None:
            await _answer(send, status, request_id)

    async def _receive(self, scope: Scope, receive: Receive) -> str:
        """Read, verify and store one delivery; returns `stored` or `duplicate`."""
        if BODY_COMPLETE in scope:  # nothing to wait for, and a timer is not for free
            body = await self._read(scope, receive, None)
            verified = self._verifier.verify(scope["headers"], body)
        else:
            with self._budget.share() as acquire:
                try:
                    async with asyncio.timeout(BODY_WITHIN_S):
                        body = await self._read(scope, receive, acquire)
                except TimeoutError:
                    raise _Rejected("timeout", 408) from None
                verified = self._verifier.verify(scope["headers"], body)
        now = self._clock()
        self._metrics.secret_matched(verified.secret_index, now)
        is_new = await self._store().store(ReceivedEvent(verified.message_id, now, body))
        return "stored" if is_new else "duplicate"

    async def _read(
        self, scope: Scope, receive: Receive, acquire: Callable[[int], bool] | None
    ) -> bytes:
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
            if acquire is not None and not acquire(len(chunk)):
                raise _Rejected("unavailable", 503)
            chunks.append(chunk)
            more = message.get("more_body", False)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _require_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise _Rejected("too_large", 413)


def _raw_path(scope: Scope) -> bytes:
    """The path as it was sent, without the query: an encoded spelling is not this address."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"].encode() if raw is None else raw


def _content_length(scope: Scope) -> int:
    """The announced length; 0 where it is absent or no number: then what arrives is counted.

    More than twenty digits exceed every limit; reading them all would cost time.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _answer(send: Send, status: int, request_id: tuple[bytes, bytes]) -> None:
    """The same body for every cause, so that it reveals nothing to a forger."""
    body = b'{"type":"about:blank","title":"%s","status":%d}' % (_ERRORS[status], status)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"%d" % len(body)),
        *_EXTRA_HEADERS.get(status, ()),
        request_id,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
