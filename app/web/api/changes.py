"""Our services' door, what leaves: the feed of changes, and handing on what must be retried."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import Field

from app.db import change_feed as changes
from app.db import journal
from app.errors import BadRequest
from app.settings import Settings
from app.web.api.event_stream import STREAM_TYPE, ChangeStream, Streams, Watcher
from app.web.api.query_params import LONGEST_CURSOR, ChangeQuery, Whose
from app.web.api.responses import prefers
from app.web.api.retry import hand_on
from app.web.api.schemas_changes import ChangeAnswer, ChangeList, RetryAnswer
from app.web.api.serializers import change_answer
from app.web.auth import TheDatabase
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

PER_READ = 200
router = APIRouter(tags=["changes"], route_class=IdRoute)
LastEventId = Annotated[
    Annotated[str, Field(max_length=LONGEST_CURSOR)] | None,
    Header(description="in a stream: where it was left; it beats `after`"),
]


@router.get(
    "/changes",
    summary="Every change of a sync or a transaction, once, in order",
    response_model=ChangeList,
    responses={200: {"content": {STREAM_TYPE: {}}}, **documented(401, 422, 503)},
)
def list_changes(
    request: Request,
    database: TheDatabase,
    query: Annotated[ChangeQuery, Query()],
    last_event_id: LastEventId = None,
) -> ChangeList | Response:
    """What changed after a cursor, oldest first. To resume, give the last change's `cursor`.

    With `Accept: text/event-stream` the answer stays open and tells each change as it comes, with
    its cursor as the event's id.
    """

    def read(after: str | None, limit: int) -> tuple[Sequence[ChangeAnswer], str | None]:
        with journal.caught_up(database) as connection:
            page = changes.read_changes(connection, after, limit)
        return [change_answer(each) for each in page.items], page.next

    if not prefers(request, STREAM_TYPE):
        items, following = read(query.after, query.limit)
        return ChangeList(items=list(items), next=following)

    def more(after: str | None) -> tuple[Sequence[ChangeAnswer], bool]:
        items, following = read(after, PER_READ)
        return items, following is not None

    try:
        first = more(last_event_id or query.after)
    except BadRequest as error:
        raise BadRequest("Last-Event-ID" if last_event_id else "after", error.reason) from None
    streams: Streams = request.app.state.streams
    if not streams.enter():
        raise HTTPException(503, "too many streams are open; ask again later", {"Retry-After": "5"})
    watcher = Watcher(more, lambda: request.app.state.is_ending())
    return ChangeStream(watcher.lines(*first, last_event_id or query.after), streams)


@router.post(
    "/syncs/{sync_id}/retry",
    tags=["syncs"],
    summary="Hand a sync's failed transactions on, to be sent again",
    status_code=202,
    responses=documented(401, 404, 409, 422, 503),
)
def retry(
    request: Request, database: TheDatabase, sync_id: Id, whose: Annotated[Whose, Query()]
) -> RetryAnswer:
    """Owe a signed `retry.requested` to `RETRY_WEBHOOK_URL`, with what failed and is not yet cured.

    409 when nothing failed, or no such address is set. The same transactions asked for twice
    within a minute are sent once, under one message id.
    """
    settings: Settings = request.app.state.settings
    kept, asked = hand_on(database, settings, sync_id, whose.company_id, datetime.now(UTC))
    return RetryAnswer(
        company_id=kept.sync.company_id,
        sync_id=kept.sync.sync_id,
        message_id=asked.message_id,
        transactions=asked.transactions,
        already_requested=asked.again,
    )
