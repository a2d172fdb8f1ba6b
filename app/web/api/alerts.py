"""Open alerts, and notes about them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.db import alerts
from app.db.queries import alerts as queries
from app.web.api import schemas
from app.web.api.query_params import NoQuery, PageParams
from app.web.auth import ActorDep
from app.web.dependencies import ClockDep, DatabaseDep
from app.web.problems import documented

AlertId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The `id` of an open alert.")]

router = APIRouter(tags=["Alerts"])


@router.get("/alerts", summary="List open alerts", responses=documented(401, 422, 503))
def list_alerts(database: DatabaseDep, params: Annotated[PageParams, Query()]) -> schemas.AlertList:
    """One page of open alerts, newest first.

    Webhooks that did not arrive, webhook endpoints that are disabled or missing, messages that
    could not be delivered, transactions that failed and are still open, by cause and company, and
    companies that cannot sync.
    """
    with database.reading() as connection:
        page = queries.open_alerts(connection, cursor=params.cursor, limit=params.limit)
    items = [schemas.Alert.model_validate(record) for record in page.items]
    return schemas.AlertList(items=items, next=page.next)


@router.put(
    "/alerts/{alert_id}/note",
    summary="Write a note about an alert",
    status_code=204,
    responses=documented(400, 401, 404, 422, 503),
)
def put_alert_note(
    database: DatabaseDep,
    clock: ClockDep,
    actor: ActorDep,
    alert_id: AlertId,
    body: schemas.NewNote,
    _params: NoQuery,
) -> Response:
    """Replace the note, and say whether somebody takes care of the alert.

    It is shown with the name of the API key until something new fails.
    """
    note = alerts.NewNote(body.text, body.is_handled, actor)
    with database.writing() as connection:
        alerts.annotate_alert(connection, alert_id, note, clock())
    return Response(status_code=204)
