"""Database transactions of the worker: in a thread, so that the event loop never waits for the
database, and repeated after a conflict.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from app.db.engine import Database
from app.errors import DatabaseDown, DatabaseRejected, DatabaseUnavailable

CONFLICT_TRIES = 5
CONFLICT_PAUSE_S = 0.2

P = ParamSpec("P")
T = TypeVar("T")


def read_blocking(
    database: Database, query: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call `query` with a connection that reads, and these arguments."""
    with database.reading() as connection:
        return query(connection, *args, **kwargs)


def write_blocking(
    database: Database, change: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call `change` with a connection that writes, and these arguments; then commit."""
    with database.writing() as connection:
        return change(connection, *args, **kwargs)


async def read(
    database: Database, query: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do the same as `read_blocking` in a thread."""
    return await asyncio.to_thread(partial(read_blocking, database, query, *args, **kwargs))


async def write(
    database: Database, change: Callable[Concatenate[Any, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do the same as `write_blocking` in a thread."""
    return await asyncio.to_thread(partial(write_blocking, database, change, *args, **kwargs))


def retry_conflicts(
    transaction: Callable[[], T],
    *,
    tries: int = CONFLICT_TRIES,
    pause_s: float = CONFLICT_PAUSE_S,
) -> T:
    """Call `transaction`, and again while it loses a conflict with another one (a deadlock).

    Blocks its thread. Raises DatabaseUnavailable after so many tries.
    """
    for _ in range(tries - 1):
        try:
            return transaction()
        except (DatabaseDown, DatabaseRejected):
            raise
        except DatabaseUnavailable:
            time.sleep(pause_s)
    return transaction()
