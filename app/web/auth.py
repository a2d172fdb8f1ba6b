"""What a request may ask for, all of it taken from `app.state`, and who may ask at all."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.db.engine import Database
from app.settings import Settings
from app.worker.replay import Replayer

Owe = Callable[[str | None, str], bool]
_BEARER = HTTPBearer(auto_error=False, description="One of the keys in `API_KEYS`.")
_CODAT_LIKE = APIKeyHeader(
    name="Authorization",
    scheme_name="CodatAuthorization",
    description="`Basic` with one of `API_KEYS` in base64, as Codat's own API; or `Bearer KEY`.",
    auto_error=False,
)


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _owe(request: Request) -> Owe:
    owe: Owe = request.app.state.owe
    return owe


async def _replayer(request: Request) -> Replayer:
    replayer: Replayer = request.app.state.replayer
    return replayer


TheDatabase = Annotated[Database, Depends(_database)]
TheOwing = Annotated[Owe, Depends(_owe)]
TheReplayer = Annotated[Replayer, Depends(_replayer)]


async def require_key(
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> None:
    """Let the request in when it carries one of our keys as a Bearer token; else 401."""
    if given is None or not is_key(request.app.state.settings, [_bytes(given.credentials)]):
        raise _unauthorized("Bearer")


async def require_codat_key(
    request: Request, given: Annotated[str | None, Security(_CODAT_LIKE)]
) -> None:
    """Let the request in when it carries one of our keys as Codat's SDKs send theirs; else 401."""
    if not is_key(request.app.state.settings, _codat_keys(given or "")):
        raise _unauthorized('Basic realm="codat", Bearer')


def is_key(settings: Settings, candidates: Iterable[bytes]) -> bool:
    """True when a candidate is one of our keys. Takes as long for a near miss as for a far one."""
    keys = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in settings.api_keys]
    given = [hashlib.sha256(candidate).digest() for candidate in candidates]
    return sum(hmac.compare_digest(ours, theirs) for ours in keys for theirs in given) > 0


def _codat_keys(header: str) -> list[bytes]:
    """The keys an Authorization header may mean: `Bearer KEY`, `Basic b64(KEY)`, `b64("KEY:")`."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return [_bytes(value.strip())]
    if scheme.lower() != "basic":
        return []
    try:
        plain = base64.b64decode(_bytes(value.strip()), validate=True)
    except (binascii.Error, ValueError):
        return []
    user, _, password = plain.partition(b":")
    return [plain, user, password]


def _bytes(text: str) -> bytes:
    """Header text as the bytes that came: Starlette reads headers as Latin-1."""
    return text.encode("latin-1", "replace")


def _unauthorized(challenge: str) -> HTTPException:
    return HTTPException(401, "a valid key is required", {"WWW-Authenticate": challenge})
