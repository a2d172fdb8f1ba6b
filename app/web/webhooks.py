"""The webhook endpoint: verify the signature, store the raw event, answer.

A plain ASGI endpoint in front of the rest of the application, to keep the cost of a request low.

    204  authentic and committed     401  invalid signature        413  too large
    405  neither POST nor PUT        408  the body came too slowly 415  Content-Encoding
    503  cannot be stored now

Codat counts any 2xx within 15 seconds as delivered and everything else, redirects included, as
failed (Codat docs, "Webhooks: retry policy"), so a delivery that is not stored must not get a 2xx.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logging
from app.codat.webhooks.signature import Verifier
from app.db.event_store import EventStore, ReceivedEvent
from app.domain.webhook_loss import WEBHOOK_PATH
from app.errors import DatabaseUnavailable, ServiceError, SignatureError
from app.web.http_limits import BODY_COMPLETE, BodyBudget
from app.web.metrics import Metrics
from app.web.request_context import request_id_header

SIGNATURES = frozenset({b"webhook-signature", b"svix-signature"})
MAX_LOGGED_PATHS = 20
METHODS = frozenset({"POST", "PUT"})
BODY_WITHIN_S = 20.0
RETRY_AFTER_S = 30
_ERRORS = {
    401: b"Unauthorized",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    503: b"Service Unavailable",
}
_EXTRA_HEADERS = {
    405: [(b"allow", b"POST, PUT")],
    415: [(b"accept-encoding", b"identity")],
    503: [(b"retry-after", b"%d" % RETRY_AFTER_S)],
}

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
        root_path: str = "",
        verifier: Verifier,
        store: Callable[[], EventStore],
        max_body_bytes: int,
        clock: Callable[[], datetime],
        metrics: Metrics,
        body_budget: BodyBudget,
    ) -> None:
        self._app = app
        self._path = root_path + WEBHOOK_PATH  # as sent, or with a slash: no other spelling
        self._paths = frozenset({self._path.encode(), f"{self._path}/".encode()})
        self._logged_paths: set[bytes] = set()
        self._verifier = verifier
        self._store = store
        self._max_body_bytes = max_body_bytes
        self._clock = clock
        self._metrics = metrics
        self._budget = body_budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a delivery, by no 5xx but 503."""
        if scope["type"] != "http" or _raw_path(scope) not in self._paths:
            await self._app(scope, receive, self._watch(scope, send))
            return
        request_id = request_id_header(scope)
        status: int | None = 204
        if scope["method"] not in METHODS:
            status = 405
        else:
            try:
                result = await self._receive(scope, receive, request_id[1].decode())
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

    def _watch(self, scope: Scope, send: Send) -> Send:
        """A `send` that counts and logs a signed delivery to a path where nothing receives it."""
        if scope["type"] != "http" or scope["method"] not in METHODS:
            return send
        if not any(name in SIGNATURES for name, _ in scope["headers"]):
            return send

        async def watch(message: Message) -> None:
            if message.get("status") in (404, 405):
                self._metrics.delivery("wrong_path")
                self._log_path(_raw_path(scope))
            await send(message)

        return watch

    def _log_path(self, path: bytes) -> None:
        """Log each path once, and no more than MAX_LOGGED_PATHS: anybody can send these."""
        if path not in self._logged_paths and len(self._logged_paths) < MAX_LOGGED_PATHS:
            self._logged_paths.add(path)
            fields = {"path": path[:200].decode("latin-1"), "expected": self._path}
            action = "correct the address in the Codat Portal, or ROOT_PATH and the proxy"
            _log.warning("a webhook was sent to another path", **fields, action=action)

    async def _receive(self, scope: Scope, receive: Receive, request_id: str) -> str:
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
        event = ReceivedEvent(verified.message_id, now, body)
        is_new = await self._store().store(event, request_id)
        return "stored" if is_new else "duplicate"

    async def _read(
        self, scope: Scope, receive: Receive, acquire: Callable[[int], bool] | None
    ) -> bytes:
        length, is_encoded = _content(scope)
        if is_encoded:  # the signature is for the bytes before: a 401 would be misleading
            raise _Rejected("content_encoding", 415)
        self._require_size(length)
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


def _content(scope: Scope) -> tuple[int, bool]:
    """The announced length, and whether the body is encoded, such as compressed.

    The length is 0 where it is absent or no number: then what arrives is counted. More than twenty
    digits exceed every limit; reading them all would cost time.
    """
    length, is_encoded = 0, False
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            length = int(value[:20])
        elif name == b"content-encoding":
            is_encoded = is_encoded or value.strip().lower() not in (b"", b"identity")
    return length, is_encoded


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
