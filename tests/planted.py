"""The service with something planted in it: `python -m tests.planted POINT[:N] VERB …`.

The N-th time the point is reached, the process kills itself with SIGKILL, or raises what nobody
foresaw. The points are in our own code, so that a death lands exactly there; the service itself
knows nothing of this file. Of several processes that serve together one dies, the first that gets
there.

    keep, claim, record    the three kinds of transaction; each followed by
    -begin                 dies before its first statement
    -before-commit         dies when all is written and nothing committed
    -after-commit          dies before anybody is told
    answer-before          dies when the inbox has said "kept", before the 204 is sent
    asked-after            dies when Codat has answered, before that is recorded
    raise-keep, raise-api, raise-fetch, raise-worker   raise an error nobody foresaw, every time
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

from sqlalchemy import Connection

from app.__main__ import cli
from app.codat.client import CodatClient
from app.db import event_store as inbox
from app.db import jobs as owed
from app.db import sync_writer as store
from app.db.engine import Database
from app.db.event_store import Inbox
from app.db.queries import syncs as queries
from app.worker.fetcher import Fetcher

KINDS = ("keep", "claim", "record")
MOMENTS = ("begin", "before-commit", "after-commit")
POINTS = (
    *(f"{kind}-{moment}" for kind in KINDS for moment in MOMENTS),
    *("answer-before", "asked-after"),
)
RAISING: dict[str, tuple[Any, str]] = {
    "raise-keep": (inbox, "keep_all"),
    "raise-api": (queries, "list_syncs"),
    "raise-fetch": (Fetcher, "fetch"),
    "raise-worker": (owed, "claim"),
}
Anything = Callable[..., Any]


class Unforeseen(Exception):
    """What no line of the service expects."""


class Plant:
    """Counts how often its point is reached, and dies there when the time has come."""

    def __init__(self, told: str) -> None:
        self.point, _, number = told.partition(":")
        self._reached = count(1)
        self._at = int(number or 1)
        self._doing = threading.local()
        # who dies takes it along: those who serve beside it, and its heir, go on
        self._one_death = multiprocessing.get_context("fork").Lock()

    def reach(self, point: str) -> None:
        """End the process here, if this is the point and the time."""
        if point != self.point or next(self._reached) != self._at:
            return
        if self._one_death.acquire(block=False):
            os.kill(os.getpid(), signal.SIGKILL)

    def marked(self, kind: str, honest: Anything) -> Anything:
        """The function, which also says what kind of transaction this thread is in."""

        def marking(*arguments: Any, **named: Any) -> Any:
            self.reach(f"{kind}-begin")
            self._doing.kind = kind
            return honest(*arguments, **named)

        return marking

    def writing(self, honest: Anything) -> Anything:
        """`Database.writing`, with the two moments around its commit."""

        @contextmanager
        def writing(database: Database) -> Iterator[Connection]:
            self._doing.kind = None
            with honest(database) as connection:
                yield connection
                self.reach(f"{self._doing.kind}-before-commit")
            self.reach(f"{self._doing.kind}-after-commit")

        return writing

    def afterwards(self, point: str, honest: Anything) -> Anything:
        """The coroutine function, with a point right after it."""

        async def then(*arguments: Any, **named: Any) -> Any:
            answer = await honest(*arguments, **named)
            self.reach(point)
            return answer

        return then


def plant(told: str) -> None:
    """Put it into the code of this process."""
    ours = Plant(told)
    if ours.point in RAISING:
        _raising(ours.point)
        return
    if ours.point not in POINTS:
        sys.exit(f"no such point: {ours.point}; there are {*POINTS, *RAISING}")
    for where, name, change in (
        (inbox, "keep_all", partial(ours.marked, "keep")),
        (owed, "claim", partial(ours.marked, "claim")),
        (store, "record", partial(ours.marked, "record")),
        (Database, "writing", ours.writing),
        (Inbox, "keep", partial(ours.afterwards, "answer-before")),
        (CodatClient, "get_status", partial(ours.afterwards, "asked-after")),
    ):
        setattr(where, name, change(getattr(where, name)))


def _raising(point: str) -> None:
    def fail(*arguments: Any, **named: Any) -> Any:
        raise Unforeseen("nobody foresaw this")

    where, name = RAISING[point]
    setattr(where, name, fail)


if __name__ == "__main__":
    plant(sys.argv.pop(1))
    cli()
