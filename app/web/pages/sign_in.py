"""Signing in with an API key, and signing out."""

from collections import deque
from collections.abc import Callable
from math import ceil

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app import logging
from app.web.pages.labels import counted
from app.web.pages.rendering import PageRoute, render_page
from app.web.pages.sessions import (
    Form,
    create_session,
    end_session,
    local_address,
    read_session,
    require_own_form,
    session_cookies,
    session_of,
    set_session_cookie,
)

MAX_FAILURES = 8
FAILURE_WINDOW_S = 300.0
MAX_ADDRESSES = 10_000

_log = logging.get(__name__)
router = APIRouter(include_in_schema=False, route_class=PageRoute)


class Throttle:
    """Limits failed sign-ins per client address, in this process. `ticks` is in seconds.

    For one event loop. Behind a proxy that uvicorn does not trust (`FORWARDED_ALLOW_IPS`), all
    users share the proxy's address. Memory is bounded by `MAX_ADDRESSES`.
    """

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._failures: dict[str, deque[float]] = {}

    def wait_seconds(self, address: str) -> int:
        """Seconds until the address may try again; 0 if it may now."""
        failures = self._failures.get(address, deque())
        if len(failures) < MAX_FAILURES:
            return 0
        return max(0, ceil(failures[0] + FAILURE_WINDOW_S - self._ticks()))

    def record_failure(self, address: str) -> None:
        """Record a failed attempt; the addresses with the oldest failures are dropped first."""
        failures = self._failures.pop(address, deque(maxlen=MAX_FAILURES))
        failures.append(self._ticks())
        self._failures[address] = failures
        if len(self._failures) > MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]

    def reset(self, address: str) -> None:
        """Forget the failures of an address that has signed in."""
        self._failures.pop(address, None)


@router.get("/sign-in")
async def get_sign_in(request: Request) -> Response:
    """The form; a user who is signed in already is redirected."""
    target = local_address(request.query_params.get("next", "/"))
    if session_of(request):
        return RedirectResponse(target, 303)
    return _render(request, target)


def _render(
    request: Request,
    target: str,
    error: str | None = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    is_expired = bool(session_cookies(request))
    context = {"target": target, "error": error, "is_expired": is_expired}
    return render_page(request, "sign_in.html", status, headers, **context)


@router.post("/sign-in")
async def post_sign_in(request: Request, form: Form) -> Response:
    """Start a session with one of `API_KEYS`. After too many failures, the address must wait."""
    require_own_form(request, None, form)
    state = request.app.state
    throttle: Throttle = state.sign_in_throttle
    address = request.client.host if request.client else ""
    target = local_address(form.get("next", "/"))
    if wait := throttle.wait_seconds(address):
        error = f"Too many failed attempts. Try again in {counted(wait // 60 + 1, 'minute')}."
        headers = {"Retry-After": str(wait)}
        return _render(request, target, error, 429, headers)
    cookie = create_session(state.settings, form.get("key", "").strip(), state.clock())
    if cookie is None:
        throttle.record_failure(address)
        _log.warning("sign-in failed", client=address)
        return _render(request, target, "Invalid API key.", 403)
    throttle.reset(address)
    session = read_session(state.settings, cookie, state.clock())
    _log.info("signed in", actor=session.actor if session else None, client=address)
    response = RedirectResponse(target, 303)
    set_session_cookie(request, response, cookie)
    return response


@router.post("/sign-out")
async def post_sign_out(request: Request, form: Form) -> Response:
    """End the session in this browser."""
    require_own_form(request, session_of(request), form)
    response = RedirectResponse("/sign-in", 303)
    end_session(request, response)
    return response
