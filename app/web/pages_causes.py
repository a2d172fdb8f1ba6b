"""Why things fail: the failures of all companies sorted by cause, and what to do about each."""

from fastapi import APIRouter, Request, Response

from app.storage import queries_causes
from app.web.answers_causes import cause_answer
from app.web.deps import TheDatabase
from app.web.filters import CauseQuery
from app.web.pages_asked import asked
from app.web.pages_frame import PageRoute, page
from app.web.sessions import SignedIn

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/causes")
def list_causes(request: Request, database: TheDatabase, _session: SignedIn) -> Response:
    """Every cause there are failures of, those with the most open ones first."""
    query = asked(request, CauseQuery)
    with database.reading() as connection:
        found = queries_causes.list_causes(connection, query.wanted())
    known = database.rules.causes
    causes = [cause_answer(each.cause, known.get(each.cause), each) for each in found]
    return page(request, "causes.html", causes=causes, query=query)
