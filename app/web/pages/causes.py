"""Why things fail: the failures of all companies sorted by cause, and what to do about each."""

from dataclasses import replace
from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response

from app.db import journal
from app.db.queries import causes as queries_causes
from app.db.queries.transactions import ErrorFilter
from app.domain.days import midnight
from app.web.api.events import ERROR_COLUMNS, reading_errors
from app.web.api.query_params import CauseQuery
from app.web.api.responses import as_csv
from app.web.api.schemas_causes import cause_answer
from app.web.auth import TheDatabase
from app.web.pages.query_params import USUAL_DAYS, asked
from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import SignedIn
from app.web.path_params import Id

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/causes")
def list_causes(request: Request, database: TheDatabase, _session: SignedIn) -> Response:
    """Every cause of the last thirty days or the range asked for, most open failures first."""
    query = asked(request, CauseQuery)
    lately = not query.from_ and not query.to
    wanted = query.wanted()
    if lately:
        now: datetime = request.app.state.clock()
        wanted = replace(wanted, since=midnight(now - timedelta(days=USUAL_DAYS)))
    with journal.caught_up(database) as connection:
        found = queries_causes.list_causes(connection, wanted)
    known = database.rules.causes
    causes = [cause_answer(each.cause, known.get(each.cause), each) for each in found]
    return page(request, "causes.html", causes=causes, query=query, lately=lately)


@router.get("/causes/{cause}/open.csv")
def get_open(request: Request, database: TheDatabase, cause: Id, _session: SignedIn) -> Response:
    """The failed transactions of a cause that no later sync has written, as the API writes them."""
    query = asked(request, CauseQuery)
    wanted = ErrorFilter(
        company_id=query.company_id, cause=cause, open=True, since=query.from_, until=query.to
    )
    read = reading_errors(database, wanted)
    return as_csv(read, ERROR_COLUMNS, name="open-transactions", cursor=None, most=None)
