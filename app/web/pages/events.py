"""The kept webhooks: first those nothing could be made of, each with its reason."""

from fastapi import APIRouter, Request, Response

from app.db.queries import companies as queries_companies
from app.db.queries import events as queries_events
from app.web.api.query_params import Nothing
from app.web.api.serializers import event_answer, event_with_body
from app.web.auth import TheDatabase
from app.web.pages.query_params import KeptQuery, asked
from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import SignedIn
from app.web.path_params import Id

ODD = ("unreadable", "unknown")
MOST_SHOWN = 100_000

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/events")
def list_events(request: Request, database: TheDatabase, _session: SignedIn) -> Response:
    """One list of the reading that is asked for, else the first page of each that is odd."""
    query = asked(request, KeptQuery)
    lists = []
    with database.reading() as connection:
        for reading in (query.reading,) if query.reading else ODD:
            found = queries_events.list_events(
                connection,
                reading=None if reading == "any" else reading,
                cursor=query.cursor if query.reading else None,
                limit=query.limit,
            )
            lists.append((reading, [event_answer(each) for each in found.items], found.next))
        ids = {each.company_id for _, some, _ in lists for each in some if each.company_id}
        names = queries_companies.names_of(connection, ids)
    return page(request, "events.html", query=query, lists=lists, names=names)


@router.get("/events/{event_id}")
def get_event(
    request: Request, database: TheDatabase, event_id: Id, _session: SignedIn
) -> Response:
    """One kept webhook with its body, as text and never as anything else."""
    asked(request, Nothing)
    with database.reading() as connection:
        event = queries_events.get_event(connection, event_id, with_body=True)
        whose = {event.company_id} if event.company_id else set()
        names = queries_companies.names_of(connection, whose)
    told = event_with_body(event)
    return page(request, "event.html", event=told, names=names, most=MOST_SHOWN)
