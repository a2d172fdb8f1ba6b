"""Responses of the API: ETags for single resources, and content negotiation."""

import hashlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response

from app.web.path_params import IdRoute


class ApiRoute(IdRoute):
    """A route of the API. One that documents a 304 answers with an ETag of its content."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler; 304 if the caller has the same content."""
        handle = super().get_route_handler()
        if 304 not in self.responses:
            return handle

        async def handle_with_etag(request: Request) -> Response:
            response = await handle(request)
            etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
            headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
            known = ",".join(request.headers.getlist("if-none-match")).split(",")
            if {etag, "*"} & {tag.strip().removeprefix("W/") for tag in known}:
                return Response(status_code=304, headers=headers)
            response.headers.update(headers)
            return response

        return handle_with_etag


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
