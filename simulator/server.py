"""The simulator as one ASGI application: Codat's API, the control room, and the life of both."""

import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from simulator import scenario
from simulator.box import Box
from simulator.control import create_control
from simulator.gate import Gate
from simulator.settings import SimulatorSettings

CONTROL = "/_sim"


class Simulator:
    """An ASGI application; `box` is for tests that live in the same process."""

    def __init__(
        self, settings: SimulatorSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Build everything; nothing runs before the first request or the lifespan's start."""
        self.box = Box(settings, transport)
        self._gate = Gate(self.box)
        self._control = create_control(self.box)
        self._play: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer HTTP; `/_sim` is the control room, the rest is Codat."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            path = scope["path"]
            ours = path == CONTROL or path.startswith(CONTROL + "/")
            await (self._control if ours else self._gate)(scope, receive, send)

    def start(self) -> None:
        """Begin the scenario of the settings, if there is one, in the running event loop."""
        if self.box.settings.scenario == "morning":
            self._play = asyncio.create_task(scenario.play(self.box))

    async def aclose(self) -> None:
        """Stop the scenario and everything under way."""
        if self._play is not None:
            self._play.cancel()
            await asyncio.gather(self._play, return_exceptions=True)
        await self.box.sender.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def create_simulator(
    settings: SimulatorSettings, transport: httpx.AsyncBaseTransport | None = None
) -> Simulator:
    """A simulated Codat to mount, serve, or call in process over `httpx.ASGITransport`.

    `transport` replaces the network for the webhooks it sends. Without a lifespan, as under
    ASGITransport, `start` begins the scenario and `aclose` ends what is under way.
    """
    return Simulator(settings, transport)
