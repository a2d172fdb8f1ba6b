"""The people's door: pages for support staff, made here and usable without script."""

import time

from fastapi import FastAPI

from app.web import (
    pages_causes,
    pages_companies,
    pages_config,
    pages_events,
    pages_frame,
    pages_health,
    pages_signing,
    pages_syncs,
)
from app.web.problems import NOWHERE
from app.web.throttle import FAILURES, FEWEST_FAILURES, Throttle

SUBJECTS = (
    pages_signing,
    pages_health,
    pages_syncs,
    pages_companies,
    pages_config,
    pages_causes,
    pages_events,
)
PLACES = (
    "/",
    "/sign-in",
    "/sign-out",
    "/syncs",
    "/syncs.csv",
    "/companies",
    "/causes",
    "/events",
    "/static",
)


def install(app: FastAPI) -> None:
    """Add the pages to the application; errors at their addresses are pages too."""
    assets = pages_frame.read_assets()
    app.state.page_assets = assets
    app.state.page_templates = pages_frame.environment(assets)
    part = max(FEWEST_FAILURES, FAILURES // app.state.settings.serving_processes)
    app.state.throttle = Throttle(time.monotonic, part)
    app.state.problem_shapes |= dict.fromkeys((*PLACES, NOWHERE), pages_frame.page_problem)
    for subject in SUBJECTS:
        app.include_router(subject.router)
    app.include_router(pages_frame.static)
