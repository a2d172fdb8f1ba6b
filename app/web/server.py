"""The HTTP server as this service wants it: uvicorn, with an end that comes in time."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from app import logging as log
from app.settings import Settings
from app.web import http_limits as wire
from app.web.listening import BACKLOG
from app.web.shutdown import end_for_certain

GRACE_S = 4  # for requests in hand, once a signal came; then the server answers for them

_log = log.get(__name__)


class Server(uvicorn.Server):
    """uvicorn, which ends within ten seconds of a signal even when the database hangs."""

    def __init__(self, config: uvicorn.Config, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called as long as requests are served."""
        super().__init__(config)
        self._beat = beat

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down, and start the clock that ends the process for certain.

        A child gets a terminal's SIGINT and then its parent's SIGTERM: twice is not "at once".
        """
        end_for_certain()
        super().handle_exit(signal.SIGTERM if multiprocessing.parent_process() else sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; as the child of another process, live no longer than that."""
        self._beat()
        parent = multiprocessing.parent_process()
        if parent and parent.pid != os.getppid() and not self.should_exit:
            _log.warning("the parent of this process is gone; it ends too")
            self.handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)


def make_config(app: Any, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves this ASGI application."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        workers=1,  # or it would read WEB_CONCURRENCY; `app.cli.serve` has several
        http=wire.BoundedProtocol,
        ws="none",
        limit_concurrency=wire.most_connections(),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # `web.service` reads them, behind the door
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )
