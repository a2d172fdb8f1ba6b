"""`send`: one signed sample event, to try out an endpoint."""

import asyncio
import uuid
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.terminal import one_line_errors
from app.codat.webhooks import samples
from app.errors import ServiceError
from app.settings import load_settings

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 20
EVENT_HELP = ", ".join(samples.EVENT_NAMES)


def send(
    event: Annotated[str, typer.Argument(help=EVENT_HELP, metavar="EVENT")],
    to: Annotated[str | None, typer.Option(help="URL; by default this service's own.")] = None,
    secret: Annotated[
        str | None, typer.Option(help="Signing secret; the first of CODAT_WEBHOOK_SECRETS.")
    ] = None,
    sync: Annotated[str | None, typer.Option(help="Sync ID; a new one by default.")] = None,
    company: Annotated[str | None, typer.Option(help="Company ID; a new one by default.")] = None,
    shape: Annotated[samples.Shape | None, typer.Option(help="Generation of the body.")] = None,
) -> None:
    """Post one signed sample event, as Codat would."""
    import httpx

    from app.bootstrap import utc_now

    kind = samples.sync_event_of(event)
    if kind is None:
        raise typer.BadParameter(f"Unknown event {event!r}. Use one of: {EVENT_HELP}.")
    company_id, sync_id = company or str(uuid.uuid4()), sync or str(uuid.uuid4())
    now = utc_now()
    try:
        body = samples.sample_body(
            kind, company_id=company_id, sync_id=sync_id, now=now, shape=shape
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    with one_line_errors():
        settings = load_settings(required=() if secret else ("codat_webhook_secrets",))
        if not secret:
            secret = settings.codat_webhook_secrets[0].get_secret_value()
        try:
            content, headers = samples.sign(body, secret, now)
        except Exception:  # svix raises several unrelated types
            raise ServiceError(
                "The secret is invalid. Expected whsec_… as shown in the Codat Portal."
            ) from None
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = to or f"http://{host}:{settings.port}/webhooks/codat"
        try:
            answer = asyncio.run(_post(url, content, headers))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServiceError(f"Cannot reach {url}: {error}") from None
        status = answer.status_code
        typer.echo(f"{status} company={company_id} sync={sync_id} {headers['webhook-id']}")
        if not 200 <= status < 300:
            raise ServiceError(f"The endpoint answered {status}.")


async def _post(url: str, content: bytes, headers: dict[str, str]) -> "httpx.Response":
    from app.bootstrap import make_http

    async with make_http() as http:
        return await http.post(url, content=content, headers=headers, timeout=TIMEOUT_S)
