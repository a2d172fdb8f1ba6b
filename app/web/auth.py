"""Authentication with API keys: `/api/v1` takes a Bearer token, `/codat` what Codat's SDKs send."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.settings import Settings

MISSING_KEY = "Missing or invalid API key"
_BEARER = HTTPBearer(auto_error=False, description="One of the keys in `API_KEYS`.")
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
    if find_key(request.app.state.settings, candidates) is None:
        raise HTTPException(401, MISSING_KEY, {"WWW-Authenticate": "Bearer"})


async def require_codat_key(
    request: Request, header: Annotated[str | None, Security(_CODAT_STYLE)]
) -> None:
    """Raise HTTPException (401) unless the request has a key in a form that Codat's SDKs use."""
    if find_key(request.app.state.settings, _codat_style_keys(header or "")) is None:
        challenge = 'Basic realm="codat", Bearer'
        raise HTTPException(401, MISSING_KEY, {"WWW-Authenticate": challenge})


def api_keys(settings: Settings) -> list[bytes]:
    """The `API_KEYS` of the settings."""
    return [key.get_secret_value().encode() for key in settings.api_keys]


def find_key(settings: Settings, candidates: Iterable[bytes]) -> bytes | None:
    """The one of `API_KEYS` that is among the candidates; takes equally long for near misses."""
    digests = [hashlib.sha256(candidate).digest() for candidate in candidates]
    found = None
    for key in api_keys(settings):
        ours = hashlib.sha256(key).digest()
        if sum(hmac.compare_digest(ours, digest) for digest in digests):
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
