"""All routes of the pages."""

import time

from fastapi import FastAPI

from app.web.pages import (
    causes,
    companies,
    events,
    expenses,
    health,
    history,
    outgoing,
    rendering,
    retries,
    setup,
    sign_in,
    syncs,
)
from app.web.problems import UNKNOWN_PATH

PREFIXES = (
    "/", "/sign-in", "/sign-out", "/syncs", "/syncs.csv", "/companies", "/causes", "/retries",
    "/alerts", "/events", "/outgoing", "/setup", "/static", UNKNOWN_PATH,
)  # fmt: skip
PAGES = (
    *(sign_in, health, history, syncs, companies, expenses, causes, retries, events),
    *(outgoing, setup),
)


def install(app: FastAPI) -> None:
    """Add the pages to the application. Errors below their paths are shown as pages too."""
    app.state.sign_in_throttle = sign_in.Throttle(time.monotonic)
    app.state.problem_shapes |= dict.fromkeys(PREFIXES, rendering.page_problem)
    for page in PAGES:
        app.include_router(page.router)
    app.include_router(rendering.static_router)
