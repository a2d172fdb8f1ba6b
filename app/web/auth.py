"""Authentication with API keys: `/api/v1` takes a Bearer token, `/codat` what Codat's SDKs send."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.settings import Settings

_BEARER = HTTPBearer(auto_error=False, description="One of the keys in `API_KEYS`.")
_CODAT_STYLE = APIKeyHeader(
    name="Authorization",
    scheme_name="CodatAuthorization",
    description="`Basic` with one of `API_KEYS` in base64, as for Codat's API; or `Bearer KEY`.",
    auto_error=False,
)


async def require_key(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> None:
    """Raise HTTPException (401) unless the request has one of `API_KEYS` as a Bearer token."""
    _require(request, [_to_bytes(credentials.credentials)] if credentials else [], "Bearer")


async def require_codat_key(
    request: Request, header: Annotated[str | None, Security(_CODAT_STYLE)]
) -> None:
    """Raise HTTPException (401) unless the request has a key in a form that Codat's SDKs use."""
    _require(request, _codat_style_keys(header or ""), 'Basic realm="codat", Bearer')


def _require(request: Request, candidates: Iterable[bytes], challenge: str) -> None:
    if not is_key(request.app.state.settings, candidates):
        raise HTTPException(401, "Missing or invalid API key", {"WWW-Authenticate": challenge})


def is_key(settings: Settings, candidates: Iterable[bytes]) -> bool:
    """Return whether a candidate is one of `API_KEYS`; takes equally long for near misses."""
    keys = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in settings.api_keys]
    digests = [hashlib.sha256(candidate).digest() for candidate in candidates]
    return sum(hmac.compare_digest(key, digest) for key in keys for digest in digests) > 0


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
