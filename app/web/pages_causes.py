"""Why things fail: the failed items of all companies, sorted by cause."""

from fastapi import APIRouter, HTTPException, Request, Response

from app.web.filters import Nothing
from app.web.pages_asked import asked
from app.web.pages_frame import PageRoute, brought, page
from app.web.sessions import SignedIn

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/causes")
def list_causes(request: Request, _session: SignedIn) -> Response:
    """The groups, in the order in which they are read; 404 where nothing is sorted by cause.

    `state.read_causes()` reads them. A group has: key, title, who, next_step, text, companies,
    transactions, open, first_seen, last_seen.
    """
    asked(request, Nothing)
    read = brought(request.app, "read_causes")
    if read is None:
        raise HTTPException(404)
    return page(request, "causes.html", groups=read())
