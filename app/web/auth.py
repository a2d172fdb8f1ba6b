"""Authentication with API keys: `/api/v1` takes a Bearer token, `/codat` what Codat's SDKs send."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

import structlog
from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.settings import ApiKey, Settings

MISSING_KEY = "Missing or invalid API key"
_BEARER = HTTPBearer(
    auto_error=False, description="One of the keys in `API_KEYS`, without its name."
)
_CODAT_STYLE = APIKeyHeader(
    name="Authorization",
    scheme_name="CodatAuthorization",
    description="`Basic` with one of `API_KEYS` in base64, as for Codat's API; or `Bearer KEY`.",
    auto_error=False,
)


async def require_key(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
) -> None:
    """Raise HTTPException (401) unless the request has one of `API_KEYS` as a Bearer token."""
    candidates = [_to_bytes(credentials.credentials)] if credentials else []
    _require(request, candidates, "Bearer")


async def require_codat_key(
    request: Request, header: Annotated[str | None, Security(_CODAT_STYLE)]
) -> None:
    """Raise HTTPException (401) unless the request has a key in a form that Codat's SDKs use."""
    _require(request, _codat_style_keys(header or ""), 'Basic realm="codat", Bearer')


def _require(request: Request, candidates: Iterable[bytes], challenge: str) -> None:
    key = find_key(request.app.state.settings, candidates)
    if key is None:
        raise HTTPException(401, MISSING_KEY, {"WWW-Authenticate": challenge})
    set_actor(request, key.name)


def set_actor(request: Request, name: str | None) -> None:
    """Set the name of the request's key, for its log lines and for what it writes."""
    request.state.actor = name
    if name:
        structlog.contextvars.bind_contextvars(actor=name)


async def _actor(request: Request) -> str | None:
    actor: str | None = getattr(request.state, "actor", None)
    return actor


ActorDep = Annotated[str | None, Depends(_actor)]
"""The name of the key of a call of the API; None for a key without a name. Pages have it from the
session."""


def find_key(settings: Settings, candidates: Iterable[bytes]) -> ApiKey | None:
    """The one of `API_KEYS` that is among the candidates; takes equally long for near misses."""
    digests = [hashlib.sha256(candidate).digest() for candidate in candidates]
    found = None
    for key in settings.api_keys:
        ours = [hashlib.sha256(spelling).digest() for spelling in key.spellings]
        if sum(hmac.compare_digest(mine, sent) for mine in ours for sent in digests):
            found = key
    return found


def _codat_style_keys(header: str) -> list[bytes]:
    """The keys that a header may carry: `Bearer KEY`, `Basic b64(KEY)`, `Basic b64(KEY:)`."""
    scheme, _, value = header.strip().partition(" ")
    key = _to_bytes(value.strip())
    match scheme.lower():
        case "bearer":
            return [key]
        case "basic":
            try:
                plain = base64.b64decode(key, validate=True)
            except ValueError:
                return []
            user, _, password = plain.partition(b":")
            return [plain, user, password]
        case _:
            return []


def _to_bytes(header: str) -> bytes:
    """A header as it was sent: Starlette decodes headers as Latin-1."""
    return header.encode("latin-1", "replace")
