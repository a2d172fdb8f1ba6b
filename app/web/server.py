"""The HTTP server: uvicorn with our bounds, and a shutdown within ten seconds."""

import errno
import os
import signal
import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from app.errors import ServiceError
from app.settings import Settings
from app.web.http_limits import BoundedProtocol, max_connections
from app.web.shutdown import force_exit_later

GRACE_S = 4  # for requests in hand after a signal; then the server cancels them
BACKLOG = 2048
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or SIGINT."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                workers=1,  # uvicorn would read WEB_CONCURRENCY: run more containers instead
                http=BoundedProtocol,
                ws="none",
                limit_concurrency=max_connections(),
                log_config=None,
                access_log=False,
                proxy_headers=False,  # `app.web.app` reads them, behind the webhook endpoint
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=GRACE_S,
                backlog=BACKLOG,
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; return after an orderly shutdown. Raises ServiceError when it cannot start."""
        for number in SIGNALS:
            # uvicorn's own handlers are set later, and it raises the signal again after its
            # shutdown, where the default action would make the exit code -15
            signal.signal(number, self.handle_exit)
        try:
            super().run(sockets)
        except SystemExit as error:  # raised by uvicorn when it cannot start
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise ServiceError("the application could not start; see the log") from None
            code = cause.errno or 0
            reason = os.strerror(code) if code in errno.errorcode else cause.strerror or str(cause)
            place = f"{self.config.host}:{self.config.port}"
            raise ServiceError(f"cannot listen on {place}: {reason}") from None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown, and the timer that ends the process if it hangs."""
        force_exit_later()
        super().handle_exit(sig, frame)
