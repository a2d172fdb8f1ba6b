"""A stage for tests: a simulator in this process, a receiver it sends to, and clients for both."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send
from svix.webhooks import Webhook

from simulator import Simulator, SimulatorSettings, SubscriptionSettings, create_simulator

KEY = "a-key-for-tests"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
URL = "http://receiver.test/webhooks"
FAST = 1_000_000.0
LEGACY = ("SyncStarted", "SyncFailed", "SyncCompleted")


@dataclass
class Delivery:
    """One request the receiver got."""

    headers: dict[str, str]
    body: bytes

    def verify(self, secret: str = SECRET) -> None:
        """Raise unless svix accepts it."""
        Webhook(secret).verify(self.body, self.headers)

    @property
    def message_id(self) -> str:
        """The id in either family's header."""
        return self.headers.get("webhook-id") or self.headers["svix-id"]


@dataclass
class Receiver:
    """An ASGI application that keeps what it gets; `answers` are used up before 204."""

    answers: list[int] = field(default_factory=list)
    always: int = 204
    retry_after: str | None = None
    got: list[Delivery] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the request and answer."""
        event = await receive()
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.got.append(Delivery(headers, event["body"]))
        told = [] if self.retry_after is None else [(b"retry-after", self.retry_after.encode())]
        status = self.answers.pop(0) if self.answers else self.always
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Stage:
    """Everything a test needs at hand."""

    simulator: Simulator
    receiver: Receiver
    client: httpx.AsyncClient

    async def get(self, path: str, **query: str | int) -> httpx.Response:
        """Ask Codat's API with the right key."""
        return await self.client.get(path, params=query or None, headers=authorization(KEY))

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Post to Codat's API with the right key."""
        return await self.client.post(path, json=body, headers={**authorization(KEY), **headers})

    async def order(self, method: str, path: str, body: Any = None) -> Any:
        """Use a control under /_sim; the answer's JSON. Fails on anything but 2xx."""
        response = await self.client.request(method, f"/_sim{path}", json=body)
        assert response.is_success, response.text
        return response.json()

    async def company(self, **told: Any) -> str:
        """A company's id."""
        made = await self.order("POST", "/companies", {"name": "Harbour Lane Bakery", **told})
        return str(made["id"])

    async def sync(self, company_id: str, **told: Any) -> dict[str, Any]:
        """A sync's truth."""
        made = await self.order("POST", "/syncs", {"company_id": company_id, **told})
        return dict(made)

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        assert (await self.order("POST", "/settle", {"seconds": 30}))["settled"]

    async def attempts(self, **query: str) -> list[dict[str, Any]]:
        """The delivery log."""
        response = await self.client.get("/_sim/deliveries", params=query)
        return list(response.json()["attempts"])


def authorization(key: str) -> dict[str, str]:
    """Codat's header for a key."""
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}


@asynccontextmanager
async def staged(receiver: Receiver | None = None, **told: Any) -> AsyncIterator[Stage]:
    """A stage with one consumer for legacy events, unless `subscriptions` are told."""
    receiver = receiver or Receiver()
    told.setdefault("subscriptions", (SubscriptionSettings(URL, SECRET, LEGACY),))
    settings = SimulatorSettings(key=KEY, **told)
    simulator = create_simulator(settings, httpx.ASGITransport(receiver))
    transport = httpx.ASGITransport(simulator)
    async with httpx.AsyncClient(transport=transport, base_url="http://codat.test") as client:
        yield Stage(simulator, receiver, client)
        await simulator.aclose()


async def told(stage: Stage, **order: Any) -> list[dict[str, Any]]:
    """The bodies that arrive after an order to /_sim/events."""
    before = len(stage.receiver.got)
    await stage.order("POST", "/events", order)
    await stage.settle()
    return [json.loads(one.body) for one in stage.receiver.got[before:]]


async def silent_sync(stage: Stage, **told: Any) -> str:
    """The id of a sync nobody was told of."""
    company = await stage.company()
    sync = await stage.sync(company, shapes=[], **{"outcome": "partly_failed", **told})
    return str(sync["sync_id"])


async def subscription(stage: Stage) -> str:
    """The id of the only consumer."""
    return str((await stage.order("GET", "/subscriptions"))[0]["id"])
