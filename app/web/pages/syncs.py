"""One sync: what happened, its items, its timeline; asking Codat again, retrying what failed."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.db.engine import Database
from app.db.queries import (
    causes as queries_causes,
)
from app.db.queries import (
    events as queries_events,
)
from app.db.queries import (
    syncs as queries,
)
from app.db.queries import (
    transactions as queries_items,
)
from app.errors import NotKnown
from app.web.api.query_params import Whose
from app.web.api.responses import tagged
from app.web.api.retry import hand_on
from app.web.api.serializers import sync_answer
from app.web.auth import TheDatabase, TheOwing
from app.web.pages.notices import back_to, notice_of, said
from app.web.pages.presenters import candid, watched
from app.web.pages.query_params import SyncPageQuery, asked, path
from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import OwnForm, SignedIn
from app.web.path_params import Id

STEPS_AT_ONCE = 100

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/syncs/{sync_id}")
def get_sync(request: Request, database: TheDatabase, sync_id: Id, _session: SignedIn) -> Response:
    """All that is known of one sync, from what is kept here; nothing waits for Codat."""
    query = asked(request, SyncPageQuery)
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, query.company_id)
        items = queries_items.list_items(
            connection, kept.number, query.wanted(), cursor=query.cursor, limit=query.limit
        )
        causes = queries_causes.causes_in(connection, kept.number)
        steps = queries_events.timeline(
            connection,
            kept.number,
            kept.sync.company_id,
            sync_id,
            cursor=query.steps,
            limit=STEPS_AT_ONCE,
        )
        seen = queries_events.last_heartbeat(connection)
    sync, notice = candid(sync_answer(kept)), notice_of(request)
    answer = page(
        request,
        "sync.html",
        query=query,
        sync=sync,
        causes=causes,
        items=items,
        steps=steps,
        worker=watched(seen, request.app.state.clock()),
        notice=notice,
    )
    if notice:
        said(answer, sync_id)
    return answer


@router.get("/syncs/{sync_id}/json")
def get_json(request: Request, database: TheDatabase, sync_id: Id, _session: SignedIn) -> Response:
    """The sync as the API answers it."""
    query = asked(request, Whose)
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, query.company_id)
    return tagged(request, sync_answer(kept))


@router.post("/syncs/{sync_id}/refresh")
def post_refresh(
    database: TheDatabase, owe: TheOwing, sync_id: Id, _session: SignedIn, form: OwnForm
) -> Response:
    """Owe a fetch of this sync, due now, and show its page again."""
    company_id = _company_of(database, sync_id, form)
    if not owe(company_id, sync_id):
        raise NotKnown("no such sync is known here")
    return back_to(sync_id, company_id, "refresh")


@router.post("/syncs/{sync_id}/retry")
def post_retry(
    request: Request, database: TheDatabase, sync_id: Id, _session: SignedIn, form: OwnForm
) -> Response:
    """Hand the failed items of this sync over to be sent again, and show its page again."""
    settings, now = request.app.state.settings, request.app.state.clock()
    kept, _ = hand_on(database, settings, sync_id, form.get("company_id") or None, now)
    return back_to(sync_id, kept.sync.company_id, "retry")


def _company_of(database: Database, sync_id: str, form: dict[str, str]) -> str:
    """Whose sync it is. Raises NotKnown, or Conflicting where the form does not say."""
    with database.reading() as connection:
        kept = queries.get_sync(connection, sync_id, form.get("company_id") or None)
    return kept.sync.company_id


@router.get("/syncs/{sync_id}/retry")
@router.get("/syncs/{sync_id}/refresh")
def back_to_the_page(sync_id: Id, _session: SignedIn) -> Response:
    """Who had to sign in between the button and its effect comes back to the page."""
    return RedirectResponse(path("syncs", sync_id), 303)
