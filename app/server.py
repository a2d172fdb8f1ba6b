"""The HTTP server as this service wants it: uvicorn, with an end that comes in time."""

from types import FrameType
from typing import Any

import uvicorn

from app.ending import end_for_certain
from app.settings import Settings
from app.web import wire

GRACE_S = 4  # for requests in hand, once a signal came; then the server answers for them


class Server(uvicorn.Server):
    """uvicorn, which ends within ten seconds of a signal even when the database hangs."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down, and start the clock that ends the process for certain."""
        end_for_certain()
        super().handle_exit(sig, frame)


def make_server(app: Any, settings: Settings) -> Server:
    """The server for this ASGI application, not started yet."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=wire.BoundedProtocol,
        ws="none",
        limit_concurrency=wire.most_connections(),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # `web.service` reads them, behind the door
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=2048,
    )
    return Server(config)
