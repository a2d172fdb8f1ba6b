"""Our services' door: `/api/v1`, each call with a key."""

from fastapi import APIRouter, Depends, FastAPI

from app.web.api import (
    causes as api_causes,
)
from app.web.api import (
    changes as api_outgoing,
)
from app.web.api import (
    codat_calls as api_codat,
)
from app.web.api import (
    companies as api_companies,
)
from app.web.api import (
    events as api_events,
)
from app.web.api import (
    syncs as api_syncs,
)
from app.web.api import (
    webhook_secrets as api_secrets,
)
from app.web.api.event_stream import Streams
from app.web.auth import require_key

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
