"""The HTTP server as this service wants it: uvicorn, with an end that comes in time."""

import asyncio
import multiprocessing
import signal
import socket
from types import FrameType
from typing import Any

import uvicorn

from app import log
from app.ending import end_for_certain
from app.settings import Settings
from app.web import wire

GRACE_S = 4  # for requests in hand, once a signal came; then the server answers for them

_log = log.get(__name__)


class Server(uvicorn.Server):
    """uvicorn, which ends within ten seconds of a signal even when the database hangs."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down, and start the clock that ends the process for certain."""
        end_for_certain()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve; as the child of another process, for as long as that lives."""
        await super().startup(sockets)
        parent = multiprocessing.parent_process()
        if parent is not None:
            asyncio.get_running_loop().add_reader(
                parent.sentinel, self._left_alone, parent.sentinel
            )

    def _left_alone(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        _log.warning("the parent of this process is gone; it ends too")
        self.handle_exit(signal.SIGTERM, None)


def make_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves this ASGI application."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        workers=1,  # or it would read WEB_CONCURRENCY; `app.serving` has several
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
