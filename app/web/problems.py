"""Error responses: one table from the service's errors to HTTP, one format for all of them.

The format is RFC 9457's `application/problem+json`. A part of the service with another format (the
Codat-compatible API, the pages) registers it for its path in `app.state.problem_shapes`. The texts
of the database and of Codat are logged and never returned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from app import errors, logging
from app.web.api.responses import prefers

MEDIA_TYPE = "application/problem+json"
HTML = "text/html"
UNKNOWN_PATH = "*"
"""The key in `app.state.problem_shapes` for people's requests to a path that does not exist."""
PROGRAM_PATHS = ("api", "webhooks", "livez", "readyz", "metrics", "openapi.json")
RETRY_AFTER_S = 5
_DEFAULT_DETAILS = {404: "Not found", 405: "Method not allowed"}
_log = logging.get(__name__)


class InvalidParameter(BaseModel):
    """A parameter that is invalid, and the reason."""

    name: str
    reason: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path of the request.")
    errors: list[InvalidParameter] | None = Field(
        default=None, description="Each invalid parameter."
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """The content of an error response, in no particular format."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    wrong: Sequence[InvalidParameter] = ()


_UNEXPECTED = Fault(500, "Unexpected error. It has been logged.")
Shape = Callable[[Request, Fault], Response]

# Error, status, detail. Without a detail, the error's own text is returned.
TABLE: tuple[tuple[type[errors.ServiceError], int, str | None], ...] = (
    (errors.NotFound, 404, None),
    (errors.Gone, 410, None),
    (errors.BadRequest, 422, None),
    (errors.Conflict, 409, None),
    (errors.UpstreamRefused, 502, None),
    (errors.DatabaseRejected, 422, "The database cannot store a value of this request."),
    (errors.DatabaseUnavailable, 503, "The database is unavailable. Try again later."),
    (errors.SchemaError, 503, "The database schema does not match this version."),
    (errors.CodatRateLimited, 503, "Codat's rate limit is reached. Try again later."),
    (errors.CodatRefused, 502, "Codat refused the request."),
    (errors.CodatError, 502, "Codat is unavailable. Try again later."),
)


def install(app: FastAPI) -> None:
    """Register the handlers of all errors, and describe their format in OpenAPI."""
    app.state.problem_shapes = {}
    for kind in (errors.ServiceError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _handle)
    extend_openapi(app, _add_schemas)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        if status >= 400
        else {"description": "Not changed since the ETag in `If-None-Match`."}
        for status in statuses
    }


def extend_openapi(app: FastAPI, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply a change to the OpenAPI description, after the earlier ones."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        description = generate()
        change(description)
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _add_schemas(description: dict[str, Any]) -> None:
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    for model in (Problem, InvalidParameter):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own format of a 422
        schemas.pop(unused, None)


async def _handle(request: Request, error: Exception) -> Response:
    fault = _to_fault(error)
    if fault.status == HTTPStatus.METHOD_NOT_ALLOWED:
        fault = replace(fault, headers={"Allow": ", ".join(_allowed_methods(request))})
    if fault is _UNEXPECTED:
        _log.error("unexpected error", path=_path(request), kind=type(error).__name__)
    elif isinstance(error, errors.ServiceError) and fault.status >= 500:
        _log.warning("request failed", path=_path(request), reason=str(error))
    return _respond(request, fault)


def _to_fault(error: Exception) -> Fault:
    if isinstance(error, RequestValidationError):
        # names each invalid parameter and repeats none of their values
        wrong = [
            InvalidParameter(name=_parameter_name(detail["loc"]), reason=_reason(detail))
            for detail in error.errors()
        ]
        names = ", ".join(dict.fromkeys(parameter.name for parameter in wrong))
        return Fault(422, f"Invalid parameters: {names}", wrong=wrong)
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        detail = str(error.detail or phrase)
        if detail == phrase:
            detail = _DEFAULT_DETAILS.get(error.status_code, phrase)
        return Fault(error.status_code, detail, dict(error.headers or {}))
    for kind, status, text in TABLE:
        if isinstance(error, kind):
            headers = {}
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                wait = getattr(error, "retry_after", None)
                seconds = max(1, int(wait.total_seconds())) if wait else RETRY_AFTER_S
                headers["Retry-After"] = str(seconds)
            wrong = []
            if isinstance(error, errors.BadRequest):
                wrong = [InvalidParameter(name=error.name, reason=error.reason)]
            return Fault(status, text or str(error), headers, wrong)
    return _UNEXPECTED


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes of this path: Starlette names those of the first one only."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    allowed = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ] or ["GET"]  # static files are mounted
    return [*allowed, "HEAD"] if "GET" in allowed else allowed


def _parameter_name(location: Sequence[Any]) -> str:
    """The name of a parameter; an error in one of its values is an error of the parameter."""
    names = [part for part in location[1:] if isinstance(part, str)]
    return ".".join(names) or str(location[0])


def _reason(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":
        return "is not a parameter of this call"
    return str(detail["msg"]).removeprefix("Value error, ")


def _respond(request: Request, fault: Fault) -> Response:
    shapes: dict[str, Shape] = request.app.state.problem_shapes
    path = _path(request).removeprefix(request.scope.get("root_path", ""))
    segments = [segment for segment in path.split("/") if segment]
    default: Shape = problem
    is_for_programs = segments[:1] and segments[0] in PROGRAM_PATHS
    if fault.status == HTTPStatus.NOT_FOUND and not is_for_programs and prefers(request, HTML):
        default = shapes.get(UNKNOWN_PATH, problem)
    return shapes.get(f"/{segments[0]}" if segments else "/", default)(request, fault)


def _path(request: Request) -> str:
    """The path as it was sent; `request.url` fails for a malformed Host header."""
    return str(request.scope["path"])


def problem(request: Request, fault: Fault) -> Response:
    """The fault as a problem document."""
    document = Problem(
        title=HTTPStatus(fault.status).phrase,
        status=fault.status,
        detail=fault.detail,
        instance=quote(_path(request)),
        errors=list(fault.wrong) or None,
    )
    return JSONResponse(
        document.model_dump(exclude_none=True),
        fault.status,
        headers={**fault.headers, "Cache-Control": "no-store"},
        media_type=MEDIA_TYPE,
    )
