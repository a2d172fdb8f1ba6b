"""A simulator in this process, a receiver that it sends webhooks to, and a client for its APIs."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send
from svix.webhooks import Webhook

from simulator import Simulator, SimulatorSettings, Subscription

KEY = "a-key-for-tests"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
URL = "http://receiver.test/webhooks"
FAST = 1_000_000.0
LEGACY = ("SyncStarted", "SyncFailed", "SyncCompleted")
NEW = ("expenses.sync.successful", "expenses.sync.unsuccessful")


@dataclass
class Delivery:
    """One request to the receiver."""

    headers: dict[str, str]
    body: bytes

    def verify(self, secret: str = SECRET) -> None:
        """Raise unless svix accepts the signature."""
        Webhook(secret).verify(self.body, self.headers)

    @property
    def message_id(self) -> str:
        """The id in the headers of either family."""
        return self.headers.get("webhook-id") or self.headers["svix-id"]

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """An ASGI application that stores requests; `statuses` are used up before `always`."""

    statuses: list[int] = field(default_factory=list)
    always: int = 204
    retry_after: str = ""
    slow_first: bool = False
    deliveries: list[Delivery] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Store the request and respond."""
        event = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.deliveries.append(Delivery(headers, event["body"]))
        if self.slow_first and len(self.deliveries) == 1:
            await asyncio.sleep(5)
        status = self.statuses.pop(0) if self.statuses else self.always
        own = [(b"retry-after", self.retry_after.encode())] if self.retry_after else []
        await send({"type": "http.response.start", "status": status, "headers": own})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Harness:
    """A running simulator and its receiver."""

    simulator: Simulator
    receiver: Receiver
    client: httpx.AsyncClient

    async def get(self, path: str, **query: str | int) -> httpx.Response:
        """Call Codat's API with the key."""
        return await self.client.get(path, params=query or None, headers=authorization(KEY))

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Post to Codat's API with the key."""
        return await self.client.post(path, json=body, headers={**authorization(KEY), **headers})

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """Call the control API; fails unless the response is 2xx."""
        response = await self.client.request(method, f"/_sim{path}", json=body)
        assert response.is_success, response.text
        return response.json()

    async def company(self, **fields: Any) -> str:
        """Create a company and return its id."""
        body = {"name": "Harbour Lane Bakery", **fields}
        return str((await self.control("POST", "/companies", body))["id"])

    async def sync(self, company_id: str | None = None, **fields: Any) -> dict[str, Any]:
        """Create a sync and return its actual state."""
        body = {"company_id": company_id or await self.company(), **fields}
        return dict(await self.control("POST", "/syncs", body))

    async def silent_sync(self) -> str:
        """Create a partly failed sync without webhooks and return its id."""
        return str((await self.sync(outcome="partly_failed", shapes=[]))["sync_id"])

    async def settle(self) -> list[Delivery]:
        """Wait until no delivery is pending; return all."""
        assert (await self.control("POST", "/settle", {"seconds": 30}))["settled"]
        return self.receiver.deliveries

    async def send(self, **fields: Any) -> list[Delivery]:
        """Send events and return all deliveries so far."""
        await self.control("POST", "/events", fields)
        return await self.settle()

    async def attempts(self) -> list[dict[str, Any]]:
        """Return the log of delivery attempts."""
        return list((await self.control("GET", "/deliveries"))["attempts"])


def authorization(key: str) -> dict[str, str]:
    """Return Codat's Authorization header for a key."""
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}


@asynccontextmanager
async def simulated(receiver: Receiver | None = None, **settings: Any) -> AsyncIterator[Harness]:
    """Run a simulator, by default with one subscription for the legacy events."""
    receiver = receiver or Receiver()
    settings.setdefault("subscriptions", (Subscription(URL, SECRET, LEGACY),))
    simulator = Simulator(SimulatorSettings(key=KEY, **settings), httpx.ASGITransport(receiver))
    transport = httpx.ASGITransport(simulator)
    async with httpx.AsyncClient(transport=transport, base_url="http://codat.test") as client:
        yield Harness(simulator, receiver, client)
        await simulator.aclose()
