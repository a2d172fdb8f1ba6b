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
DEFAULT_PORTS = {"http": 80, "https": 443}
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
    key = _key_of(settings, cookie)
    if key is None or int(cookie.partition(".")[0]) <= now.timestamp():
        return None
    return Session(key.name, _sign(key, "form", cookie))


def _key_of(settings: Settings, cookie: str) -> ApiKey | None:
    """The key that has signed a session's cookie."""
    claims, _, signature = cookie.rpartition(".")
    for key in settings.api_keys:
        if _equal(_sign(key, "session", claims), signature):
            return key
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
    found = (
        read_session(state.settings, cookie, state.clock()) for cookie in session_cookies(request)
    )
    return next(filter(None, found), None)


def session_cookies(request: Request) -> list[str]:
    """The cookies of the sessions, valid or not, that this installation has made."""
    names = (_cookie_name(request, key) for key in request.app.state.settings.api_keys)
    return [request.cookies[name] for name in names if name in request.cookies]


def _cookie_name(request: Request, key: ApiKey) -> str:
    """The name of a session's cookie, with a part that other installations do not share.

    A browser sends a cookie to all ports of a host, and to all paths below the first.
    """
    settings = request.app.state.settings
    database = urlsplit(settings.database_url).path
    port = request.headers.get("host", "").rpartition(":")[2]
    place = f"{settings.public_url} {settings.root_path} {database} {port}"
    return f"{COOKIE}_{_sign(key, 'cookie', place)[:16]}"


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
    address = request.headers.get("referer", "")
    if _is_own_address(request, address) and (referrer := urlsplit(address)).path:
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
        raise HTTPException(403, _foreign_form(request))
    if session and not _equal(session.csrf, form.get("csrf", "")):
        raise HTTPException(403, "The form is not from a page of this session.")


async def _own_form(request: Request, session: SignedIn, form: Form) -> dict[str, str]:
    require_own_form(request, session, form)
    return form


OwnForm = Annotated[dict[str, str], Depends(_own_form)]
"""The fields of a form that a page of this session sent."""


def _is_foreign_origin(request: Request) -> bool:
    """True for the origin of another site."""
    origin = request.headers.get("origin")
    return origin is not None and not _is_own_address(request, origin)


def _is_own_address(request: Request, url: str) -> bool:
    """Whether an origin or a page is of this service: of PUBLIC_URL, or of the request's `Host`.

    A proxy may have put its own name into `Host`, and ours into `X-Forwarded-Host`. It may have
    left out the port: then, unless PUBLIC_URL is set, every port of this name is ours.
    """
    public_url = request.app.state.settings.public_url
    names = ",".join(request.headers.get(name, "") for name in ("host", "x-forwarded-host"))
    try:
        sender = urlsplit(url)
        default = DEFAULT_PORTS.get(sender.scheme)
        place = sender.hostname, sender.port or default
        own = urlsplit(public_url or "")
        ours = {(own.hostname, own.port or DEFAULT_PORTS.get(own.scheme))}
        for host in (urlsplit(f"//{name.strip()}") for name in names.split(",")):
            dropped = default if public_url else place[1]
            ours.add((host.hostname, host.port or dropped))
    except ValueError:
        return False
    return bool(sender.hostname) and place in ours


def _foreign_form(request: Request) -> str:
    """What is wrong with the sender of a form, for people who have configured a proxy."""
    sender = request.headers.get("origin", "another site")[:200]
    host = request.headers.get("host", "")[:200]
    return (
        f"The form is from {sender}, not from {host}. Behind a proxy, "
        "pass Host on or set PUBLIC_URL."
    )


def local_address(address: str) -> str:
    """The address if it is a path of this service; else the first page."""
    is_path = address.startswith("/") and not address.startswith("//")
    is_plain = address.isascii() and address.isprintable() and "\\" not in address
    return address if is_path and is_plain else "/"


def set_session_cookie(request: Request, response: Response, cookie: str) -> None:
    """Set the cookie of a new session."""
    key = _key_of(request.app.state.settings, cookie)
    if key is not None:
        _set_cookie(request, response, _cookie_name(request, key), cookie, LIFETIME)


def end_session(request: Request, response: Response) -> None:
    """Delete the cookies of the session."""
    for key in request.app.state.settings.api_keys:
        _set_cookie(request, response, _cookie_name(request, key), "", timedelta())


def _set_cookie(
    request: Request, response: Response, name: str, value: str, max_age: timedelta
) -> None:
    """Set a cookie; only for HTTPS if the page was requested by HTTPS.

    A false header of a proxy harms only the sender's own cookie.
    """
    scheme = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    response.set_cookie(
        name,
        value,
        max_age=int(max_age.total_seconds()),
        httponly=True,
        samesite="lax",
        secure="https" in (request.url.scheme, scheme),
    )
