"""Retries of the open transactions of many syncs: preview, request and progress."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Query

from app import logging
from app.db import retries
from app.db.retries import RetryFilter, RetryRequest
from app.domain.outgoing import recipient_name
from app.errors import Conflict
from app.settings import Settings
from app.web.api import schemas
from app.web.api.query_params import NoQuery, RetryParams
from app.web.api.responses import ApiRoute
from app.web.auth import ActorDep
from app.web.dependencies import ClockDep, DatabaseDep, SettingsDep, WakeWorkerDep
from app.web.path_params import Id
from app.web.problems import documented

MAX_SYNCS = 5000  # in one request
_log = logging.get(__name__)

router = APIRouter(tags=["Retries"], route_class=ApiRoute)


def retry_recipient(settings: Settings) -> str:
    """The name of the receiver of retries. Raises Conflict if none is set."""
    if settings.retry_webhook_url is None:
        raise Conflict("Retry is not set up (RETRY_WEBHOOK_URL).")
    return recipient_name("retry", settings.retry_webhook_url.get_secret_value())


@router.get("/retries/preview", summary="Preview a retry", responses=documented(401, 422, 503))
def preview_retry(
    database: DatabaseDep, params: Annotated[RetryParams, Query()]
) -> schemas.RetryPreview:
    """How many syncs and open transactions a retry with this filter would request."""
    with database.reading() as connection:
        found = retries.preview(connection, params.to(RetryFilter))
    return schemas.RetryPreview.model_validate(found)


@router.post(
    "/retries",
    summary="Request a retry of all open transactions of a filter",
    status_code=202,
    responses=documented(400, 401, 409, 422, 503),
)
def retry_many(
    database: DatabaseDep,
    settings: SettingsDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    actor: ActorDep,
    body: RetryParams,
    _params: NoQuery,
) -> schemas.RetriesAccepted:
    """Queue one signed `retry.requested` message per sync for `RETRY_WEBHOOK_URL`.

    Each has the open failed transactions of the sync that the filter selects. A sync for which the
    same was requested within a minute, or is not delivered yet, is not sent again, so the request
    is safe to repeat. 409 if nothing is open, or if `RETRY_WEBHOOK_URL` is not set. A request takes
    5,000 syncs; repeat it while `is_complete` is false.
    """
    recipient = retry_recipient(settings)
    bulk_id = f"retry_{secrets.token_hex(16)}"
    requests: list[RetryRequest] = []
    new: list[RetryRequest] = []
    after_pk: int | None = 0
    while after_pk is not None and len(new) < MAX_SYNCS:
        with database.writing() as connection:
            step, after_pk = retries.request_step(
                connection,
                body.to(RetryFilter),
                after_pk,
                clock(),
                to=recipient,
                actor=actor,
                bulk_id=bulk_id,
            )
        requests += step
        new += (request for request in step if not request.already_requested)
    if not requests:
        raise Conflict("Nothing to retry: no item is open.")
    wake_worker()
    bulk_ids = [request.bulk_id for request in new or requests if request.bulk_id]
    _log.info("retries requested", retry_id=bulk_id, syncs=len(new))
    return schemas.RetriesAccepted(
        retry_id=bulk_ids[0] if bulk_ids else None,
        syncs=len(new),
        transactions=sum(request.transactions for request in new),
        already_requested=len(requests) - len(new),
        is_complete=after_pk is None,
    )


@router.get(
    "/retries/{retry_id}",
    summary="Get the progress of a retry",
    responses=documented(401, 404, 422, 503),
)
def get_retry(database: DatabaseDep, retry_id: Id, _params: NoQuery) -> schemas.RetryProgress:
    """How many of the messages are delivered. Available as long as `KEEP_CHANGES_DAYS`."""
    with database.reading() as connection:
        found = retries.bulk_retry(connection, retry_id)
    return schemas.RetryProgress.model_validate(found)
