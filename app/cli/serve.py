"""`serve`, the web server, and `worker`, the background worker without it."""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable

from app import logging as log
from app.cli.terminal import one_line_errors, open_current_database, read_settings
from app.domain.checks import is_loopback
from app.settings import REQUIRED, Settings, in_a_container

_log = log.get(__name__)


def serve() -> None:
    """Start the web server (webhook endpoint, API, pages) and, by default, the worker."""
    _exit_on_sigterm()
    with one_line_errors():
        run_server(read_settings(*REQUIRED))


def run_server(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; `on_ready` is called right before. Raises ServiceError."""
    from app.bootstrap import create_app, start_tracing
    from app.db import migrations
    from app.web.server import Server

    app = create_app(settings, tracing=start_tracing(settings))
    with app.state.database.reading() as connection:
        migrations.check(connection)
    names = sorted({key.name for key in settings.api_keys if key.name})
    unnamed = sum(not key.name for key in settings.api_keys)
    _log.info("API keys loaded", names=names, without_name=unnamed)
    if in_a_container() and is_loopback(settings.host):
        _log.warning("nothing outside this container can connect", host=settings.host)
    server = Server(app, settings)
    app.state.is_stopping = lambda: server.should_exit  # event streams end before the server does
    on_ready()
    server.run()


def worker() -> None:
    """Run the background worker only."""
    _exit_on_sigterm()
    with one_line_errors():
        asyncio.run(_run_worker(read_settings("codat_api_key")))


async def _run_worker(settings: Settings) -> None:
    from app.bootstrap import open_worker, start_tracing, utc_now
    from app.web.shutdown import force_exit_later

    tracing = start_tracing(settings)
    with open_current_database(settings) as database:
        async with open_worker(settings, database, utc_now, tracing) as runner:

            def stop() -> None:
                force_exit_later()
                runner.stop()

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            gc.collect()
            gc.freeze()  # collections need not walk the objects of the start
            await runner.run()


def _exit_on_sigterm() -> None:
    """End with 0 also when the signal arrives during the start, before anything is in hand."""
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
