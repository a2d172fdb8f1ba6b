"""The ASGI application: FastAPI with its parts, and the webhook endpoint in front of it.

    RootPath, if set → WebhookEndpoint → RequestContext → HeadAsGet → BodyLimit
    → ProxyHeadersMiddleware → FastAPI

The endpoint is in front because each layer of middleware costs a delivery about a tenth of its
whole time. FastAPI redirects nothing: for Codat a redirect is a failed delivery.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import VERSION
from app.codat.client import CodatClient
from app.codat.webhooks.signature import Verifier
from app.db.engine import Database
from app.db.event_store import EventStore
from app.domain.webhook_loss import WEBHOOK_PATH
from app.errors import SettingsError
from app.settings import Settings
from app.web import health, openapi, problems
from app.web.api import router as api
from app.web.codat_api import routes as codat_api
from app.web.dependencies import Clock, CodatCheck, InteractiveCalls, SyncStarter, WakeWorker
from app.web.http_limits import BodyBudget, BodyLimit
from app.web.metrics import Metrics
from app.web.openapi_texts import INTRODUCTION
from app.web.pages import router as pages
from app.web.request_context import RequestContext
from app.web.rewriting import HeadAsGet, RootPath
from app.web.webhooks import WebhookEndpoint

TITLE = "Codat Sync for Expenses receiver"


@dataclass(frozen=True, slots=True)
class Services:
    """What requests use. Each field is on `app.state` (see `app.web.dependencies`)."""

    settings: Settings
    database: Database
    clock: Clock
    metrics: Metrics
    codat: CodatClient
    interactive_calls: InteractiveCalls
    check_codat: CodatCheck
    sync_starter: SyncStarter
    wake_worker: WakeWorker


class Application(FastAPI):
    """FastAPI that passes every request through `front` first, when that is set."""

    front: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await (self.front or super().__call__)(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request without `front`."""
        await super().__call__(scope, receive, send)


def create_app(
    services: Services,
    *,
    verifier: Verifier,
    event_store: Callable[[], EventStore],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    telemetry: TelemetryConfig | None = None,
) -> Application:
    """Assemble the application. `event_store` is called per delivery, after the start.

    `telemetry` says where FastAPI reports traces; by default nowhere.
    """
    app = Application(
        title=TITLE,
        version=VERSION,
        description=INTRODUCTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `app.web.openapi` serves both
        docs_url=None,
        redoc_url=None,
        telemetry=telemetry or {"tracing": False, "metrics": False, "logs": False},
    )
    for field in fields(services):
        setattr(app.state, field.name, getattr(services, field.name))
    app.state.started_at = services.clock()
    app.state.is_stopping = lambda: False  # the server replaces it
    for part in (problems, health, api, codat_api, pages, openapi):
        part.install(app)

    settings = services.settings
    budget = BodyBudget(settings.max_unverified_body_bytes)
    behind_proxy: Any = ProxyHeadersMiddleware(app.routed, settings.forwarded_allow_ips)  # type: ignore[arg-type]  # ASGI too
    app.front = WebhookEndpoint(
        RequestContext(HeadAsGet(BodyLimit(behind_proxy, budget)), services.metrics),
        root_path=settings.root_path,
        verifier=verifier,
        store=event_store,
        max_body_bytes=settings.max_body_bytes,
        clock=services.clock,
        metrics=services.metrics,
        body_budget=budget,
    )
    if settings.root_path:
        _check_root_path(app, settings.root_path)
        app.front = RootPath(app.front, settings.root_path)
    return app


def _check_root_path(app: FastAPI, root_path: str) -> None:
    """Raise SettingsError if a path of ours begins with ROOT_PATH, and so has two meanings."""
    paths = [route.path for route in iter_route_contexts(app.routes)] + [WEBHOOK_PATH]
    if any(f"{path}/".startswith(f"{root_path}/") for path in paths):
        raise SettingsError(f"ROOT_PATH must not be {root_path}, a path of this service.")
