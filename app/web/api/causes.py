"""Causes: why transactions and syncs fail, who has to act, and what to do next."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.db import alerts
from app.db.queries import causes as queries
from app.db.queries import companies as company_queries
from app.errors import NotFound
from app.web.api import schemas
from app.web.api.query_params import CauseCompanyParams, CauseParams, NoQuery
from app.web.api.responses import ApiRoute
from app.web.api.serializers import serialize_cause_details, serialize_cause_totals
from app.web.auth import ActorDep
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
        cannot_sync = company_queries.count_that_cannot_sync(connection, params.company_id)
    causes = database.classifier.causes
    items = [
        serialize_cause_totals(cause, causes, cannot_sync.get(cause.cause_key, 0))
        for cause in totals
    ]
    return schemas.CauseList(items=items, next=None)


@router.get("/causes/{key}", summary="Get a cause", responses=documented(304, 401, 404, 422, 503))
def get_cause(
    database: DatabaseDep, clock: ClockDep, key: Id, params: CauseQuery
) -> schemas.CauseDetails:
    """A cause and its groups. Totals are 0 if nothing failed for it in the time range."""
    with database.reading() as connection:
        details = queries.get_cause(connection, key, params.to_filter(clock()))
        cannot_sync = company_queries.count_that_cannot_sync(connection, params.company_id)
    causes = database.classifier.causes
    if key not in causes and not details.groups:
        raise NotFound("Cause not found")
    return serialize_cause_details(details, causes, cannot_sync.get(key, 0))


@router.get(
    "/causes/{key}/companies",
    summary="List the companies of a cause",
    responses=documented(401, 422, 503),
)
def list_cause_companies(
    database: DatabaseDep,
    clock: ClockDep,
    key: Id,
    params: Annotated[CauseCompanyParams, Query()],
) -> schemas.CauseCompanyList:
    """One page of the companies with failures of a cause, the most open transactions first."""
    with database.reading() as connection:
        page = queries.list_companies(
            connection,
            key,
            params.to_filter(clock()),
            cursor=params.cursor,
            limit=params.limit,
        )
    items = [schemas.CauseCompany.model_validate(record) for record in page.items]
    return schemas.CauseCompanyList(items=items, next=page.next)


@router.put(
    "/causes/{key}/companies/{company_id}/note",
    summary="Write a note about a cause at a company",
    status_code=204,
    responses=documented(400, 401, 409, 422, 503),
)
def put_cause_note(
    database: DatabaseDep,
    clock: ClockDep,
    actor: ActorDep,
    key: Id,
    company_id: Id,
    body: schemas.NewNote,
    _params: NoQuery,
) -> Response:
    """Replace the note about the open failures of a cause at a company.

    It is shown with the name of the API key until something new fails. 409 if nothing is open.
    """
    note = alerts.NewNote(body.text, body.is_handled, actor)
    with database.writing() as connection:
        alerts.annotate(connection, key, company_id, note, clock())
    return Response(status_code=204)
