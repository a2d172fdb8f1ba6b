"""The change feed, as pages and as an event stream."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app import logging
from app.db import change_feed
from app.db.engine import Database
from app.db.pagination import MAX_CURSOR_LENGTH
from app.errors import BadRequest, ServiceError
from app.web.api import schemas
from app.web.api.query_params import ChangeParams
from app.web.api.responses import prefers
from app.web.api.serializers import serialize_change
from app.web.dependencies import DatabaseDep
from app.web.problems import documented

STREAM_TYPE = "text/event-stream"
STREAM_PAGE_SIZE = 200
MAX_STREAMS = 50  # per process
POLL_EVERY_S = 1.0
COMMENT_EVERY_S = 15.0
LastEventId = Annotated[
    Annotated[str, Field(max_length=MAX_CURSOR_LENGTH)] | None,
    Header(description="For event streams: the last event received. It takes precedence over "
                       "`after`."),
]  # fmt: skip
Batch = tuple[Sequence[schemas.Change], bool]
"""Changes, and whether there are more already."""

_log = logging.get(__name__)
router = APIRouter(tags=["Change feed"])


@router.get(
    "/changes",
    summary="List changes",
    response_model=schemas.ChangeList,
    responses={200: {"content": {STREAM_TYPE: {}}}, **documented(401, 410, 422, 503)},
)
def list_changes(
    request: Request,
    database: DatabaseDep,
    params: Annotated[ChangeParams, Query()],
    last_event_id: LastEventId = None,
) -> Response | schemas.ChangeList:
    """Every change of a sync or a transaction once, in one order, oldest first.

    To continue, pass the `cursor` of the last change you have processed as `after`. 410 if
    retention has removed changes after it: read the syncs again, then the feed without `after`.

    With `Accept: text/event-stream` the response stays open and sends each change when it happens.
    The ID of an event is the cursor of its change.
    """
    if prefers(request, STREAM_TYPE):
        return _stream(request, database, params.after, last_event_id)
    items, has_more = _read(database, params.after, params.limit)
    return schemas.ChangeList(items=list(items), next=items[-1].cursor if has_more else None)


def _read(database: Database, after: str | None, limit: int) -> Batch:
    """Changes after a cursor. Raises BadRequest naming `after`, and Gone (see `change_feed`)."""
    with database.reading() as connection:
        page = change_feed.read(connection, after, limit + 1)
    causes = database.classifier.causes
    changes = [serialize_change(change, causes) for change in page.items[:limit]]
    return changes, len(page.items) > limit


def _stream(
    request: Request, database: Database, after: str | None, last_event_id: str | None
) -> Response:
    """A stream of changes. Errors of the first read have their status, before it begins."""

    def read(cursor: str | None) -> Batch:
        return _read(database, cursor, STREAM_PAGE_SIZE)

    start = last_event_id or after
    try:
        first = read(start)
    except BadRequest as error:
        raise BadRequest("Last-Event-ID" if last_event_id else "after", error.reason) from None
    places: threading.BoundedSemaphore = request.app.state.stream_places
    if not places.acquire(blocking=False):
        raise HTTPException(503, "Too many open streams. Try again later.", {"Retry-After": "5"})
    events = follow(
        read,
        start,
        first,
        request.app.state.is_stopping,
        poll_every_s=POLL_EVERY_S,
        comment_every_s=COMMENT_EVERY_S,
    )
    return ChangeStream(events, places)


async def follow(
    read: Callable[[str | None], Batch],
    after: str | None,
    first: Batch,
    is_stopping: Callable[[], bool],
    *,
    poll_every_s: float,
    comment_every_s: float,
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

    def __init__(self, events: AsyncIterator[bytes], places: threading.BoundedSemaphore) -> None:
        caching = "no-store, no-transform"  # a proxy that compresses would hold changes back
        headers = {"Cache-Control": caching, "X-Accel-Buffering": "no", "Vary": "Accept"}
        super().__init__(events, headers=headers)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()
