"""Server-sent events: a limited number of streams, comments while idle, an end on shutdown."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app import logging
from app.errors import ServiceError
from app.web.api.schemas import Change

MAX_STREAMS = 50
POLL_EVERY_S = 1.0
COMMENT_EVERY_S = 15.0
STREAM_TYPE = "text/event-stream"

_log = logging.get(__name__)
Batch = tuple[Sequence[Change], bool]
"""Changes, and whether there are more already."""


class StreamLimit:
    """Limits the streams of this process."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._places = threading.BoundedSemaphore(max_streams)

    def acquire(self) -> bool:
        """Take a place; False if all are taken. Release each place once."""
        return self._places.acquire(blocking=False)

    def release(self) -> None:
        """Give a place back."""
        self._places.release()


async def follow(
    read: Callable[[str | None], Batch],
    after: str | None,
    first: Batch,
    is_stopping: Callable[[], bool],
    *,
    poll_every_s: float = POLL_EVERY_S,
    comment_every_s: float = COMMENT_EVERY_S,
) -> AsyncIterator[bytes]:
    """Send the changes that were read first, then each later one, and a comment while idle.

    Ends when the process stops or the database is unavailable; the client reconnects with the id
    of the last event.
    """
    yield format_sse_event(comment="changes")
    changes, has_more = first
    idle_since = time.monotonic()
    while not is_stopping():
        for change in changes:
            yield format_sse_event(data_str=change.model_dump_json(), id=change.cursor)
            after = change.cursor
        if changes:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since >= comment_every_s:
            yield format_sse_event(comment="no changes")
            idle_since = time.monotonic()
        if not has_more:
            await asyncio.sleep(poll_every_s)
        try:
            changes, has_more = await run_in_threadpool(read, after)
        except ServiceError as error:
            _log.warning("change stream ended", reason=str(error))
            return


class ChangeStream(StreamingResponse):
    """A streaming response that gives its place back when it ends, however it ends."""

    media_type = STREAM_TYPE

    def __init__(self, events: AsyncIterator[bytes], limit: StreamLimit) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        super().__init__(events, headers=headers)
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._limit.release()
