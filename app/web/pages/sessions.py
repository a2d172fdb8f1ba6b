"""Sessions of the pages, and the forms that they may send.

A session is a signed cookie, made with one of `API_KEYS`; nothing is stored. It is valid for
twelve hours, as long as its key is configured, and on every replica with that key. Each form
carries a token that only the pages of this session contain.
"""

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, HTTPException, Request, Response

from app.settings import ApiKey, Settings
from app.web.auth import find_key, set_actor
from app.web.pages.notices import expired_notice
from app.web.pages.query_params import page_address

COOKIE = "sync_health"
LIFETIME = timedelta(hours=12)
MAX_FORM_BYTES = 16_384
MAX_FORM_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in user: the name of their key, and the token that their forms must carry."""

    actor: str | None
    csrf: str


def create_session(settings: Settings, api_key: str, now: datetime) -> str | None:
    """The cookie of a new session, or None if `api_key` is not one of `API_KEYS`."""
    found = find_key(settings, [api_key.encode("utf-8", "replace")])
    if found is None:
        return None
    claims = f"{int((now + LIFETIME).timestamp())}.{secrets.token_urlsafe(18)}"
    return f"{claims}.{_sign(found, 'session', claims)}"


def read_session(settings: Settings, cookie: str, now: datetime) -> Session | None:
    """The session of this cookie; None if it is not signed by one of our keys, or has expired."""
    claims, _, signature = cookie.rpartition(".")
    for key in settings.api_keys:
        if _equal(_sign(key, "session", claims), signature):
            is_valid = int(claims.partition(".")[0]) > now.timestamp()
            return Session(key.name, _sign(key, "form", cookie)) if is_valid else None
    return None


def _sign(key: ApiKey, purpose: str, text: str) -> str:
    derived = hmac.digest(
        key.key.get_secret_value().encode(), f"sync-health {purpose}".encode(), "sha256"
    )
    return hmac.new(derived, text.encode("utf-8", "replace"), "sha256").hexdigest()


def _equal(ours: str, received: str) -> bool:
    return hmac.compare_digest(ours.encode(), received.encode("utf-8", "replace"))


def session_of(request: Request) -> Session | None:
    """The session of this request, or None."""
    state = request.app.state
    return read_session(state.settings, request.cookies.get(COOKIE, ""), state.clock())


async def _require_session(request: Request) -> Session:
    """The session; without one, redirect to the sign-in page, which leads back here.

    From a form it leads to the page of the form, which then says that nothing was carried out.
    """
    session = session_of(request)
    if session is None:
        place, headers = page_address(request), {}
        address = place.path
        if request.url.query:
            address += f"?{request.url.query}"
        if request.method == "POST":
            action, _, _ = place.path[::-1].partition("/")
            address, headers = page_of_form(request), expired_notice(action[::-1])
        target = "/sign-in" if address == "/" else f"/sign-in?next={quote(address, safe='/')}"
        raise HTTPException(303, "Sign in first", {"Location": target, **headers})
    set_actor(request, session.actor)
    return session


def page_of_form(request: Request) -> str:
    """The address of the page from which a form was sent: as the browser says, else its parent."""
    referrer = urlsplit(request.headers.get("referer", ""))
    if referrer.path and referrer.netloc == request.url.netloc:
        return local_address(referrer._replace(scheme="", netloc="", fragment="").geturl())
    return page_address(request).path.rpartition("/")[0] or "/"


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a URL-encoded form, the last of each name. Raises HTTPException 413 or 422."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413, "The form is too large.")
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise HTTPException(422, "The form cannot be read.") from None
    return dict(fields)


SignedIn = Annotated[Session, Depends(_require_session)]
Form = Annotated[dict[str, str], Depends(read_form)]


def require_own_form(request: Request, session: Session | None, form: dict[str, str]) -> None:
    """Raise HTTPException 403 unless this site sent the form, from a page of this session if any.

    Browsers name the sender in `Sec-Fetch-Site`, which no page can set; over plain HTTP only in
    `Origin`.
    """
    site = request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none") or (site is None and _is_foreign_origin(request)):
        raise HTTPException(403, "The form is from another site.")
    if session and not _equal(session.csrf, form.get("csrf", "")):
        raise HTTPException(403, "The form is not from a page of this session.")


async def _own_form(request: Request, session: SignedIn, form: Form) -> dict[str, str]:
    require_own_form(request, session, form)
    return form


OwnForm = Annotated[dict[str, str], Depends(_own_form)]
"""The fields of a form that a page of this session sent."""


def _is_foreign_origin(request: Request) -> bool:
    """True for the origin of another site. A proxy may have put its own name into Host."""
    origin = request.headers.get("origin")
    if origin is None:
        return False
    headers = (request.headers.get("host", ""), request.headers.get("x-forwarded-host", ""))
    ours = {name.strip().lower() for value in headers for name in value.split(",")} - {""}
    return origin.partition("://")[2].lower() not in ours


def local_address(address: str) -> str:
    """The address if it is a path of this service; else the first page."""
    is_path = address.startswith("/") and not address.startswith("//")
    is_plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if is_path and is_plain else "/"


def set_session_cookie(request: Request, response: Response, cookie: str | None) -> None:
    """Set or delete the session's cookie; only for HTTPS if the page was requested by HTTPS.

    A false header of a proxy harms only the sender's own cookie.
    """
    scheme = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    response.set_cookie(
        COOKIE,
        cookie or "",
        max_age=int(LIFETIME.total_seconds()) if cookie else 0,
        httponly=True,
        samesite="lax",
        secure="https" in (request.url.scheme, scheme),
    )
