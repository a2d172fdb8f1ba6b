"""The stored webhooks, first those that need review, and the page of one with its body."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse

from app.db.queries import events
from app.web.api import events as api
from app.web.api import schemas
from app.web.api.query_params import NoParams, NoQuery, PageParams
from app.web.api.serializers import serialize_event_with_body
from app.web.dependencies import DatabaseDep, WakeWorkerDep
from app.web.pages.notices import set_notice
from app.web.pages.query_params import BackwardParams, path
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.pages.sessions import OwnForm, SignedIn
from app.web.path_params import Id

MAX_BODY_SHOWN = 100_000  # characters

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class EventPageParams(PageParams, BackwardParams):
    """Which webhooks; by default those that need review."""

    show: Literal["unreadable", "unknown", "ok", "all"] | None = None


@router.get("/events")
def list_events(page: SignedInPage, params: Annotated[EventPageParams, Query()]) -> Response:
    """Webhooks, newest first."""
    with page.database.reading() as connection:
        found = events.list_events(
            connection,
            parse_status=None if params.show == "all" else params.show,
            needs_review=params.show is None,
            cursor=params.before or params.cursor,
            limit=params.limit,
        )
    rows = [schemas.Event.model_validate(event) for event in found.items]
    names = page.company_names(*(event.company_id for event in rows))
    return page.render(
        "events.html",
        query=params,
        events=rows,
        next=found.next,
        previous=found.previous,
        names=names,
    )


@router.get("/events/{message_id}")
def get_event(page: SignedInPage, message_id: Id, _params: NoQuery) -> Response:
    """One webhook with its body, shown as text only."""
    with page.database.reading() as connection:
        record = events.get_event(connection, message_id, with_body=True)
    event, names = serialize_event_with_body(record), page.company_names(record.company_id)
    return page.render("event.html", event=event, names=names, max_shown=MAX_BODY_SHOWN)


@router.post("/events/{message_id}/replay")
def post_replay(
    database: DatabaseDep,
    wake_worker: WakeWorkerDep,
    session: SignedIn,
    message_id: Id,
    _form: OwnForm,
) -> Response:
    """Process a webhook again, and show its page."""
    api.replay_event(database, wake_worker, session.actor, message_id, NoParams())
    response = RedirectResponse(path("events", message_id), 303)
    set_notice(response, "replay")
    return response
