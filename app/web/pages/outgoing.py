"""The pages of outgoing messages: where they went, with which result, and sending one again."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import RedirectResponse

from app.db import outgoing, sync_writer
from app.db.queries import outgoing as queries
from app.domain.outgoing import DeliveryState, recipient_name
from app.errors import Conflict, NotFound
from app.settings import Settings
from app.web.api.query_params import NoQuery, PageParams
from app.web.dependencies import ClockDep, DatabaseDep, SettingsDep, WakeWorkerDep
from app.web.pages.notices import set_notice
from app.web.pages.query_params import BackwardParams, path
from app.web.pages.rendering import PageRoute, SignedInPage
from app.web.pages.sessions import OwnForm, SignedIn

router = APIRouter(include_in_schema=False, route_class=PageRoute)
MessageKey = Annotated[int, Path(ge=1, le=2**63 - 1)]


class OutgoingParams(PageParams, BackwardParams):
    """Which messages, by the state of their delivery."""

    state: DeliveryState | None = None


@router.get("/outgoing")
def list_messages(
    page: SignedInPage, settings: SettingsDep, params: Annotated[OutgoingParams, Query()]
) -> Response:
    """Messages to other systems, newest first."""
    with page.database.reading() as connection:
        found = queries.list_messages(
            connection, params.state, cursor=params.before or params.cursor, limit=params.limit
        )
    return page.render(
        "outgoing.html",
        query=params,
        messages=found.items,
        next=found.next,
        previous=found.previous,
        receivers=receivers(settings),
        names=page.company_names(*(message.company_id for message in found.items)),
    )


@router.get("/outgoing/{key}")
def get_message(
    page: SignedInPage, settings: SettingsDep, key: MessageKey, _params: NoQuery
) -> Response:
    """One message to one receiver, with each attempt."""
    with page.database.reading() as connection:
        message = queries.get_message(connection, key)
    known = receivers(settings)
    return page.render(
        "message.html",
        message=message,
        receivers=known,
        no_resend=_no_resend_reason(message, known),
        names=page.company_names(message.company_id),
    )


@router.post("/outgoing/{key}/resend")
def post_resend(
    database: DatabaseDep,
    settings: SettingsDep,
    clock: ClockDep,
    wake_worker: WakeWorkerDep,
    session: SignedIn,
    key: MessageKey,
    _form: OwnForm,
) -> Response:
    """Send a message again, with the same id, and show its page."""
    now = clock()
    with database.writing() as connection:
        shown = queries.get_message(connection, key)
        if reason := _no_resend_reason(shown, receivers(settings)):
            raise Conflict(reason)
        message = outgoing.load(connection, key)
        if message is None:
            raise NotFound("Message not found")
        if message.sync_pk is not None:  # locked before the job, as in every writer
            sync_writer.load_sync(connection, message.sync_pk)
        outgoing.resend(connection, message, now)
        if message.sync_pk is not None:
            by = f" by {session.actor}" if session.actor else ""
            entry = sync_writer.LogEntry(
                now, "resend", f"{message.kind}{by} ({message.message_id})"
            )
            sync_writer.add_log(connection, message.sync_pk, entry)
    wake_worker()
    response = RedirectResponse(path("outgoing", str(key)), 303)
    set_notice(response, "resend")
    return response


def _no_resend_reason(message: queries.MessageRecord, known: dict[str, str]) -> str | None:
    """Why a message cannot be sent again; None if it can."""
    if message.recipient is None:
        return "A worker has not processed this message yet."
    if message.recipient not in known:
        return "The address of this receiver is no longer set."
    if message.state == "waiting" and message.next_attempt_at is None:
        return "An attempt is running."
    return None


def receivers(settings: Settings) -> dict[str, str]:
    """The host or service of each receiver that is set, by the name of the recipient."""
    webhooks = [address.get_secret_value() for address in settings.notify_webhook_urls]
    found = {recipient_name("webhook", url): urlsplit(url).hostname or "" for url in webhooks}
    if settings.retry_webhook_url:
        url = settings.retry_webhook_url.get_secret_value()
        found[recipient_name("retry", url)] = urlsplit(url).hostname or ""
    for address in settings.notify_urls:
        url = address.get_secret_value()
        found[recipient_name("notification", url)] = url.partition("://")[0]
    return found
