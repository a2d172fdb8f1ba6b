"""Stored webhook events, and the secrets that verify them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app import logging
from app.db import event_store
from app.db.queries import events as queries
from app.web.api import schemas
from app.web.api.query_params import BodyParams, EventParams, NoQuery
from app.web.api.responses import ApiRoute
from app.web.api.serializers import serialize_event_with_body
from app.web.auth import ActorDep
from app.web.dependencies import DatabaseDep, MetricsDep, WakeWorkerDep
from app.web.path_params import Id
from app.web.problems import documented

_log = logging.get(__name__)
router = APIRouter(tags=["Webhooks"], route_class=ApiRoute)


@router.get("/events", summary="List webhook events", responses=documented(401, 422, 503))
def list_events(
    database: DatabaseDep, params: Annotated[EventParams, Query()]
) -> schemas.EventList:
    """One page of stored webhooks without their bodies, newest first."""
    with database.reading() as connection:
        page = queries.list_events(
            connection, parse_status=params.parse_status, cursor=params.cursor, limit=params.limit
        )
    items = [schemas.Event.model_validate(record) for record in page.items]
    return schemas.EventList(items=items, next=page.next)


@router.get(
    "/events/{message_id}",
    summary="Get a webhook event",
    responses=documented(304, 401, 404, 422, 503),
)
def get_event(
    database: DatabaseDep, message_id: Id, params: Annotated[BodyParams, Query()]
) -> schemas.EventWithBody | schemas.Event:
    """The webhook with this message ID, and its raw body if `body` is true."""
    with database.reading() as connection:
        record = queries.get_event(connection, message_id, with_body=params.body)
    return (
        serialize_event_with_body(record) if params.body else schemas.Event.model_validate(record)
    )


@router.post(
    "/events/{message_id}/replay",
    summary="Replay a webhook event",
    status_code=202,
    responses=documented(401, 404, 410, 422, 503),
)
def replay_event(
    database: DatabaseDep,
    wake_worker: WakeWorkerDep,
    actor: ActorDep,
    message_id: Id,
    _params: NoQuery,
) -> schemas.Event:
    """Parse the stored body with the current version and apply it again. Safe to repeat.

    Applying it restarts unfinished work of its sync. 410 if retention has removed the body.
    """
    with database.writing() as connection:
        event_store.mark_pending(connection, message_id, actor)
        record = queries.get_event(connection, message_id)
    wake_worker()
    ids = {"message_id": message_id, "sync_id": record.sync_id, "company_id": record.company_id}
    _log.info("replay requested", **ids)
    return schemas.Event.model_validate(record)


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
