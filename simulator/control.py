"""The control API under `/_sim`: JSON, without a key.

`/_sim/docs` and `/_sim/openapi.json` describe it. An unknown id is 404, an invalid body 422.
"""

import secrets
from base64 import b64encode
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Body, Depends, FastAPI, Request
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import JSONResponse, Response

from simulator.faults import FAULT_KINDS, Fault
from simulator.outcomes import OUTCOMES
from simulator.payloads import Shape, SyncEvent
from simulator.responses import company_json, status_json, transaction_json
from simulator.settings import Subscription
from simulator.simulation import Simulation, final_event
from simulator.state import Json, Sync, UnknownIdError
from simulator.webhooks import DeliveryFaults, DeliveryOptions, Family, is_signing_secret


def get_simulation(request: Request) -> Simulation:
    """Return the simulation that this control API belongs to."""
    simulation: Simulation = request.app.state.simulation
    return simulation


def _check_outcome(name: str) -> str:
    if name not in OUTCOMES:
        raise ValueError(f"unknown outcome, known are {', '.join(OUTCOMES)}")
    return name


def _check_secret(secret: str) -> str:
    if secret and not is_signing_secret(secret):
        raise ValueError("not of the form whsec_ and base64")
    return secret


Current = Annotated[Simulation, Depends(get_simulation)]
Outcome = Annotated[str, AfterValidator(_check_outcome)]
Secret = Annotated[str, AfterValidator(_check_secret)]


class NewCompany(BaseModel, extra="forbid"):
    """A company to create; `platform` is its accounting software."""

    name: str
    platform: str = "Xero"
    company_id: str | None = None


class Advance(BaseModel, extra="forbid"):
    """The next outcome of a sync; `shapes` are the webhooks to send, an empty list sends none."""

    outcome: Outcome
    shapes: list[Shape] = ["legacy", "new"]


class NewSync(BaseModel, extra="forbid"):
    """A sync to start, of `size` new transactions; with an outcome it also ends.

    `retry_of` sends the failed transactions of an earlier sync instead of new ones. `tell_start`
    false sends no started event.
    """

    company_id: str
    outcome: Outcome | None = None
    size: int = Field(3, ge=0, le=20_000)
    retry_of: str | None = None
    shapes: list[Shape] = ["legacy", "new"]
    tell_start: bool = True


class Events(BaseModel, extra="forbid"):
    """Events of existing syncs to send, one message per sync and shape.

    Without `event` the state of the sync decides. `shuffle` sends the messages in random order;
    `delay` is in simulated seconds.
    """

    sync_ids: list[str]
    event: SyncEvent | None = None
    shapes: list[Shape] = ["legacy"]
    shuffle: bool = False
    delay: float = Field(0.0, ge=0)
    copies: int = Field(1, ge=1, le=1000)
    family: Family = "webhook"


class NewSubscription(BaseModel, extra="forbid"):
    """A subscription to add; without a secret it gets a new one, without event types all events."""

    url: str
    secret: Secret = ""
    event_types: list[str] = []


router = APIRouter(prefix="/_sim")


@router.get("")
async def get_overview() -> Json:
    """List the outcomes and the kinds of faults, and where the documentation is."""
    documentation = ["/_sim/docs", "/_sim/openapi.json"]
    return {"documentation": documentation, "outcomes": OUTCOMES, "faults": FAULT_KINDS}


@router.get("/truth")
async def list_syncs(simulation: Current) -> Json:
    """List all syncs with their actual state, to compare a receiver's data with."""
    return {"syncs": [sync_json(sync) for sync in simulation.state.syncs.values()]}


def sync_json(sync: Sync) -> Json:
    """Build a sync with its status response and every transaction row."""
    return {
        "company_id": sync.company_id,
        "sync_id": sync.sync_id,
        "running": sync.running,
        "status": status_json(sync),
        "items": [transaction_json(row) for row in sync.transactions],
        "failed_ids": sync.transaction_ids(failed=True),
    }


@router.post("/companies", status_code=201)
async def create_company(body: NewCompany, simulation: Current) -> Json:
    """Create a company with its connections and configuration."""
    return company_json(simulation.state.add_company(**body.model_dump()))


@router.post("/syncs", status_code=201)
async def create_sync(body: NewSync, simulation: Current) -> Json:
    """Start a sync and, with an outcome, end it."""
    retried = simulation.state.sync(body.retry_of) if body.retry_of else None
    ids = retried.transaction_ids(failed=True) if retried else None
    shapes = body.shapes if body.tell_start else []
    sync = simulation.start_sync(body.company_id, body.size, ids, shapes)
    if body.outcome is not None:
        simulation.advance_sync(sync.sync_id, body.outcome, body.shapes)
    return sync_json(sync)


@router.post("/syncs/{sync_id}/advance")
async def advance_sync(sync_id: str, body: Advance, simulation: Current) -> Json:
    """Give a sync its next state and send the webhooks about it."""
    return sync_json(simulation.advance_sync(sync_id, body.outcome, body.shapes))


@router.get("/syncs/{sync_id}")
async def get_sync(sync_id: str, simulation: Current) -> Json:
    """Return the actual state of one sync."""
    return sync_json(simulation.state.sync(sync_id))


@router.post("/events", status_code=201)
async def send_events(body: Events, simulation: Current) -> Json:
    """Send events of existing syncs and return the message ids."""
    messages = []
    for sync in [simulation.state.sync(sync_id) for sync_id in body.sync_ids]:
        event = body.event or ("started" if sync.running else final_event(sync))
        messages += [simulation.sync_message(sync, event, shape) for shape in body.shapes]
    if body.shuffle:
        simulation.rng.shuffle(messages)
    for message in messages:
        simulation.sender.send(message, DeliveryOptions(body.delay, body.copies, body.family))
    return {"message_ids": [message.message_id for message in messages]}


@router.get("/deliveries")
async def list_deliveries(simulation: Current) -> Json:
    """List all delivery attempts, oldest first, and count the pending deliveries."""
    attempts = [asdict(attempt) for attempt in simulation.sender.attempts]
    return {"attempts": attempts, "pending": simulation.sender.pending}


@router.post("/settle")
async def wait_for_deliveries(
    simulation: Current, seconds: Annotated[float, Body(embed=True, ge=0, le=600)] = 5.0
) -> Json:
    """Wait until no delivery is pending, at most so many real seconds."""
    settled = await simulation.sender.wait_until_idle(seconds)
    return {"settled": settled, "pending": simulation.sender.pending}


@router.put("/weather")
async def set_delivery_faults(body: DeliveryFaults, simulation: Current) -> DeliveryFaults:
    """Set the random faults of webhook deliveries: duplicate, lose, delay."""
    simulation.sender.faults = body
    return body


@router.post("/subscriptions", status_code=201)
async def add_subscription(body: NewSubscription, simulation: Current) -> Json:
    """Add a subscription and return its secret."""
    secret = body.secret or "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    subscription = Subscription(body.url, secret, tuple(body.event_types))
    simulation.sender.subscriptions.append(subscription)
    return asdict(subscription)


@router.post("/faults", status_code=201)
async def add_fault(body: Fault, simulation: Current) -> Fault:
    """Add a rule that makes API calls fail, after the existing ones."""
    simulation.faults.append(body)
    return body


@router.delete("/faults")
async def clear_faults(simulation: Current) -> Json:
    """Delete all fault rules."""
    count = len(simulation.faults)
    simulation.faults.clear()
    return {"cleared": count}


@router.post("/quota/exhaust")
async def exhaust_quota(simulation: Current) -> Json:
    """Use up the daily quota and send `client.rateLimit.reached`."""
    simulation.quota.exhaust()
    simulation.send_quota_event("reached")
    return {"remaining": simulation.quota.remaining}


@router.post("/quota/reset")
async def reset_quota(simulation: Current) -> Json:
    """Start a new daily quota and send `client.rateLimit.reset`."""
    simulation.quota.reset()
    simulation.send_quota_event("reset")
    return {"remaining": simulation.quota.remaining}


@router.get("/counters")
async def get_counters(simulation: Current) -> Json:
    """Return the API calls by kind, the peak of concurrent calls, and the peak per minute."""
    return simulation.counters.snapshot()


def _error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404 if isinstance(error, UnknownIdError) else 422)


def create_control_api(simulation: Simulation) -> FastAPI:
    """Create the control API of one simulation."""
    app = FastAPI(
        title="Controls of the simulated Codat",
        openapi_url="/_sim/openapi.json",
        docs_url="/_sim/docs",
        redoc_url=None,
    )
    app.state.simulation = simulation
    app.include_router(router)
    for error in (UnknownIdError, ValueError):
        app.add_exception_handler(error, _error)
    return app
