"""Blocking calls that many requests share, with a time limit."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SharedCall(Generic[Result]):
    """Runs a blocking function in a thread, once at a time: callers meanwhile share its result.

    The thread is its own: the function never waits for a busy pool, and one that hangs, such as a
    query to a frozen database, occupies this thread and no other.
    """

    def __init__(self, function: Callable[[], Result], timeout_s: float) -> None:
        self._function = function
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._running: asyncio.Future[Result] | None = None

    async def __call__(self) -> Result:
        """The function's result. Raises what it raises, and TimeoutError when it takes too long."""
        if self._running is None or self._running.done():
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._thread, self._function)
        running = self._running
        finished, _ = await asyncio.wait({running}, timeout=self._timeout_s)
        if not finished:
            raise TimeoutError
        return running.result()
