"""What all pages share: frame, headers, static files, and error pages.

Text becomes HTML only in templates, which always escape it.
"""

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import tzinfo
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from app.db.engine import Database
from app.db.queries import companies
from app.domain.causes.fingerprint import mask
from app.domain.causes.innermost import innermost_text
from app.domain.transactions import classify
from app.web.api.responses import ApiRoute
from app.web.api.serializers import Causes
from app.web.dependencies import Clock
from app.web.pages import labels, presenters
from app.web.pages.notices import clear_notice, read_notice
from app.web.pages.query_params import (
    describe_error,
    page_address,
    page_zone,
    path,
    prepare_query,
    without_empty_params,
)
from app.web.pages.sessions import SignedIn, page_of_form, session_of
from app.web.problems import Fault

FOLDER = Path(__file__).parent
ONE_YEAR_S = 31_536_000
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_VERSIONS = {
    file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    for file in (FOLDER / "static").iterdir()
}
"""The version of each static file, which changes with its content."""

_STATIC_FILES = StaticFiles(directory=FOLDER / "static")
_TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"thousands": "{:,}".format}
_TEMPLATES.globals |= {
    "labels": labels,
    "counted": labels.counted,
    "presenters": presenters,
    "classify": classify,
    "innermost_text": innermost_text,
    "mask": mask,
}
static_router = APIRouter(include_in_schema=False)


@pass_context
def _path(context: Context, *segments: str, **params: str | None) -> str:
    """A path of these segments under ROOT_PATH, with the parameters that have a value."""
    return str(context["root_path"]) + path(*segments, **params)


@pass_context
def _asset(context: Context, name: str) -> str:
    """The address of a static file."""
    return _path(context, "static", name, v=_VERSIONS[name])


_TEMPLATES.globals |= {"path": _path, "asset": _asset}


@static_router.get("/static/{name}")
async def get_static(request: Request, name: str) -> Response:
    """A static file. Browsers may cache it for a year if the address names its version."""
    response = await _STATIC_FILES.get_response(name, request.scope)
    is_versioned = request.query_params.get("v") == _VERSIONS.get(name)
    caching = f"public, max-age={ONE_YEAR_S}, immutable" if is_versioned else "no-cache"
    response.headers.update({"Cache-Control": caching, "X-Content-Type-Options": "nosniff"})
    return response


class PageRoute(ApiRoute):
    """A route whose query is that of a page, and whose responses carry the headers of a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the headers added to its response."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            if clean := without_empty_params(request):
                return _with_page_headers(RedirectResponse(clean, 303))
            prepare_query(request)
            request = Request(request.scope, request.receive)
            return _with_page_headers(await handle(request))

        return handle_page


def _with_page_headers(response: Response) -> Response:
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def render_page(
    request: Request,
    template: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """Render a template as a page. All templates get the variables below besides `context`."""
    session, notice = session_of(request), read_notice(request)
    html = _TEMPLATES.get_template(template).render(
        address=page_address(request),
        root_path=request.scope.get("root_path", ""),
        session=session,
        notice=notice,
        now=request.app.state.clock(),
        zone=page_zone(request),
        version=request.app.version,
        **context,
    )
    response = HTMLResponse(html, status, headers)
    if notice and session:
        clear_notice(response)
    return response


@dataclass(frozen=True, slots=True)
class Page:
    """A page for a signed-in user: its request, database, and clock, and how it is rendered."""

    request: Request
    database: Database
    clock: Clock

    @property
    def zone(self) -> tzinfo:
        """The time zone of the days in the address; UTC if it names none."""
        return page_zone(self.request)

    @property
    def causes(self) -> Causes:
        """The definitions of the causes, by key."""
        return self.database.classifier.causes

    def company_names(self, *company_ids: str | None) -> dict[str, str]:
        """The names of those companies that have one."""
        with self.database.reading() as connection:
            return companies.company_names(connection, {key for key in company_ids if key})

    def render(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """Render a template that also shows whether the service is up to date."""
        service = presenters.read_service_status(self.database, self.clock())
        return render_page(self.request, template, status, service=service, **context)


async def _page(request: Request, _session: SignedIn) -> Page:
    return Page(request, request.app.state.database, request.app.state.clock)


SignedInPage = Annotated[Page, Depends(_page)]


def page_problem(request: Request, fault: Fault) -> Response:
    """Renders an error as a page, or as the redirect of the fault."""
    headers = dict(fault.headers)
    if 300 <= fault.status < 400:
        return _with_page_headers(Response(status_code=fault.status, headers=headers))
    title, text = _title_and_text(request, fault)
    wrong = [describe_error(parameter.name, parameter.reason) for parameter in fault.wrong]
    context = {"title": title, "text": text, "wrong": wrong, "fault": fault}
    if fault.status == 403:
        context["back"] = page_of_form(request)
    page = render_page(request, "problem.html", fault.status, headers, **context)
    return _with_page_headers(page)


_NOT_FOUND_TITLES = {
    "Not found": "Page not found",
    "Transaction not found": "Expense not found",
    "Webhook event not found": "Webhook not found",
}


def _title_and_text(request: Request, fault: Fault) -> tuple[str, str]:
    """The heading of an error page, and the sentences below it."""
    detail = fault.detail
    match fault.status:
        case 403:
            return "Form expired", f"Reload the page and try again. {detail}"
        case 404 if detail.lower().endswith("not found"):
            hint = "Try searching for the ID. Very new syncs may not have arrived yet."
            return _NOT_FOUND_TITLES.get(detail, detail), hint
        case 404:
            return "Not found", f"{detail.rstrip('.')}."
        case 409:
            is_retry = request.url.path.endswith("/retry")
            return "Nothing to retry" if is_retry else "Not possible now", detail
        case 422:
            is_dates = fault.wrong and all(wrong.name in ("from", "to") for wrong in fault.wrong)
            return "Check the dates" if is_dates else "Check the address", detail
        case 500 | 502 | 503:
            return _server_error(fault)
        case _:
            return HTTPStatus(fault.status).phrase, detail


def _server_error(fault: Fault) -> tuple[str, str]:
    """The heading and the first sentence of the detail, with a hint that is always the same."""
    hint = "Try again in a few seconds. No data is lost."
    if fault.status == 500:
        return "Unexpected error", "It has been logged. No data is lost."
    if fault.status == 503:
        return "Temporarily unavailable", f"{fault.detail.partition('. ')[0].rstrip('.')}. {hint}"
    if fault.detail.startswith("Codat is unavailable"):
        return "Codat is not responding", hint
    return "Codat refused the request", fault.detail
