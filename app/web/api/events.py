"""Stored webhook events, and the secrets that verify them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.db import event_store
from app.db.queries import events as queries
from app.web.api import schemas
from app.web.api.query_params import BodyParams, EventParams, NoParams
from app.web.api.responses import NOT_MODIFIED, etag_response
from app.web.api.serializers import serialize_event, serialize_event_with_body
from app.web.dependencies import DatabaseDep, MetricsDep, WakeWorkerDep
from app.web.path_params import Id, IdRoute
from app.web.problems import documented

NoQuery = Annotated[NoParams, Query()]

router = APIRouter(tags=["Webhooks"], route_class=IdRoute)


@router.get("/events", summary="List webhook events", responses=documented(401, 422, 503))
def list_events(
    database: DatabaseDep, params: Annotated[EventParams, Query()]
) -> schemas.EventList:
    """One page of stored webhooks without their bodies, newest first."""
    with database.reading() as connection:
        page = queries.list_events(
            connection,
            parse_status=params.parse_status,
            cursor=params.cursor,
            limit=params.limit,
        )
    items = [serialize_event(record) for record in page.items]
    return schemas.EventList(items=items, next=page.next)


@router.get(
    "/events/{message_id}",
    summary="Get a webhook event",
    response_model=schemas.EventWithBody | schemas.Event,
    responses={**NOT_MODIFIED, **documented(401, 404, 422, 503)},
)
def get_event(
    request: Request,
    database: DatabaseDep,
    message_id: Id,
    params: Annotated[BodyParams, Query()],
) -> Response:
    """The webhook with this message ID, and its raw body if `body` is true."""
    with database.reading() as connection:
        record = queries.get_event(connection, message_id, with_body=params.body)
    event = serialize_event_with_body(record) if params.body else serialize_event(record)
    return etag_response(request, event)


@router.post(
    "/events/{message_id}/replay",
    summary="Replay a webhook event",
    status_code=202,
    responses=documented(401, 404, 410, 422, 503),
)
def replay_event(
    database: DatabaseDep, wake_worker: WakeWorkerDep, message_id: Id, _params: NoQuery
) -> schemas.Event:
    """Parse the stored body with the current version and apply it again. Safe to repeat.

    Applying it restarts unfinished work of its sync. 410 if retention has removed the body.
    """
    with database.writing() as connection:
        event_store.mark_pending(connection, message_id)
        record = queries.get_event(connection, message_id)
    wake_worker()
    return serialize_event(record)


@router.get(
    "/webhook-secrets", summary="List webhook secrets in use", responses=documented(401, 422)
)
async def list_webhook_secrets(
    request: Request, metrics: MetricsDep, _params: NoQuery
) -> schemas.SecretUseList:
    """When each of `CODAT_WEBHOOK_SECRETS` last verified a delivery; never the secret itself.

    After a rotation, remove the old secret once Codat signs with the new one only.
    """
    uses = [
        schemas.SecretUse(index=index, last_used_at=at)
        for index, at in enumerate(metrics.secrets_last_used())
    ]
    return schemas.SecretUseList(items=uses, next=None, since=request.app.state.started_at)
