"""The HTTP server: uvicorn with our bounds, and a shutdown within ten seconds.

After SIGTERM it still accepts connections for DRAIN_SECONDS, is no longer ready, and closes each
connection after a response that says so. A proxy in front so has no connection left in which a
request could be lost when the server closes what is idle and stops listening.
"""

import asyncio
import errno
import os
import signal
import socket
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from app.errors import ServiceError
from app.settings import Settings
from app.web.http_limits import BoundedProtocol, max_connections
from app.web.shutdown import force_exit_later

GRACE_S = 4  # for requests in hand after a signal; then the server cancels them
BACKLOG = 2048
CLOSE = (b"connection", b"close")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Serves an application until SIGTERM or SIGINT."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._settings = settings
        self._drain_s = 0
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

    async def main_loop(self) -> None:
        """Serve until a signal, then drain."""
        await super().main_loop()
        drained_at = time.monotonic() + self._drain_s
        while time.monotonic() < drained_at and not self.force_exit:
            await asyncio.sleep(0.1)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; return after an orderly shutdown. Raises ServiceError when it cannot start."""
        for number in SIGNALS:
            # uvicorn's own handlers are set later, and it raises the signal again after its
            # shutdown, where the default action would make the exit code -15
            signal.signal(number, self.handle_exit)
        try:
            super().run(sockets or _dual_stack_sockets(self.config))
        except SystemExit as error:  # raised by uvicorn when it cannot start
            cause = error.__context__
            if not isinstance(cause, OSError):
                raise ServiceError("the application could not start; see the log") from None
            code = cause.errno or 0
            reason = os.strerror(code) if code in errno.errorcode else cause.strerror or str(cause)
            raise _cannot_listen(self.config, reason) from None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown, and the timer that ends the process if it hangs."""
        force_exit_later()
        if not self.should_exit:
            # for the responses to requests from here on
            self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
            # nobody balances load over what is stopped by Ctrl-C
            if sig == signal.SIGTERM:
                self._drain_s = self._settings.drain_seconds
        super().handle_exit(sig, frame)


def _dual_stack_sockets(config: uvicorn.Config) -> list[socket.socket] | None:
    """For `::` a socket that takes IPv4 too, which asyncio's own does not; else None."""
    if config.host != "::" or not socket.has_dualstack_ipv6():
        return None
    address = (config.host, config.port)
    try:
        return [socket.create_server(address, family=socket.AF_INET6, dualstack_ipv6=True)]
    except OSError as error:
        raise _cannot_listen(config, os.strerror(error.errno or 0)) from None


def _cannot_listen(config: uvicorn.Config, reason: str) -> ServiceError:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return ServiceError(f"cannot listen on {host}:{config.port} (HOST and PORT): {reason}")
