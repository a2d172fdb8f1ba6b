"""The control room: everything under `/_sim`, in JSON, without a key, on loopback only.

`GET /_sim` lists the controls, `GET /_sim/openapi.json` describes their bodies. An unknown id is
404, a body that cannot be read 422, both as `{"error": …}`.
"""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from simulator import control_sending, control_world
from simulator.access import InBox
from simulator.box import Box
from simulator.faults import KINDS
from simulator.orders import ExhaustOrder, FaultOrder, SpeedOrder
from simulator.outcomes import OUTCOMES

Json = dict[str, Any]


async def overview(request: Request, box: InBox) -> Json:
    """What can be ordered: controls, outcome names, kinds of fault, the time and the speed."""
    routes = [route for router in request.app.state.routers for route in router.routes]
    return {
        "controls": [
            f"{method} {route.path}: {(route.endpoint.__doc__ or '').splitlines()[0]}"
            for route in routes
            if isinstance(route, APIRoute)
            for method in sorted(route.methods or ())
        ],
        "outcomes": OUTCOMES,
        "faults": sorted(KINDS),
        "now": box.clock.now().isoformat(),
        "elapsed": box.clock.elapsed(),
        "speed": box.clock.speed,
    }


async def faults(box: InBox) -> list[Json]:
    """The fault rules in force, with how often each fired."""
    return box.faults.listing()


async def add_fault(order: FaultOrder, box: InBox) -> Json:
    """Put a fault rule in force after the others."""
    return {"fault_id": box.faults.add(order.fault()).fault_id}


async def clear_faults(box: InBox) -> Json:
    """Take all fault rules out of force."""
    return {"cleared": box.faults.clear()}


async def exhaust_quota(order: ExhaustOrder, box: InBox) -> Json:
    """Use up the quota, tell it, and tell the reset after so many real seconds."""
    box.exhaust_quota(order.reset_after)
    return {"reset_at": box.quota.reset_at.isoformat()}


async def reset_quota(box: InBox) -> Json:
    """Start a new quota now and tell it."""
    box.reset_quota()
    return {"remaining": box.quota.remaining}


async def counters(box: InBox) -> Json:
    """What the API was asked for: calls by kind, at a closed gate, most at once, per minute."""
    return box.counters.snapshot()


async def reset_counters(box: InBox) -> Json:
    """All counters back to zero."""
    box.counters.reset()
    return box.counters.snapshot()


async def speed(box: InBox) -> Json:
    """Simulated seconds per real second, and both clocks."""
    clock = box.clock
    return {"speed": clock.speed, "now": clock.now().isoformat(), "elapsed": clock.elapsed()}


async def set_speed(order: SpeedOrder, box: InBox) -> Json:
    """Change the speed; what is waiting notices at once."""
    box.clock.set_speed(order.speed)
    return await speed(box)


def api_routes() -> APIRouter:
    """The controls over the API's behaviour and the clock."""
    router = APIRouter(prefix="/_sim")
    router.get("")(overview)
    router.get("/faults")(faults)
    router.post("/faults", status_code=201)(add_fault)
    router.delete("/faults")(clear_faults)
    router.post("/quota/exhaust")(exhaust_quota)
    router.post("/quota/reset")(reset_quota)
    router.get("/counters")(counters)
    router.delete("/counters")(reset_counters)
    router.get("/speed")(speed)
    router.put("/speed")(set_speed)
    return router


def _unknown(_: Request, problem: Exception) -> Response:
    return JSONResponse({"error": f"unknown: {problem}"}, 404)


def _wrong(_: Request, problem: Exception) -> Response:
    return JSONResponse({"error": str(problem)}, 422)


def create_control(box: Box) -> FastAPI:
    """The control room's application for one box."""
    app = FastAPI(
        title="Controls of the simulated Codat",
        openapi_url="/_sim/openapi.json",
        docs_url="/_sim/docs",
        redoc_url=None,
    )
    app.state.box = box
    app.state.routers = [api_routes(), control_world.routes(), control_sending.routes()]
    for router in app.state.routers:
        app.include_router(router)
    app.add_exception_handler(KeyError, _unknown)
    app.add_exception_handler(ValueError, _wrong)
    return app
