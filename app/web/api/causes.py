"""Our services' door, causes: why transactions fail, who must act, and what to do next."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.db import journal
from app.db.queries import causes as queries_causes
from app.errors import NotKnown
from app.web.api.query_params import CauseQuery
from app.web.api.schemas_causes import CauseAnswer, CauseList, cause_answer
from app.web.auth import TheDatabase
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

MOST_GROUPS = 200

router = APIRouter(tags=["causes"], route_class=IdRoute)


@router.get("/causes", summary="Why transactions fail", responses=documented(401, 422, 503))
def list_causes(database: TheDatabase, query: Annotated[CauseQuery, Query()]) -> CauseList:
    """Every cause of the failures in a range of time, each with its ten largest groups.

    `from` and `to` are compared with a sync's own time, as in `/syncs`. The list is whole: there
    are only so many causes.
    """
    with journal.caught_up(database) as connection:
        found = queries_causes.list_causes(connection, query.wanted())
    known = database.rules.causes
    items = [cause_answer(each.cause, known.get(each.cause), each) for each in found]
    return CauseList(items=items, next=None)


@router.get(
    "/causes/{cause}", summary="One cause and its groups", responses=documented(401, 404, 422, 503)
)
def get_cause(
    database: TheDatabase, cause: Id, query: Annotated[CauseQuery, Query()]
) -> CauseAnswer:
    """The cause in words, and its groups (the largest 200). Zeros where nothing failed of it."""
    with journal.caught_up(database) as connection:
        found = queries_causes.list_causes(connection, query.wanted(cause), most_groups=MOST_GROUPS)
    known = database.rules.causes.get(cause)
    if known is None and not found:
        raise NotKnown("no such cause is known here")
    return cause_answer(cause, known, found[0] if found else None)
