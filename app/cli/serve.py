"""Serving: by one process, or by several that share one address.

An interpreter takes deliveries as fast as one core goes; so on PostgreSQL `WEB_CONCURRENCY`
processes may serve one address (ADR 0011). The first makes the application, listens and forks. From
then on it only watches: it puts another in the place of one that died, kills one that hangs, hands
on the signal to end, and ends when all have. A child whose parent was killed ends too, or it would
keep the address.
"""

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from app import logging as log
from app.cli.pulse import Pulse
from app.cli.terminal import check_schema
from app.errors import ServiceError
from app.settings import Settings
from app.web import listening
from app.web.shutdown import end_for_certain

if TYPE_CHECKING:  # imported when it is served, and not before
    from fastapi import FastAPI

AGAIN_AFTER_S = 1.0  # what dies as soon as it lives must not take the whole machine
LOOK_EVERY_S = 5.0
HANGS_AFTER_LOOKS = 6  # half a minute, as gunicorn waits
Work = Callable[[int, Callable[[], None]], None]
SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = log.get(__name__)


def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal; `ready` is called right before. Raises ServiceError."""
    from app.bootstrap import create_app

    app = create_app(settings)
    check_schema(settings)
    if settings.serving_processes == 1:
        ready()
        _run(app, settings)
        return
    try:
        shares = listening.listen(settings.host, settings.port, settings.serving_processes)
    except OSError as error:
        raise _cannot_listen(settings, f": {error.strerror or error}") from error
    ready()
    # a parent that went on listening would let in whom nobody answers any more
    at_end = partial(listening.close, shares)
    Processes(partial(_run_one, app, settings, shares), at_end=at_end).run(len(shares))


def _cannot_listen(settings: Settings, why: str = "") -> ServiceError:
    return ServiceError(f"cannot listen on {settings.host}:{settings.port}{why}")


def _run_one(
    app: "FastAPI",
    settings: Settings,
    shares: list[listening.Sockets],
    process: int,
    beat: Callable[[], None],
) -> None:
    """Serve what comes to the sockets of this process; nobody may come to those of others here."""
    listening.close(shares[:process] + shares[process + 1 :])
    _run(app, settings, shares[process], process, beat)


def _run(
    app: "FastAPI",
    settings: Settings,
    sockets: listening.Sockets | None = None,
    process: int = 0,
    beat: Callable[[], None] = lambda: None,
) -> None:
    from app.web.server import Server, make_config

    app.state.counted.begin(process)
    server = Server(make_config(app, settings), beat)
    for number in SIGNALS:
        # until uvicorn hears them itself; and when it hands them on after it has shut down, for the
        # exit code must still be 0
        signal.signal(number, server.handle_exit)
    app.state.is_ending = lambda: server.should_exit  # streams must end before it waits for them
    with suppress(SystemExit):  # by which uvicorn ends when it cannot bind
        server.run(sockets)
    if server.started:
        return
    if server.lifespan.should_exit:
        raise ServiceError("the application could not start; the log says why")
    raise _cannot_listen(settings)


class Processes:
    """Processes that all do the same work, and the parent that watches over them."""

    def __init__(self, work: Work, *, at_end: Callable[[], None] = lambda: None) -> None:
        """`work` is given a number from 0; whoever takes a process's place has the same one.

        It is also given what it must call again and again, or it will be killed as one that hangs.
        `at_end` is done in the parent when a signal comes.
        """
        self._work = work
        self._at_end = at_end
        self._children: dict[int, BaseProcess] = {}
        self._pulses: dict[int, Pulse] = {}
        self._look_at = 0.0
        self._ending = False
        self._failed = False

    def run(self, count: int) -> None:
        """So many until a signal; returns when all have ended.

        Raises ServiceError when one says by its exit code that it cannot work, or the system has no
        room for it.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it is not told who died
        for number in SIGNALS:
            signal.signal(number, self._end)
        gc.collect()
        gc.freeze()  # a collection that looks at what all share would make each a copy of it
        for place in range(count):
            self._start(place)
        while self._children:
            wait([child.sentinel for child in self._children.values()], LOOK_EVERY_S)
            self._kill_who_hangs()
            self._replace([n for n, child in self._children.items() if not child.is_alive()])
        if self._failed:
            raise ServiceError("a serving process could not go on; it has said why")

    def _end(self, *_: object) -> None:
        if not self._ending:
            end_for_certain(self._give_up)
            self._at_end()
        self._ending = True
        for child in self._children.values():
            child.terminate()

    def _fail(self) -> None:
        self._failed = True
        self._end()

    def _give_up(self) -> int:
        """Who does not end in time would keep the address. Runs beside the rest of this."""
        for child in [*self._children.values()]:
            child.kill()
        return 1 if self._failed else 0

    def _kill_who_hangs(self) -> None:
        """Else its share of the connections would wait for ever."""
        now = time.monotonic()
        if self._ending or now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        for place, child in self._children.items():
            if self._pulses[place].look() >= HANGS_AFTER_LOOKS:
                _log.warning("a serving process hangs; it is killed", pid=child.pid)
                child.kill()

    def _replace(self, places: list[int]) -> None:
        codes = [self._children.pop(place).exitcode or 0 for place in places]
        if self._ending or not places:
            return
        if max(codes) > 0:
            self._fail()
            return
        _log.warning("serving processes died; others take their places", exit_codes=codes)
        time.sleep(AGAIN_AFTER_S)
        for place in places:
            self._start(place)

    def _start(self, place: int) -> None:
        """No signal for the parent may be taken by a child, nor one be missed in between."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            if not self._ending:
                self._fork(place)
        except OSError as error:
            _log.error("a serving process could not be started", why=error.strerror)
            self._fail()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _fork(self, place: int) -> None:
        self._pulses[place] = pulse = Pulse()
        child = multiprocessing.get_context("fork").Process(
            target=self._child,
            args=(place, pulse),
            daemon=True,  # whatever goes wrong in the parent, its exit ends them
        )
        child.start()
        self._children[place] = child

    def _child(self, place: int, pulse: Pulse) -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            self._work(place, pulse.beat)
        except ServiceError as error:
            raise SystemExit(f"error: {error}") from None
