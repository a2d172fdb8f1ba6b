"""The ASGI application: FastAPI with its parts, and the webhook endpoint in front of it.

    WebhookEndpoint → RequestContext → BodyLimit → ProxyHeadersMiddleware → FastAPI

The endpoint is in front because each layer of middleware costs a delivery about a tenth of its
whole time. FastAPI redirects nothing: for Codat a redirect is a failed delivery.
"""

import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import VERSION
from app.codat.client import CodatClient
from app.codat.webhooks.signature import Verifier
from app.db.engine import Database
from app.db.event_store import EventStore
from app.settings import Settings
from app.web import health, openapi, problems
from app.web.api import router as api
from app.web.codat_api import routes as codat_api
from app.web.dependencies import Clock, InteractiveCalls, SyncStarter, WakeWorker
from app.web.http_limits import BodyBudget, BodyLimit
from app.web.metrics import Metrics
from app.web.pages import router as pages
from app.web.webhooks import WebhookEndpoint

TITLE = "Codat Sync for Expenses receiver"
_REQUEST_ID = re.compile(rb"[\w.:/+=@-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Services:
    """What requests use. Each field is on `app.state` (see `app.web.dependencies`)."""

    settings: Settings
    database: Database
    clock: Clock
    metrics: Metrics
    codat: CodatClient
    interactive_calls: InteractiveCalls
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
) -> Application:
    """Assemble the application. `event_store` is called per delivery, after the start."""
    app = Application(
        title=TITLE,
        version=VERSION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # `app.web.openapi` serves both
        docs_url=None,
        redoc_url=None,
    )
    for field in fields(services):
        setattr(app.state, field.name, getattr(services, field.name))
    app.state.started_at = services.clock()
    app.state.is_stopping = lambda: False  # the server replaces it
    for part in (problems, health, api, codat_api, pages, openapi):
        part.install(app)

    budget = BodyBudget(services.settings.max_unverified_body_bytes)
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # uvicorn's own variable
    behind_proxy: Any = ProxyHeadersMiddleware(app.routed, trusted)  # type: ignore[arg-type]  # ASGI too
    app.front = WebhookEndpoint(
        RequestContext(BodyLimit(behind_proxy, budget), services.metrics),
        verifier=verifier,
        store=event_store,
        max_body_bytes=services.settings.max_body_bytes,
        clock=services.clock,
        metrics=services.metrics,
        body_budget=budget,
    )
    return app


class RequestContext:
    """ASGI middleware: a request id in the log lines and the answer, and the request's metrics."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # the caller's id when it is plain and short, else a new one
        sent = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = bytes(sent) if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex.encode()
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds, route = time.perf_counter() - started, _route_template(scope)
                self._metrics.record_request(scope["method"], route, message["status"], seconds)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            await self._app(scope, receive, send_with_id)


def _route_template(scope: Scope) -> str:
    """The matched route, `/api/v1/syncs/{sync_id}`; "other" where nothing matched."""
    # FastAPI's route has its own path only; the context has the prefixes of its routers too
    context = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(context, "path_format", None) or getattr(scope.get("route"), "path", None)
    return template or "other"
