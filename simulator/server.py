"""The simulator as one ASGI application: Codat's API and, under `/_sim`, the control API."""

import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from simulator import scenario
from simulator.api import CodatApi
from simulator.control import create_control_api
from simulator.settings import SimulatorSettings
from simulator.simulation import Simulation

CONTROL_PREFIX = "/_sim"


class Simulator:
    """The ASGI application; its lifespan starts the scenario and stops everything pending."""

    def __init__(
        self, settings: SimulatorSettings, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`transport` replaces the network for the webhooks it sends.

        Without a lifespan, as under httpx.ASGITransport, call `start` and `aclose`.
        """
        self._simulation = Simulation(settings, transport)
        self._api = CodatApi(self._simulation)
        self._control = create_control_api(self._simulation)
        self._scenario: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the lifespan or one HTTP request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            path: str = scope["path"]
            is_control = path == CONTROL_PREFIX or path.startswith(f"{CONTROL_PREFIX}/")
            await (self._control if is_control else self._api)(scope, receive, send)

    def start(self) -> None:
        """Start the scenario of the settings, if any, in the running event loop."""
        if self._simulation.settings.scenario == "morning":
            self._scenario = asyncio.create_task(scenario.play(self._simulation))

    async def aclose(self) -> None:
        """Stop the scenario and all pending deliveries."""
        if self._scenario is not None:
            self._scenario.cancel()
            await asyncio.gather(self._scenario, return_exceptions=True)
        await self._simulation.sender.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})
