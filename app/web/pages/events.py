"""The stored webhooks, first those that need review, and the page of one with its body."""

from typing import Literal

from fastapi import APIRouter, Response

from app.db.queries import companies, events
from app.web.api.query_params import NoParams, PageParams
from app.web.api.serializers import serialize_event, serialize_event_with_body
from app.web.pages.query_params import read_query
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.path_params import Id

MAX_BODY_SHOWN = 100_000  # characters

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class EventPageParams(PageParams):
    """Which webhooks; by default those that need review."""

    show: Literal["unreadable", "unknown", "ok", "all"] | None = None


@router.get("/events")
def list_events(page: SignedInPage) -> Response:
    """Webhooks, newest first."""
    query = read_query(page.request, EventPageParams)
    with page.database.reading() as connection:
        found = events.list_events(
            connection,
            parse_status=None if query.show == "all" else query.show,
            needs_review=query.show is None,
            cursor=query.cursor,
            limit=query.limit,
        )
        company_ids = {event.company_id for event in found.items if event.company_id}
        names = companies.company_names(connection, company_ids)
    rows = [serialize_event(event) for event in found.items]
    return page.render("events.html", query=query, events=rows, next=found.next, names=names)


@router.get("/events/{message_id}")
def get_event(page: SignedInPage, message_id: Id) -> Response:
    """One webhook with its body, shown as text only."""
    read_query(page.request, NoParams)
    with page.database.reading() as connection:
        event = events.get_event(connection, message_id, with_body=True)
        names = companies.company_names(connection, {event.company_id} if event.company_id else ())
    shown = serialize_event_with_body(event)
    return page.render("event.html", event=shown, names=names, max_shown=MAX_BODY_SHOWN)
