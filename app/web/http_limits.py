"""Limits on connections: their number, headers, bodies, and times.

uvicorn's parser has no such bounds: endless headers would fill the memory, and a connection that
sends half a request would never be closed. `BoundedProtocol` adds them per connection:

    431  64 KiB without the end of the headers, or of the trailers after a chunked body
    408  20 seconds without the end of the headers
    400  more than 16 requests sent ahead of their answers
    503  more than 2000 concurrent connections, none of which is idle

At the limit the connections that have been idle the longest are closed, so that the long keep-alive
times that load balancers need keep nobody out. A connection is closed when a body takes longer
than 30 seconds, and when a client reads nothing of an answer for 60. `BodyBudget` bounds the memory
of bodies over all connections, and `BodyLimit` the bodies of all routes but the webhook endpoint,
which has its own limit and time.
"""

import asyncio
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from typing import Any

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
HEAD_WITHIN_S = 20.0
BODY_WITHIN_S = 30.0
READ_WITHIN_S = 60.0
MAX_PIPELINED = 16
MAX_CONNECTIONS = 2000
OTHER_FILES = 100  # open files besides connections: database, log
MAX_API_BODY_BYTES = 1_048_576
RETRY_AFTER_S = 5
BODY_COMPLETE = "app.body_complete"
"""In the scope of a request whose whole body has arrived: `receive` does not wait."""


def max_connections() -> int:
    """The most concurrent connections. Raises the limit on open files where it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MAX_CONNECTIONS, max(1, soft - OTHER_FILES))


@dataclass
class BodyBudget:
    """The bytes of bodies that all requests together may hold in memory before they are verified.

    For one event loop.
    """

    limit: int
    used: int = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], bool]]:
        """A function that takes bytes for one request; they are given back at the end.

        The function returns False, and takes nothing, when that is more than is left.
        """
        held = 0

        def acquire(size: int) -> bool:
            nonlocal held
            if self.used + size > self.limit:
                return False
            self.used += size
            held += size
            return True

        try:
            yield acquire
        finally:
            self.used -= held


class BodyLimit:
    """ASGI middleware: bounds each body, and takes its bytes from the budget until the answer.

    `receive` raises HTTPException, which every framework above turns into its own answer: 413 for
    a body that is too large, 503 when the budget is used up.
    """

    def __init__(
        self, app: ASGIApp, budget: BodyBudget, max_bytes: int = MAX_API_BODY_BYTES
    ) -> None:
        self._app = app
        self._budget = budget
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bounded `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size = 0

        async def bounded_receive() -> Message:
            nonlocal size
            message = await receive()
            arrived = len(message.get("body", b""))
            size += arrived
            if size > self._max_bytes:
                raise HTTPException(413, "The body is too large.")
            if not acquire(arrived):
                detail = "Too many request bodies are in memory. Try again later."
                raise HTTPException(503, detail, {"Retry-After": str(RETRY_AFTER_S)})
            return message

        with self._budget.share() as acquire:
            await self._app(scope, bounded_receive, send)


class LimitExceeded(Exception):
    """Ends the parsing of a message; uvicorn then calls `send_400_response`."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bytes_without_progress = 0
        self._has_progressed = False
        self._is_in_body = False
        self._is_complete = False
        self._refusal = HTTPStatus.BAD_REQUEST
        self._deadline: asyncio.TimerHandle | None = None
        self._read_check: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        # of all connections of this server, by the time since when
        self._idle: dict[BoundedProtocol, None] = vars(self.server_state).setdefault("idle", {})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Start the deadline of the first request; until then the connection is idle."""
        super().connection_made(transport)
        self._make_room()
        self._idle[self] = None
        self._start_deadline()

    def _make_room(self) -> None:
        """Close idle connections, the oldest first, while there are too many of all kinds."""
        while self._idle and len(self.connections) >= (self.limit_concurrency or MAX_CONNECTIONS):
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            self.connections.discard(oldest)
            oldest.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_deadline()
        self._idle.pop(self, None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data; a deadline runs afterwards unless a message is complete."""
        self._has_progressed = self._is_complete = False
        self._idle.pop(self, None)
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._bytes_without_progress += len(data)
        if self._has_progressed:
            self._bytes_without_progress = 0
        if self._bytes_without_progress > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._is_complete:
            self._stop_deadline()
        elif self._deadline is None:
            self._start_deadline()

    def on_message_begin(self) -> None:
        """Handle a request's first byte."""
        self._is_in_body = self._is_complete = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Pass the request on, unless its head or the requests before it are too much."""
        self._is_in_body = self._has_progressed = True
        self._stop_deadline()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise LimitExceeded
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        if size > MAX_HEAD_BYTES:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise LimitExceeded
        self._make_room()
        super().on_headers_complete()
        self.headers = []  # headers from here on are trailers, which are ignored

    def on_body(self, body: bytes) -> None:
        """Handle a piece of the body."""
        self._has_progressed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Mark the request as complete."""
        self._is_complete = self._has_progressed = True
        self._is_in_body = False
        self.scope[BODY_COMPLETE] = True  # type: ignore[literal-required]  # ASGI allows more
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection is idle now, unless another request waits."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None and self._deadline is None:
            self._idle[self] = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 # the same answer for every cause
        """Refuse what cannot be parsed as HTTP."""
        self._refuse(self._refusal)

    def pause_writing(self) -> None:
        """Start to watch a client that reads more slowly than the answer is written."""
        super().pause_writing()
        self._schedule_read_check()

    def _schedule_read_check(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._read_check = self.loop.call_later(READ_WITHIN_S, self._check_reader)

    def _check_reader(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._schedule_read_check()
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """Stop watching: the client has read enough."""
        if self._read_check is not None:
            self._read_check.cancel()
            self._read_check = None
        super().resume_writing()

    def _start_deadline(self) -> None:
        seconds = BODY_WITHIN_S if self._is_in_body else HEAD_WITHIN_S
        self._deadline = self.loop.call_later(seconds, self._time_out)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self.flow.read_paused:  # the server has stopped reading: an earlier answer is under way
            self._start_deadline()
        elif self._is_in_body:
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Close the connection; answer first unless an earlier request's answer is under way."""
        if self.cycle is None or self.cycle.response_complete:
            head = f"HTTP/1.1 {status} {status.phrase}\r\ncontent-length: 0\r\nconnection: close"
            self.transport.write(f"{head}\r\n\r\n".encode())
        self.transport.close()
