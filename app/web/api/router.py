"""The API under `/api/v1`: all resources, each call with an API key."""

from threading import BoundedSemaphore

from fastapi import APIRouter, Depends, FastAPI

from app.web.api import alerts, causes, changes, companies, events, retries, syncs, transactions
from app.web.auth import require_key
from app.web.openapi import operation_id


def install(app: FastAPI) -> None:
    """Add the calls to the application."""
    router = APIRouter(
        prefix="/api/v1",
        dependencies=[Depends(require_key)],
        generate_unique_id_function=operation_id,
    )
    for resource in (
        *(syncs, transactions, companies, causes),
        *(retries, events, changes, alerts),
    ):
        router.include_router(resource.router)
    app.include_router(router)
    app.state.stream_places = BoundedSemaphore(changes.MAX_STREAMS)
