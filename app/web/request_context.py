"""The id of each request: the caller's own or a new one, returned and in the log lines."""

import re
import time
from random import Random

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logging
from app.web.metrics import Metrics

PROBES = ("/livez", "/readyz", "/metrics")
HEADER = b"x-request-id"
_VALID = re.compile(rb"[\w.:/+=@-]{1,128}", re.ASCII)
_log = logging.get(__name__)
_random_bits = Random().getrandbits  # noqa: S311 # no secret; others may seed the shared one


def request_id_header(scope: Scope) -> tuple[bytes, bytes]:
    """The header of the answer: the caller's id if it is plain and short, else a new one.

    New ids need not be secret, so they cost no system call: each delivery needs one.
    """
    for name, value in scope["headers"]:
        if name == HEADER and _VALID.fullmatch(value):
            return HEADER, bytes(value)
    return HEADER, b"%032x" % _random_bits(128)


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
        header = request_id_header(scope)
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds, route = time.perf_counter() - started, _route_template(scope)
                self._metrics.record_request(scope["method"], route, message["status"], seconds)
                _log_request(scope, message["status"], seconds)
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        with logging.bound(request_id=header[1].decode()):
            await self._app(scope, receive, send_with_id)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    """One line per request when its answer starts; without the query, which may have names."""
    path = scope["path"]
    write = _log.debug if path.endswith(PROBES) or "/static/" in path else _log.info
    ms = round(seconds * 1000, 1)
    write("request", method=scope["method"], path=path[:200], status=status, ms=ms)


def _route_template(scope: Scope) -> str:
    """The matched route, `/api/v1/syncs/{sync_id}`; "other" where nothing matched."""
    # FastAPI's route has its own path only; the context has the prefixes of its routers too
    context = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(context, "path_format", None) or getattr(scope.get("route"), "path", None)
    return template or "other"
