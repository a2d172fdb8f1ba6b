"""Causes: why transactions and syncs fail, who has to act, and what to do next."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.db.queries import causes as queries
from app.errors import NotFound
from app.web.api import schemas
from app.web.api.query_params import CauseParams
from app.web.api.responses import ApiRoute
from app.web.api.serializers import serialize_cause_details, serialize_cause_totals
from app.web.dependencies import ClockDep, DatabaseDep
from app.web.path_params import Id
from app.web.problems import documented

CauseQuery = Annotated[CauseParams, Query()]

router = APIRouter(tags=["Causes"], route_class=ApiRoute)


@router.get("/causes", summary="List causes", responses=documented(401, 422, 503))
def list_causes(database: DatabaseDep, clock: ClockDep, params: CauseQuery) -> schemas.CauseList:
    """All causes of failures, those with the most open transactions first. There is one page.

    A transaction counts once, under its latest failure. `from` and `to` are compared with the time
    of that failure. Without both, the list covers the last 30 days (UTC, today included).
    """
    with database.reading() as connection:
        totals = queries.list_causes(connection, params.to_filter(clock()))
    causes = database.classifier.causes
    items = [serialize_cause_totals(cause, causes) for cause in totals]
    return schemas.CauseList(items=items, next=None)


@router.get("/causes/{key}", summary="Get a cause", responses=documented(304, 401, 404, 422, 503))
def get_cause(
    database: DatabaseDep, clock: ClockDep, key: Id, params: CauseQuery
) -> schemas.CauseDetails:
    """A cause and its groups. Totals are 0 if nothing failed for it in the time range."""
    with database.reading() as connection:
        details = queries.get_cause(connection, key, params.to_filter(clock()))
    causes = database.classifier.causes
    if key not in causes and not details.groups:
        raise NotFound("Cause not found")
    return serialize_cause_details(details, causes)
