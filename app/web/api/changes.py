"""The change feed, as pages and as an event stream."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import Field

from app.db import change_feed
from app.db.engine import Database
from app.db.pagination import MAX_CURSOR_LENGTH
from app.errors import BadRequest
from app.web.api import schemas
from app.web.api.event_stream import STREAM_TYPE, ChangeStream, StreamLimit, follow
from app.web.api.query_params import ChangeParams
from app.web.api.responses import prefers
from app.web.api.serializers import serialize_change
from app.web.dependencies import DatabaseDep
from app.web.problems import documented

STREAM_PAGE_SIZE = 200
LastEventId = Annotated[
    Annotated[str, Field(max_length=MAX_CURSOR_LENGTH)] | None,
    Header(description="For event streams: the last event received. It takes precedence over "
                       "`after`."),
]  # fmt: skip

router = APIRouter(tags=["Change feed"])


def read_changes(
    database: Database, after: str | None, limit: int
) -> tuple[Sequence[schemas.Change], bool]:
    """Up to `limit` changes after a cursor, and whether there are more.

    Raises BadRequest naming `after`, and Gone for a cursor that retention has passed.
    """
    with database.reading() as connection:
        page = change_feed.read(connection, after, limit + 1)
    causes = database.classifier.causes
    changes = [serialize_change(change, causes) for change in page.items[:limit]]
    return changes, len(page.items) > limit


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
    if not prefers(request, STREAM_TYPE):
        items, has_more = read_changes(database, params.after, params.limit)
        following = items[-1].cursor if has_more else None
        return schemas.ChangeList(items=list(items), next=following)
    return _stream(request, database, params.after, last_event_id)


def _stream(
    request: Request, database: Database, after: str | None, last_event_id: str | None
) -> Response:
    """A stream of changes. Errors of the first read have their status, before it begins."""

    def read(cursor: str | None) -> tuple[Sequence[schemas.Change], bool]:
        return read_changes(database, cursor, STREAM_PAGE_SIZE)

    start = last_event_id or after
    try:
        first = read(start)
    except BadRequest as error:
        raise BadRequest("Last-Event-ID" if last_event_id else "after", error.reason) from None
    limit: StreamLimit = request.app.state.stream_limit
    if not limit.acquire():
        raise HTTPException(503, "Too many open streams. Try again later.", {"Retry-After": "5"})
    return ChangeStream(follow(read, start, first, request.app.state.is_stopping), limit)
