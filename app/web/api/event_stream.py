"""Streams of changes: few at a time, alive while nothing happens, ended when the process ends."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app import logging as log
from app.errors import ServiceError
from app.web.api.schemas_changes import ChangeAnswer

MOST_STREAMS = 50
LOOK_EVERY_S = 1.0
ALIVE_EVERY_S = 15.0
STREAM_TYPE = "text/event-stream"

_log = log.get(__name__)
Read = Callable[[str | None], tuple[Sequence[ChangeAnswer], bool]]
"""Reads what came after a cursor: the changes, and whether there are more already."""


class Streams:
    """How many streams this process serves."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._places = threading.BoundedSemaphore(most)

    def enter(self) -> bool:
        """Take a place; False when there is none. Each place taken is left once."""
        return self._places.acquire(blocking=False)

    def leave(self) -> None:
        """Give the place back."""
        self._places.release()


@dataclass(frozen=True, slots=True)
class Watcher:
    """Reads again and again what came after the last change it has told."""

    read: Read
    is_ending: Callable[[], bool]
    look_every_s: float = LOOK_EVERY_S
    alive_every_s: float = ALIVE_EVERY_S

    async def lines(
        self, told: Sequence[ChangeAnswer], more: bool, after: str | None
    ) -> AsyncIterator[bytes]:
        """These changes, then each later one as it comes, and a comment when it is quiet.

        Ends when the process ends or the database is away; the reader comes back with its cursor.
        """
        yield format_sse_event(comment="changes")
        silent_since = time.monotonic()
        while not self.is_ending():
            for each in told:
                yield format_sse_event(data_str=each.model_dump_json(), id=each.cursor)
                after = each.cursor
            if told:
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since >= self.alive_every_s:
                yield format_sse_event(comment="nothing new")
                silent_since = time.monotonic()
            if not more:
                await asyncio.sleep(self.look_every_s)
            try:
                told, more = await run_in_threadpool(self.read, after)
            except ServiceError as error:
                _log.warning("a stream of changes ends", reason=str(error))
                return


class ChangeStream(StreamingResponse):
    """An answer that holds a place among the streams until it ends, however it ends."""

    media_type = STREAM_TYPE

    def __init__(self, lines: AsyncIterator[bytes], streams: Streams) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        super().__init__(lines, headers=headers)
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.leave()
