"""Syncs: the list, one sync, its timeline, refresh, retry, statistics."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app import logging
from app.db import retries, sync_writer
from app.db.engine import Database
from app.db.queries import events as event_queries
from app.db.queries import stats as stats_queries
from app.db.queries import syncs as queries
from app.errors import Conflict, NotFound
from app.web.api import schemas
from app.web.api.csv_export import CSV_CONTENT, csv_response, wants_csv
from app.web.api.query_params import RangeParams, SyncIdParams, SyncParams, TimelineParams
from app.web.api.responses import ApiRoute
from app.web.api.retries import retry_recipient
from app.web.api.serializers import serialize_stats, serialize_sync, serialize_sync_details
from app.web.auth import ActorDep
from app.web.dependencies import ClockDep, DatabaseDep, SettingsDep, WakeWorkerDep
from app.web.path_params import Id
from app.web.problems import documented

ONE_SYNC = documented(401, 404, 409, 422, 503)
SyncIdQuery = Annotated[SyncIdParams, Query()]

_log = logging.get(__name__)
router = APIRouter(tags=["Syncs"], route_class=ApiRoute)


def read_syncs(
    database: Database, params: SyncParams, cursor: str | None, limit: int
) -> tuple[list[schemas.Sync], str | None]:
    """A page of the syncs that match the filters, and the cursor of the next one."""
    criteria, causes = params.to(queries.SyncFilter), database.classifier.causes
    with database.reading() as connection:
        page = queries.list_syncs(
            connection, criteria, sort=params.sort, cursor=cursor, limit=limit
        )
    return [serialize_sync(record, causes) for record in page.items], page.next


@router.get(
    "/syncs",
    summary="List syncs",
    response_model=schemas.SyncList,
    responses={**CSV_CONTENT, **documented(401, 422, 503)},
)
def list_syncs(
    request: Request, database: DatabaseDep, params: Annotated[SyncParams, Query()]
) -> Response | schemas.SyncList:
    """One page of syncs, the latest updated first, or all of them as CSV.

    `from` and `to` are compared with the start of a sync, or with its end or the time when it was
    first seen if the start is unknown. Unknown values sort last.
    """
    read = partial(read_syncs, database, params)
    if wants_csv(request, params):
        return csv_response(read, schemas.Sync, filename="syncs", params=params)
    items, following = read(params.cursor, params.limit)
    return schemas.SyncList(items=items, next=following)


@router.get("/syncs/{sync_id}", summary="Get a sync", responses=documented(304) | ONE_SYNC)
def get_sync(
    database: DatabaseDep, settings: SettingsDep, sync_id: Id, params: SyncIdQuery
) -> schemas.SyncDetails:
    """One sync. 409 if two companies have a sync with this ID."""
    with database.reading() as connection:
        record = queries.get_sync(connection, sync_id, params.company_id)
        retry = retries.last_retry(connection, record.pk)
    causes, retry_url = database.classifier.causes, settings.retry_webhook_url
    return serialize_sync_details(record, retry, causes, retry_url)


@router.get("/syncs/{sync_id}/timeline", summary="Get a sync's timeline", responses=ONE_SYNC)
def get_timeline(
    database: DatabaseDep, sync_id: Id, params: Annotated[TimelineParams, Query()]
) -> schemas.Timeline:
    """Every delivery, duplicate, fetch and decision, oldest first, with its reason."""
    with database.reading() as connection:
        record = queries.get_sync(connection, sync_id, params.company_id)
        page = event_queries.timeline(
            connection, record.pk, cursor=params.cursor, limit=params.limit
        )
    items = [schemas.TimelineEntry.model_validate(entry) for entry in page.items]
    return schemas.Timeline(items=items, next=page.next)


@router.post(
    "/syncs/{sync_id}/refresh", summary="Refresh a sync", status_code=202, responses=ONE_SYNC
)
def refresh_sync(
    database: DatabaseDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    actor: ActorDep,
    sync_id: Id,
    params: SyncIdQuery,
) -> schemas.RefreshAccepted:
    """Queue a fetch of the sync's status and transactions from Codat. Safe to repeat."""
    with database.writing() as connection:
        record = queries.get_sync(connection, sync_id, params.company_id)
        if not sync_writer.refresh(connection, record.pk, now=clock(), actor=actor):
            raise NotFound("Sync not found")
    wake_worker()
    company_id = record.sync.company_id
    _log.info("refresh requested", sync_id=sync_id, company_id=company_id)
    return schemas.RefreshAccepted(company_id=company_id, sync_id=sync_id)


@router.post(
    "/syncs/{sync_id}/retry",
    summary="Request a retry of a sync's failed transactions",
    status_code=202,
    responses=ONE_SYNC,
)
def retry_sync(
    database: DatabaseDep,
    settings: SettingsDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    actor: ActorDep,
    sync_id: Id,
    params: SyncIdQuery,
) -> schemas.RetryAccepted:
    """Queue a signed `retry.requested` message for `RETRY_WEBHOOK_URL`.

    It has the failed transactions that no later sync has completed. 409 if there are none, or if
    `RETRY_WEBHOOK_URL` is not set. The same request within a minute, or before it is delivered, is
    sent only once.
    """
    recipient = retry_recipient(settings)
    with database.writing() as connection:
        record = queries.get_sync(connection, sync_id, params.company_id)
        if record.no_retry_reason:
            raise Conflict(record.no_retry_reason)
        request = retries.request_retry(connection, record.pk, clock(), to=recipient, actor=actor)
    wake_worker()
    ids = {"sync_id": sync_id, "company_id": record.sync.company_id}
    _log.info("retry requested", **ids, outgoing_message_id=request.message_id)
    return schemas.RetryAccepted(
        company_id=record.sync.company_id,
        sync_id=record.sync.sync_id,
        message_id=request.message_id,
        transactions=request.transactions,
        already_requested=request.already_requested,
    )


@router.get("/stats", summary="Get statistics", responses=documented(401, 422, 503))
def get_stats(database: DatabaseDep, params: Annotated[RangeParams, Query()]) -> schemas.Stats:
    """Numbers of syncs by outcome, status code and UTC day, of all time without a range."""
    with database.reading() as connection:
        stats = stats_queries.stats(connection, params.since, params.until)
    return serialize_stats(stats)
