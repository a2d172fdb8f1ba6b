"""Serving: by one process, or by several that share one address.

An interpreter takes deliveries as fast as one core goes; so on PostgreSQL `WEB_CONCURRENCY`
processes may serve one address (ADR 0011). The first makes the application, listens and forks. From
then on it only watches: it puts another in the place of one that died, hands on the signal to end,
and ends when all have. A child whose parent was killed ends too, or it would keep the address.
"""

import gc
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from app import log
from app.ending import end_for_certain
from app.errors import ServiceError
from app.settings import Settings
from app.terminal import check_schema

if TYPE_CHECKING:  # what counts must not be imported before it is told where
    from fastapi import FastAPI

AGAIN_AFTER_S = 1.0  # what dies as soon as it lives must not take the whole machine
SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = log.get(__name__)


def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal; `ready` is called right before. Raises ServiceError."""
    if settings.serving_processes == 1:
        app = _application(settings)
        ready()
        _run(app, settings, None)
        return
    with _counting_together():
        app = _application(settings)
        with _listening(settings) as listening:
            ready()
            Family(lambda: _run(app, settings, listening)).live(settings.serving_processes)


def _application(settings: Settings) -> "FastAPI":
    from app.main import create_app

    app = create_app(settings)
    check_schema(settings)
    return app


@contextmanager
def _counting_together() -> Iterator[None]:
    """Where the processes write down what they count; any of them can tell it."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="counted-")
    except OSError as error:
        raise ServiceError(f"WEB_CONCURRENCY needs a folder for what is counted: {error}") from None
    with folder as name:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = name
        yield


def _listening(settings: Settings) -> socket.socket:
    from app.server import make_config

    with suppress(SystemExit):  # uvicorn leaves the process by itself when it cannot bind
        return make_config(None, settings).bind_socket()
    raise _cannot_listen(settings)


def _cannot_listen(settings: Settings) -> ServiceError:
    return ServiceError(f"cannot listen on {settings.host}:{settings.port}")


def _run(app: "FastAPI", settings: Settings, listening: socket.socket | None) -> None:
    from app.server import Server, make_config

    for (
        number
    ) in SIGNALS:  # uvicorn hands it on once it has shut down; the exit code must still be 0
        signal.signal(number, lambda *_: None)
    server = Server(make_config(app, settings))
    app.state.is_ending = lambda: server.should_exit  # streams must end before it waits for them
    with suppress(SystemExit):  # as above
        server.run([listening] if listening else None)
    if not server.started:
        raise _cannot_listen(settings)


class Family:
    """A parent that watches over processes which all do the same work."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._children: list[BaseProcess] = []
        self._ending = False
        self._failed = False

    def live(self, count: int) -> None:
        """With so many children until a signal; returns when all have ended.

        Raises ServiceError when one says by its exit code that it cannot work.
        """
        for number in SIGNALS:
            signal.signal(number, self._end)
        gc.collect()
        gc.freeze()  # a collection that looks at what all share would make each a copy of it
        for _ in range(count):
            self._bear()
        while self._children:
            wait([child.sentinel for child in self._children])
            for child in [each for each in self._children if not each.is_alive()]:
                self._children.remove(child)
                self._replace(child)
        if self._failed:
            raise ServiceError("a serving process could not go on; it has said why")

    def _end(self, *_: object) -> None:
        if not self._ending:
            end_for_certain()
        self._ending = True
        for child in self._children:
            child.terminate()

    def _replace(self, dead: BaseProcess) -> None:
        if self._ending:
            return
        if (dead.exitcode or 0) > 0:
            self._failed = True
            self._end()
            return
        _log.warning("a serving process died; another takes its place", exit_code=dead.exitcode)
        time.sleep(AGAIN_AFTER_S)
        self._bear()

    def _bear(self) -> None:
        """No signal for the parent may be taken by a child, nor one be missed in between."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        child = multiprocessing.get_context("fork").Process(target=self._be_born)
        child.start()
        self._children.append(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if self._ending:
            child.terminate()

    def _be_born(self) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            self._work()
        except ServiceError as error:
            raise SystemExit(f"error: {error}") from None
