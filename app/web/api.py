"""Our services' door: `/api/v1`, each call with a key."""

from fastapi import APIRouter, Depends, FastAPI

from app.web import (
    api_causes,
    api_codat,
    api_companies,
    api_events,
    api_outgoing,
    api_secrets,
    api_syncs,
)
from app.web.deps import require_key
from app.web.streams import Streams

PREFIX = "/api/v1"


def install(app: FastAPI) -> None:
    """Add the calls of `/api/v1` to the application."""
    door = APIRouter(prefix=PREFIX, dependencies=[Depends(require_key)])
    syncs = (api_syncs, api_companies, api_codat)
    for subject in (*syncs, api_events, api_causes, api_outgoing, api_secrets):
        door.include_router(subject.router)
    app.include_router(door)
    app.state.streams = Streams()
    app.state.is_ending = lambda: False
