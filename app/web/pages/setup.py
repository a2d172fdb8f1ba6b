"""The checks of the first hour that ask Codat."""

from fastapi import APIRouter, Request, Response

from app.web.api.query_params import NoQuery
from app.web.dependencies import CodatCheckDep
from app.web.pages.rendering import PageRoute, render_page
from app.web.pages.sessions import SignedIn

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_ABOUT_THE_KEY = ("codat_key_refused", "codat_refuses", "codat_unreachable", "codat_rate_limited")


@router.get("/setup/codat")
async def check_codat(
    request: Request, check: CodatCheckDep, _user: SignedIn, _params: NoQuery
) -> Response:
    """Whether Codat accepts the key, and what is wrong with the endpoint, as the doctor says."""
    findings = await check()
    is_accepted = not any(finding.name in _ABOUT_THE_KEY for finding in findings)
    return render_page(request, "setup_codat.html", findings=findings, is_accepted=is_accepted)
