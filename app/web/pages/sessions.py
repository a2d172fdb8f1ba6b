"""Who is signed in to the pages, and which forms are theirs.

Nothing is kept: a session is a signed cookie, made with one of `API_KEYS` and good as long as that
key is one of ours and its time is not over. The cookie says nothing about the key. Every form of a
page carries a token that only this session's pages know.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Depends, HTTPException, Request, Response

from app.settings import Settings

COOKIE = "sync_health"
LASTS = timedelta(hours=12)
LONGEST_FORM = 16_384
MOST_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody signed in; `csrf` is what their forms must carry."""

    csrf: str


def sign_in(settings: Settings, given: str, now: datetime) -> str | None:
    """The cookie for who gives one of our keys, else None; near misses take as long as far ones."""
    theirs = hashlib.sha256(given.encode("utf-8", "replace")).digest()
    key = None
    for ours in _keys(settings):
        if hmac.compare_digest(hashlib.sha256(ours).digest(), theirs):
            key = ours
    if key is None:
        return None
    told = f"{int((now + LASTS).timestamp())}.{secrets.token_urlsafe(18)}"
    return f"{told}.{_signed(key, 'session', told)}"


def read_session(settings: Settings, cookie: str, now: datetime) -> Session | None:
    """The session of this cookie; None when we did not sign it or its time is over."""
    told, _, signature = cookie.rpartition(".")
    for key in _keys(settings):
        if _same(_signed(key, "session", told), signature):
            ends = int(told.partition(".")[0])
            return Session(_signed(key, "form", cookie)) if ends > now.timestamp() else None
    return None


def _keys(settings: Settings) -> list[bytes]:
    return [key.get_secret_value().encode() for key in settings.api_keys]


def _signed(key: bytes, purpose: str, text: str) -> str:
    own_key = hmac.digest(key, f"sync-health {purpose}".encode(), "sha256")
    return hmac.new(own_key, text.encode("utf-8", "replace"), "sha256").hexdigest()


def _same(ours: str, theirs: str) -> bool:
    return hmac.compare_digest(ours.encode(), theirs.encode("utf-8", "replace"))


def session_of(request: Request) -> Session | None:
    """Who asks, if they are signed in."""
    state = request.app.state
    return read_session(state.settings, request.cookies.get(COOKIE, ""), state.clock())


async def _signed_in(request: Request) -> Session:
    """Who asks; everybody else is sent to sign in, and comes back to the same address after."""
    session = session_of(request)
    if session is None:
        path = (request.scope.get("raw_path") or b"").split(b"?")[0].decode("latin-1")
        asked = f"{path}?{request.url.query}" if request.url.query else path
        where = "/sign-in" if asked == "/" else f"/sign-in?next={quote(asked, safe='/')}"
        raise HTTPException(303, "sign in first", {"Location": where})
    return session


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a sent form, the last of each name. Raises HTTPException: 413, 422."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise HTTPException(413, "the form is too large")
    try:
        text = body.decode()
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise HTTPException(422, "the form cannot be read") from None


SignedIn = Annotated[Session, Depends(_signed_in)]
Form = Annotated[dict[str, str], Depends(read_form)]


async def _own_form(request: Request, session: SignedIn, form: Form) -> dict[str, str]:
    require_same_site(request)
    require_own(session, form)
    return form


OwnForm = Annotated[dict[str, str], Depends(_own_form)]
"""The fields of a form that one of this session's own pages sent."""


def require_own(session: Session, form: dict[str, str]) -> None:
    """Raise HTTPException (403) unless one of this session's pages made the form."""
    if not _same(session.csrf, form.get("csrf", "")):
        raise HTTPException(403, "this form is not from a page of yours; open the page again")


def require_same_site(request: Request) -> None:
    """Raise HTTPException (403) when the browser says that another site sent the form.

    Browsers say so in `Sec-Fetch-Site`, which no page can set; over plain http only in `Origin`.
    """
    told = request.headers.get("sec-fetch-site")
    if told not in (None, "same-origin", "none") or (told is None and _origin_is_foreign(request)):
        raise HTTPException(403, "this form came from another site")


def _origin_is_foreign(request: Request) -> bool:
    """Whether the form says it is from elsewhere; a proxy may have put its own name into Host."""
    origin = request.headers.get("origin")
    if origin is None:
        return False
    ours = (request.headers.get("host", ""), request.headers.get("x-forwarded-host", ""))
    here = {name.strip().lower() for each in ours for name in each.split(",")} - {""}
    return origin.partition("://")[2].lower() not in here


def local(address: str) -> str:
    """The address when it is a path of ours; else the first page."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    odd = not address.isprintable() or "\\" in address or not address.isascii()
    here = address.startswith("/") and not address.startswith("//")
    return "/" if odd or not here or parts.scheme or parts.netloc else address


def give_cookie(request: Request, response: Response, cookie: str) -> None:
    """Set the session's cookie; only for https where the page was asked for by https."""
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LASTS.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=_by_https(request),
    )


def take_cookie(request: Request, response: Response) -> None:
    """Let the browser forget the session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=_by_https(request))


def _by_https(request: Request) -> bool:
    """True also behind a proxy that says so; who lies here harms only their own cookie."""
    told = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    return "https" in (request.url.scheme, told)
