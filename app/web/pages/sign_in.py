"""Signing in with an API key, and out again."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.web.pages.rendering import PageRoute, page
from app.web.pages.sessions import (
    Form,
    give_cookie,
    local,
    require_own,
    require_same_site,
    session_of,
    sign_in,
    take_cookie,
)
from app.web.pages.throttle import Throttle

NOT_A_KEY = "That is not one of this service's keys."

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/sign-in")
def get_sign_in(request: Request) -> Response:
    """The form; who is signed in already goes on."""
    after = local(request.query_params.get("next", "/"))
    if session_of(request):
        return RedirectResponse(after, 303)
    return page(request, "sign_in.html", after=after, wrong=None)


@router.post("/sign-in")
def post_sign_in(request: Request, form: Form) -> Response:
    """A session for one of our keys. Too many wrong ones from an address have to wait."""
    require_same_site(request)
    throttle: Throttle = request.app.state.throttle
    address = request.client.host if request.client else ""
    after = local(form.get("next", "/"))
    wait = throttle.wait(address)
    if wait:
        wrong = f"Too many attempts failed. Try again in {wait // 60 + 1} min."
        headers = {"Retry-After": str(wait)}
        return page(request, "sign_in.html", 429, headers, after=after, wrong=wrong)
    state = request.app.state
    cookie = sign_in(state.settings, form.get("key", "").strip(), state.clock())
    if cookie is None:
        throttle.failed(address)
        return page(request, "sign_in.html", 403, after=after, wrong=NOT_A_KEY)
    throttle.forgive(address)
    answer = RedirectResponse(after, 303)
    give_cookie(request, answer, cookie)
    return answer


@router.post("/sign-out")
def post_sign_out(request: Request, form: Form) -> Response:
    """End the session in this browser."""
    require_same_site(request)
    session = session_of(request)
    if session:
        require_own(session, form)
    answer = RedirectResponse("/sign-in", 303)
    take_cookie(request, answer)
    return answer
