"""Why things fail: the failed items of all companies, sorted by cause."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from app.web.filters import Nothing
from app.web.pages_asked import asked
from app.web.pages_frame import PageRoute, page
from app.web.sessions import SignedIn

ReadCauses = Callable[[], Sequence[Mapping[str, Any]]]
"""Reads groups of one cause: key, title, who, next_step, text, companies, transactions, open,
first_seen, last_seen."""

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/causes")
def list_causes(request: Request, _session: SignedIn) -> Response:
    """The groups, in the order in which they are read."""
    asked(request, Nothing)
    read: ReadCauses = request.app.state.read_causes
    return page(request, "causes.html", groups=read())
