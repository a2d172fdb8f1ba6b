"""What a connection may cost before, around and after its request: bytes, time, a queue.

uvicorn's parser sets no such bounds: headers without end would fill the memory, and a connection
that says half a word would stay open for ever. Here they are, for each connection:

    431  64 KiB without an end of the headers (or of the trailers behind a chunked body)
    408  20 seconds without an end of the headers
    400  more than 16 requests sent ahead of their answers
    503  more than 2000 connections at once

A body that takes over 30 seconds, and a reader who takes nothing for 60, are hung up on. Codat's
door is stricter with bodies and answers first.
"""

import asyncio
import resource
from http import HTTPStatus
from itertools import chain
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 65_536
HEAD_WITHIN_S = 20.0
BODY_WITHIN_S = 30.0
READ_WITHIN_S = 60.0
MOST_AHEAD = 16
MOST_CONNECTIONS = 2000
FILES_OF_OUR_OWN = 100
WHOLE = "app.whole"  # in the scope of a request whose body has come: `receive` does not wait


def most_connections() -> int:
    """How many may be open at once; all the files that the system lets us open are made use of."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + FILES_OF_OUR_OWN
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(MOST_CONNECTIONS, max(1, soft - FILES_OF_OUR_OWN))


class TooMuch(Exception):
    """Ends the parsing of what came; uvicorn then calls `send_400_response`."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stalled = 0  # bytes since the message last got on
        self._got_on = False
        self._in_body = False
        self._whole = False
        self._why = HTTPStatus.BAD_REQUEST
        self._deadline: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; afterwards only a whole message leaves no deadline behind."""
        self._got_on = self._whole = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._stalled = 0 if self._got_on else self._stalled + len(data)
        if self._stalled > MOST_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._whole:
            self._disarm()
        elif self._deadline is None:
            self._arm()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_body = self._whole = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Hand the request on, unless what came in one piece is too much."""
        self._in_body = self._got_on = True
        self._disarm()
        if len(self.pipeline) >= MOST_AHEAD:
            raise TooMuch
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        if size > MOST_HEAD_BYTES:
            self._why = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise TooMuch
        super().on_headers_complete()
        self.headers = []  # what comes now are trailers, which nobody here reads

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here as a whole."""
        self._whole = self._got_on = True
        self._in_body = False
        self.scope[WHOLE] = True  # type: ignore[literal-required]  # ASGI allows more
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 # the same few words for every cause
        """Turn away what cannot be read as HTTP."""
        self._refuse(self._why)

    def pause_writing(self) -> None:
        """The reader takes less than is there for him; he is waited for, within bounds."""
        super().pause_writing()
        self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        self._reader = self.loop.call_later(READ_WITHIN_S, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._wait_for_reader()
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """The reader reads."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        super().resume_writing()

    def _arm(self) -> None:
        seconds = BODY_WITHIN_S if self._in_body else HEAD_WITHIN_S
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self.flow.read_paused:  # it is we who do not read: an earlier answer is under way
            self._arm()
        elif self._in_body:
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Say why, unless an earlier request's answer is under way, and hang up."""
        if self.cycle is None or self.cycle.response_complete:
            head = f"HTTP/1.1 {status} {status.phrase}"
            self.transport.write(
                f"{head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self.transport.close()
