"""The people's door: pages for support staff, made here and usable without script."""

import time

from fastapi import FastAPI

from app.web.pages import (
    causes as pages_causes,
)
from app.web.pages import (
    companies as pages_companies,
)
from app.web.pages import (
    config as pages_config,
)
from app.web.pages import (
    events as pages_events,
)
from app.web.pages import (
    health as pages_health,
)
from app.web.pages import (
    rendering as pages_frame,
)
from app.web.pages import (
    sign_in as pages_signing,
)
from app.web.pages import (
    syncs as pages_syncs,
)
from app.web.pages.throttle import FAILURES, FEWEST_FAILURES, Throttle
from app.web.problems import NOWHERE

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
