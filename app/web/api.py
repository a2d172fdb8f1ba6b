"""Our services' door: `/api/v1`, each call with a key."""

from fastapi import APIRouter, Depends, FastAPI

from app.web import api_companies, api_events, api_secrets, api_syncs
from app.web.deps import require_key

PREFIX = "/api/v1"


def install(app: FastAPI) -> None:
    """Add the calls of `/api/v1` to the application."""
    door = APIRouter(prefix=PREFIX, dependencies=[Depends(require_key)])
    for subject in (api_syncs, api_companies, api_events, api_secrets):
        door.include_router(subject.router)
    app.include_router(door)
