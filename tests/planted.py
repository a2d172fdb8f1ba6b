"""The service with planted errors or a crash: `python -m tests.planted POINT[:N] VERB …`.

The N-th time the point is reached, the process kills itself with SIGKILL, unless its working
directory has a file DISARMED by then. The points are in our own code, which does not import this
file, so that a death lands exactly there:

    store-begin, store-after-commit      around the commit of a batch of webhook events
    answer-before                        the event is stored, the 204 is not sent yet
    KIND-begin, KIND-before-commit, KIND-after-commit
                                         around the transactions of KIND: `project` (webhook events
                                         are applied), `claim` (jobs), `record` (Codat's answer)
    codat-answered                       Codat has answered, and nothing is recorded

Other points, of which several can be named with commas between them, raise an unexpected error each
time: raise-store, raise-api, raise-fetch, raise-worker, and raise-project, which fails for events
with POISON in their body only.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from app.__main__ import cli
from app.codat.client import CodatClient
from app.codat.webhooks import payloads
from app.db import event_store, jobs, pending_events, sync_writer
from app.db.engine import Database
from app.db.event_store import EventStore
from app.db.queries import syncs
from app.worker.fetcher import Fetcher

POINTS = (
    *("store-begin", "store-after-commit", "answer-before"),
    *(f"{kind}-{moment}" for kind in ("project", "claim", "record")
      for moment in ("begin", "before-commit", "after-commit")),
    "codat-answered",
)  # fmt: skip
STORE_WRITERS = (event_store._SqliteWriter, event_store._PostgresqlWriter)
ERRORS: dict[str, Sequence[tuple[Any, str]]] = {
    "raise-store": [(writer, "write") for writer in STORE_WRITERS],
    "raise-api": [(syncs, "list_syncs")],
    "raise-fetch": [(Fetcher, "_request")],
    "raise-worker": [(jobs, "is_due")],
}
POISON = b"poison"
DISARMED = "disarmed"
AnyFunction = Callable[..., Any]


class Unexpected(Exception):
    """An error that no line of the service handles by name."""


class Crash:
    """Counts how often its point is reached, and kills the process there."""

    def __init__(self, plan: str) -> None:
        self.point, _, number = plan.partition(":")
        self._reached = count(1)
        self._number = int(number or 1)
        self._current = threading.local()

    def reach(self, point: str) -> None:
        """Kill this process if this is the point and the time."""
        if point != self.point or next(self._reached) != self._number:
            return
        if not Path(DISARMED).exists():
            os.kill(os.getpid(), signal.SIGKILL)

    def in_transaction(self, kind: str, original: AnyFunction) -> AnyFunction:
        """The function, which also marks this thread's transaction as one of this kind."""

        def function(*arguments: Any, **options: Any) -> Any:
            self.reach(f"{kind}-begin")
            self._current.kind = kind
            return original(*arguments, **options)

        return function

    def writing(self, original: AnyFunction) -> AnyFunction:
        """`Database.writing` with the moments around its commit."""

        @contextmanager
        def writing(database: Database, **options: Any) -> Iterator[Connection]:
            self._current.kind = None
            with original(database, **options) as connection:
                yield connection
                self.reach(f"{self._current.kind}-before-commit")
            self.reach(f"{self._current.kind}-after-commit")

        return writing

    def around(self, before: str, after: str, original: AnyFunction) -> AnyFunction:
        """The coroutine function with a point before it and one after it."""

        async def function(*arguments: Any, **options: Any) -> Any:
            self.reach(before)
            result = await original(*arguments, **options)
            self.reach(after)
            return result

        return function


def plant(plan: str) -> None:
    """Change the code of this process."""
    if plan.partition(":")[0] in POINTS:
        _plant_crash(Crash(plan))
        return
    for point in plan.split(","):
        if point == "raise-project":
            payloads.parse = partial(_parse_or_raise, payloads.parse)
        elif point in ERRORS:
            for owner, name in ERRORS[point]:
                setattr(owner, name, _raise)
        else:
            sys.exit(f"there is no point {point}")


def _plant_crash(crash: Crash) -> None:
    changes: tuple[tuple[Any, str, AnyFunction], ...] = (
        *(
            (writer, "write", partial(crash.around, "store-begin", "store-after-commit"))
            for writer in STORE_WRITERS
        ),
        (EventStore, "store", partial(crash.around, "", "answer-before")),
        (CodatClient, "get_status", partial(crash.around, "", "codat-answered")),
        (pending_events, "apply", partial(crash.in_transaction, "project")),
        (jobs, "claim", partial(crash.in_transaction, "claim")),
        (sync_writer, "record_answer", partial(crash.in_transaction, "record")),
        (Database, "writing", crash.writing),
    )
    for owner, name, change in changes:
        setattr(owner, name, change(getattr(owner, name)))


def _raise(*_arguments: Any, **_options: Any) -> Any:
    raise Unexpected("planted")


def _parse_or_raise(original: AnyFunction, body: bytes) -> Any:
    if POISON in body:
        _raise()
    return original(body)


if __name__ == "__main__":
    plant(sys.argv.pop(1))
    cli()
