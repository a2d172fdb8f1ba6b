"""Retry of all open items of a cause or a company: a preview to confirm, and the progress."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app.errors import BadRequest
from app.web.api import retries as api
from app.web.api.query_params import NoParams, RetryParams
from app.web.api.serializers import retry_host, serialize_cause
from app.web.dependencies import ClockDep, DatabaseDep, SettingsDep, WakeWorkerDep
from app.web.pages.query_params import path
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.pages.sessions import OwnForm, SignedIn
from app.web.path_params import Id

FIELDS = ("cause", "company_id", "from", "to")

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/retries")
def get_preview(
    page: SignedInPage, settings: SettingsDep, params: Annotated[RetryParams, Query()]
) -> Response:
    """What a retry would request, before it does."""
    return page.render(
        "retries.html",
        preview=api.preview_retry(page.database, params),
        fields={name: page.request.query_params.get(name) for name in FIELDS},
        cause=serialize_cause(params.cause, page.causes),
        company_id=params.company_id,
        names=page.company_names(params.company_id),
        host=retry_host(settings.retry_webhook_url),
    )


@router.post("/retries")
def post_retry(
    database: DatabaseDep,
    settings: SettingsDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    session: SignedIn,
    form: OwnForm,
) -> Response:
    """Request the retries, and show their progress."""
    try:
        params = RetryParams.model_validate({key: form[key] for key in FIELDS if form.get(key)})
    except ValidationError:
        raise BadRequest("from", "is not a filter of a retry") from None
    accepted = api.retry_many(
        database, settings, clock, wake_worker, session.actor, params, NoParams()
    )
    if accepted.retry_id is None:
        where = {"cause": params.cause, "company_id": params.company_id}
        return RedirectResponse(path("retries", **where), 303)
    return RedirectResponse(path("retries", accepted.retry_id), 303)


@router.get("/retries/{retry_id}")
def get_progress(page: SignedInPage, settings: SettingsDep, retry_id: Id) -> Response:
    """How far the messages have been delivered."""
    return page.render(
        "retry.html",
        retry=api.get_retry(page.database, retry_id, NoParams()),
        host=retry_host(settings.retry_webhook_url),
    )
