"""Response helpers: ETags for single resources, and content negotiation."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not changed since the ETag in `If-None-Match`."}
}
"""The `responses` of a route that answers with `etag_response`, besides its others."""


def etag_response(request: Request, model: BaseModel) -> Response:
    """The model as JSON with an ETag of its content; 304 if the caller has the same."""
    body = model.model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if _matches(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _matches(if_none_match: Sequence[str], etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(if_none_match).split(",")]
    return etag in tags or "*" in tags


def prefers(request: Request, media_type: str) -> bool:
    """True when the `Accept` header names this media type with no lower weight than JSON."""
    weights = dict(_weights(",".join(request.headers.getlist("accept"))))
    weight = weights.get(media_type, 0.0)
    return weight > 0 and weight >= weights.get("application/json", 0.0)


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        media_type, *options = (piece.strip().lower() for piece in part.split(";"))
        weights = [option[2:] for option in options if option.startswith("q=")]
        try:
            yield media_type, float(weights[0]) if weights else 1.0
        except ValueError:
            yield media_type, 0.0
