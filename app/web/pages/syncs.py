"""The page of one sync: its result, items and timeline; refresh from Codat, retry failed items."""

from collections.abc import Iterable
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import Field

from app.db import retries
from app.db.pagination import MAX_CURSOR_LENGTH
from app.db.queries import causes, events, syncs, transactions
from app.db.queries.transactions import TransactionFilter
from app.domain.causes.classifier import UNCLASSIFIED
from app.web.api import schemas
from app.web.api import syncs as api
from app.web.api.query_params import SyncIdParams, Text, TransactionParams
from app.web.api.serializers import (
    retry_host,
    serialize_cause,
    serialize_sync_details,
    serialize_transaction,
)
from app.web.dependencies import ClockDep, DatabaseDep, SettingsDep, WakeWorkerDep
from app.web.pages.notices import set_notice
from app.web.pages.presenters import present_sync
from app.web.pages.query_params import BackwardParams, path
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.pages.sessions import OwnForm, SignedIn
from app.web.path_params import Id
from app.web.problems import documented

TIMELINE_LIMIT = 100
NO_RETRY_URL = "Retry is not set up (RETRY_WEBHOOK_URL)."

router = APIRouter(include_in_schema=False, route_class=PageRoute)


class SyncPageParams(TransactionParams, BackwardParams):
    """The filters of the items, and the cursor of the timeline."""

    cause: Text | None = None
    timeline: str | None = Field(None, min_length=1, max_length=MAX_CURSOR_LENGTH)


@router.get("/syncs/{sync_id}")
def get_sync(
    page: SignedInPage,
    settings: SettingsDep,
    sync_id: Id,
    params: Annotated[SyncPageParams, Query()],
) -> Response:
    """What is stored about one sync; nothing waits for Codat."""
    criteria = params.to(TransactionFilter)
    with page.database.reading() as connection:
        record = syncs.get_sync(connection, sync_id, params.company_id)
        counts = causes.cause_counts(connection, [record.pk])[record.pk]
        counts.sort(key=lambda entry: -entry[1])  # what is open may change between two pages
        items = transactions.list_transactions(
            connection,
            record.pk,
            criteria,
            cursor=params.before or params.cursor,
            limit=params.limit,
            causes_first=[key for key, *_ in counts if key],
        )
        timeline = events.timeline(
            connection, record.pk, cursor=params.timeline, limit=TIMELINE_LIMIT
        )
        asked_at = events.last_fetch_at(connection, record.pk)
        retry = retries.last_retry(connection, record.pk)
    reasons = [
        (serialize_cause(key or UNCLASSIFIED, page.causes), count, count_open)
        for key, count, count_open in counts
    ]
    details = serialize_sync_details(record, retry, page.causes, settings.retry_webhook_url)
    host = retry_host(settings.retry_webhook_url)
    return page.render(
        "sync.html",
        query=params,
        sync=present_sync(record, page.causes),
        reasons=reasons,
        cause_titles={cause.key: cause.title for cause, _, _ in reasons if cause},
        groups=_by_cause([serialize_transaction(row, page.causes) for row in items.items]),
        next=items.next,
        previous=items.previous,
        asked_at=asked_at,
        is_refreshing=record.job is not None and record.job.state == "pending",
        timeline=timeline,
        no_retry=details.no_retry_reason or (NO_RETRY_URL if host is None else None),
        last_retry=details.last_retry,
        retry_host=host,
    )


def _by_cause(
    items: Iterable[schemas.Transaction],
) -> list[tuple[schemas.Cause | None, list[schemas.Transaction]]]:
    """Neighboring items with the same cause."""
    groups = groupby(items, key=lambda item: item.cause.key if item.cause else None)
    lists = (list(group) for _, group in groups)
    return [(group[0].cause, group) for group in lists]


@router.get("/syncs/{sync_id}/json", responses=documented(304))
def get_json(
    page: SignedInPage, settings: SettingsDep, sync_id: Id, params: api.SyncIdQuery
) -> schemas.SyncDetails:
    """The sync as the API returns it."""
    return api.get_sync(page.database, settings, sync_id, params)


@router.post("/syncs/{sync_id}/refresh")
def post_refresh(
    database: DatabaseDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    session: SignedIn,
    sync_id: Id,
    form: OwnForm,
) -> Response:
    """Queue a fetch of the sync from Codat, and show its page again."""
    params = _which_company(form)
    accepted = api.refresh_sync(database, clock, wake_worker, session.actor, sync_id, params)
    return _back_to(sync_id, accepted.company_id, "refresh")


@router.post("/syncs/{sync_id}/retry")
def post_retry(
    database: DatabaseDep,
    settings: SettingsDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    session: SignedIn,
    sync_id: Id,
    form: OwnForm,
) -> Response:
    """Request a retry of the failed items, and show the sync's page again."""
    params = _which_company(form)
    accepted = api.retry_sync(
        database, settings, clock, wake_worker, session.actor, sync_id, params
    )
    notice = "retry_repeated" if accepted.already_requested else f"retry:{accepted.transactions}"
    return _back_to(sync_id, accepted.company_id, notice)


def _which_company(form: dict[str, str]) -> SyncIdParams:
    """The company that the form names. Any text is looked up: an unknown one is not found."""
    return SyncIdParams.model_construct(company_id=form.get("company_id") or None)


def _back_to(sync_id: str, company_id: str | None, notice: str) -> Response:
    """Back to the sync's page, which shows a notice."""
    response = RedirectResponse(path("syncs", sync_id, company_id=company_id), 303)
    set_notice(response, notice)
    return response


@router.get("/syncs/{sync_id}/retry")
@router.get("/syncs/{sync_id}/refresh")
def redirect_to_sync(sync_id: Id, _session: SignedIn) -> Response:
    """Redirect a user who had to sign in after submitting the form."""
    return RedirectResponse(path("syncs", sync_id), 303)
