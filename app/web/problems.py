"""How errors leave: one table from our errors to HTTP, one shape for all of them.

The shape is RFC 9457's `application/problem+json`. A part of the service that must speak another
shape (the mirror speaks Codat's) names its path in `app.state.problem_shapes`. What the database
or Codat said is for the log, never for the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app import errors
from app import logging as log
from app.web.api.responses import prefers

MEDIA_TYPE = "application/problem+json"
HTML = "text/html"
NOWHERE = "*"
"""In `app.state.problem_shapes`: the shape for people, at a path that is no part's own."""
FOR_PROGRAMS = ("api", "webhooks", "livez", "readyz", "metrics", "openapi.json")
RETRY_AFTER_S = 5
_HIDDEN = "an unforeseen error; it is in the log"
_log = log.get(__name__)


class WrongParameter(BaseModel):
    """One parameter that is wrong, and why."""

    name: str
    reason: str


class Problem(BaseModel):
    """An error, as RFC 9457 words it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field(description="the path that was asked for")
    errors: list[WrongParameter] | None = Field(default=None, description="each wrong parameter")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to be said of an error, before it has a shape."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    wrong: Sequence[WrongParameter] = ()


Shape = Callable[[Request, Fault], Response]

# Error, status, and what to say of it; None where the error's own text may be shown.
TABLE: tuple[tuple[type[errors.ServiceError], int, str | None], ...] = (
    (errors.NotKnown, 404, None),
    (errors.NoLongerKept, 410, None),
    (errors.BadRequest, 422, None),
    (errors.Conflicting, 409, None),
    (errors.Declined, 502, None),
    (errors.StorageRefused, 422, "the database refuses a value of this request"),
    (errors.StorageUnavailable, 503, "the database cannot answer now; ask again later"),
    (errors.SchemaError, 503, "the database schema is not the one this version needs"),
    (errors.CodatRateLimited, 503, "Codat's rate limit is reached; ask again later"),
    (errors.CodatRefused, 502, "Codat refused to answer"),
    (errors.CodatError, 502, "Codat cannot answer now; ask again later"),
)


def install(app: FastAPI) -> None:
    """Make every error of this application leave in its proper shape, and document it."""
    app.state.problem_shapes = {}
    app.add_exception_handler(errors.ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)
    amend(app, _document)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def amend(app: FastAPI, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what `/openapi.json` says, after all that changed it before."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        described = plain()
        change(described)
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _document(described: dict[str, Any]) -> None:
    known = described.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, WrongParameter):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        known[model.__name__] = schema


async def _service_error(request: Request, error: Exception) -> Response:
    for kind, status, detail in TABLE:
        if isinstance(error, kind):
            if status >= 500:
                _log.warning("a request failed", path=_path(request), reason=str(error))
            return _answer(request, _fault(error, status, detail))
    return await _unforeseen(request, error)


def _fault(error: errors.ServiceError, status: int, detail: str | None) -> Fault:
    wrong: tuple[WrongParameter, ...] = ()
    if isinstance(error, errors.BadRequest):
        wrong = (WrongParameter(name=error.name, reason=error.reason),)
    headers = {"Retry-After": str(_wait(error))} if status == 503 else {}
    return Fault(status, detail or str(error), headers, wrong)


def _wait(error: errors.ServiceError) -> int:
    asked = getattr(error, "retry_after", None)
    return max(1, int(asked.total_seconds())) if asked else RETRY_AFTER_S


async def _invalid(request: Request, error: Exception) -> Response:
    """A 422 that names each wrong parameter and repeats none of their values."""
    told = error.errors() if isinstance(error, RequestValidationError) else []
    wrong = [WrongParameter(name=_name(each["loc"]), reason=_reason(each)) for each in told]
    names = ", ".join(dict.fromkeys(each.name for each in wrong))
    return _answer(request, Fault(422, f"wrong parameters: {names}", wrong=wrong))


def _name(place: Sequence[Any]) -> str:
    """The parameter's own name; a place inside a list of values is still that parameter."""
    inside = [part for part in place[1:] if isinstance(part, str)]
    return ".".join(inside) or str(place[0])


def _reason(told: Mapping[str, Any]) -> str:
    if told["type"] == "extra_forbidden":
        return "is not a parameter of this call"
    return str(told["msg"]).removeprefix("Value error, ")


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return await _unforeseen(request, error)
    phrase = HTTPStatus(error.status_code).phrase
    detail = str(error.detail) if error.detail and error.detail != phrase else _usual(error)
    return _answer(request, Fault(error.status_code, detail, dict(error.headers or {})))


def _usual(error: HTTPException) -> str:
    usual = {404: "there is nothing at this path", 405: "this path does not take this method"}
    return usual.get(error.status_code, HTTPStatus(error.status_code).phrase.lower())


async def _unforeseen(request: Request, error: Exception) -> Response:
    _log.error("an unforeseen error", path=_path(request), kind=type(error).__name__)
    return _answer(request, Fault(500, _HIDDEN))


def _answer(request: Request, fault: Fault) -> Response:
    shapes: dict[str, Shape] = request.app.state.problem_shapes
    segments = [segment for segment in _path(request).split("/") if segment]
    usual = shapes[NOWHERE] if _is_lost(request, segments, fault) else problem
    return shapes.get(f"/{segments[0]}" if segments else "/", usual)(request, fault)


def _is_lost(request: Request, segments: Sequence[str], fault: Fault) -> bool:
    """Whether a person with a browser came to where nothing is, and pages can say so."""
    known = request.app.state.problem_shapes
    programs = segments[:1] and segments[0] in FOR_PROGRAMS
    return fault.status == 404 and NOWHERE in known and not programs and prefers(request, HTML)


def _path(request: Request) -> str:
    """The path as it came, also where no address can be made of an odd Host header."""
    return str(request.scope["path"])


def problem(request: Request, fault: Fault) -> Response:
    """The fault as a problem document."""
    told = Problem(
        title=HTTPStatus(fault.status).phrase,
        status=fault.status,
        detail=fault.detail,
        instance=quote(_path(request)),
        errors=list(fault.wrong) or None,
    )
    return JSONResponse(
        told.model_dump(exclude_none=True),
        fault.status,
        headers={**fault.headers, "Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )
