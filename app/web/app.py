"""FastAPI, with Codat's door before all of it.

As one middleware among others the door would stand behind FastAPI's own, and every delivery would
pay for what it does not need: a tenth of what it costs altogether. Who a proxy says is asking is
read behind the door too, where it matters.
"""

import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


class Service(FastAPI):
    """An application that can be given a door; without one it is FastAPI as it is."""

    _door: ASGIApp | None = None

    def stand_behind(self, door: Callable[[ASGIApp], ASGIApp]) -> None:
        """Hand everything that comes in to the door first; it passes on what is not for it."""
        trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # as uvicorn names it
        behind: Any = ProxyHeadersMiddleware(super().__call__, trusted)  # type: ignore[arg-type]  # ASGI all the same
        self._door = door(behind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Through the door, if there is one."""
        await (self._door or super().__call__)(scope, receive, send)
