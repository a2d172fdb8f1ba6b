"""A notice that is shown once, to who pressed the button: no address carries it to others."""

from typing import Literal

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from app.web.pages.query_params import path

Asked = Literal["refresh", "retry"]

COOKIE = "sync-health-asked"
KEPT_S = 120
NOTICES: dict[str, str] = {
    "refresh": (
        "Codat is being asked about this sync. What it answers shows here as soon as it is known."
    ),
    "retry": (
        "The failed items are being handed over to be sent again: the timeline shows when they "
        "were. Whether they reach the books will show in a later sync."
    ),
}


def back_to(sync_id: str, company_id: str, asked: Asked) -> Response:
    """Back to the sync's page, which will say once what was asked for."""
    answer = RedirectResponse(path("syncs", sync_id, company_id=company_id), 303)
    place = path("syncs", sync_id)
    answer.set_cookie(COOKIE, asked, max_age=KEPT_S, path=place, httponly=True, samesite="lax")
    return answer


def notice_of(request: Request) -> str | None:
    """What to say on this page, if its reader has just pressed a button."""
    return NOTICES.get(request.cookies.get(COOKIE, ""))


def said(answer: Response, sync_id: str) -> None:
    """Never say it again."""
    answer.delete_cookie(COOKIE, path=path("syncs", sync_id), httponly=True, samesite="lax")
