"""A list page after page, some asked for ahead: while one is read, the next are on their way."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from app.codat.responses import Page

MOST_PAGES = 2000


async def counted(
    ask: Callable[[int], Coroutine[Any, Any, Page]], *, ahead: int = 0
) -> AsyncGenerator[Page, None]:
    """Count pages from 1 to the list's end; up to `ahead` of them are asked for before they must.

    A list that repeats itself, or comes short twice in a row, contradicts its own count: to
    go on would only cost calls, and what was read does not count as complete. Whoever may stop
    before the end closes this, and so gives up what is still on its way.
    """
    before: Page | None = None
    coming: list[asyncio.Task[Page]] = []
    try:
        for number in range(1, MOST_PAGES + 1):
            page = await (coming.pop(0) if coming else ask(number))
            ends = page.is_last(number) or page.contradicts(before)
            last = number if ends else min(number + ahead, MOST_PAGES)
            wanted = range(number + len(coming) + 1, last + 1)
            coming += [asyncio.create_task(ask(n)) for n in wanted if page.promises(n)]
            yield page
            if ends:
                return
            before = page
    finally:
        await _give_up(coming)


async def _give_up(coming: list[asyncio.Task[Page]]) -> None:
    for each in coming:
        each.cancel()
    await asyncio.gather(*coming, return_exceptions=True)
