"""Codat's door in `/openapi.json`: it stands in front of the application, which cannot see it."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from app.web.problems import MEDIA_TYPE, amend

PATH = "/webhooks/codat"
_ANSWERS = {
    204: "authentic and committed; also a duplicate, an unknown type, or one nobody can read",
    401: "not provably Codat's; the same answer for every cause",
    405: "neither POST nor PUT",
    408: "the body came too slowly",
    413: "larger than `MAX_BODY_BYTES`",
    503: "authentic, but it cannot be kept now: send it again",
}
_FAMILY = {
    "webhook-id": "the message's id, the same on every attempt; `svix-id` in the older family",
    "webhook-timestamp": "seconds since 1970 of this attempt; at most 5 minutes off",
    "webhook-signature": "`v1,` and the base64 of the signature; several, separated by blanks",
}
_BODY = {
    "type": "object",
    "additionalProperties": True,
    "description": "any of Codat's events, old or new; kept byte for byte",
    "examples": [
        {
            "id": "ba29118f-5406-4e59-b05c-ba307ca38d01",
            "eventType": "expenses.sync.unsuccessful",
            "generatedDate": "2026-01-01T09:00:00Z",
            "payload": {
                "referenceCompany": {"id": "0498e921-9b53-4396-a412-4f2f5983b0a2"},
                "syncId": "6fb40d5e-b13e-11ed-afa1-0242ac120002",
            },
        }
    ],
}


def install(app: FastAPI) -> None:
    """Add Codat's door to what the application says of itself."""
    amend(app, _add_the_door)


def _add_the_door(told: dict[str, Any]) -> None:
    told["paths"].setdefault(PATH, {method: _call(method) for method in ("post", "put")})


def _call(method: str) -> dict[str, Any]:
    return {
        "tags": ["webhooks"],
        "summary": "Codat delivers an event",
        "description": "Verified over its exact bytes; answered once it is committed. It takes no "
        "API key: the signature is the proof. With and without a slash at the end.",
        "operationId": f"deliver_{method}",
        "security": [],
        "parameters": [_header(name, said) for name, said in _FAMILY.items()],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        "responses": {str(status): _answer(status) for status in _ANSWERS},
    }


def _header(name: str, said: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "header", "required": True, "description": said, "schema": schema}


def _answer(status: int) -> dict[str, Any]:
    told: dict[str, Any] = {"description": _ANSWERS[status]}
    if status == HTTPStatus.NO_CONTENT:
        return told
    problem = {
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
        },
    }
    told["content"] = {MEDIA_TYPE: {"schema": problem}}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        told["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        told["headers"] = {"Allow": {"schema": {"type": "string"}}}
    return told
