"""What every page has: its frame, its headers, its files, and how an error looks on one.

Text becomes HTML in templates only, and there it is always escaped.
"""

import hashlib
import mimetypes
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.domain.status_codes import STATUS_TEXTS, status_text
from app.web.api.retry import is_possible
from app.web.pages import labels as words
from app.web.pages import presenters as doubt
from app.web.pages.errors import allowed
from app.web.pages.query_params import here, path, segment
from app.web.pages.sessions import session_of
from app.web.path_params import IdRoute
from app.web.problems import Fault

PLACE = Path(__file__).parent
A_YEAR_S = 31_536_000
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
TITLES = {
    403: "That was not allowed",
    404: "Nothing is known here by this name",
    409: "There are two of these",
    413: "That was too much",
    422: "Something in the address is not right",
    500: "Something went wrong here",
    502: "Codat does not answer this",
    503: "This cannot be answered now",
}


class PageRoute(IdRoute):
    """A route whose answers all carry a page's headers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As any route, and then the headers."""
        answer = super().get_route_handler()

        async def secured(request: Request) -> Response:
            return _secured(await answer(request))

        return secured


def _secured(response: Response) -> Response:
    response.headers.update(SECURITY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of ours that pages need; `version` changes with its content."""

    body: bytes
    media_type: str
    version: str


def read_assets(folder: Path = PLACE / "static") -> dict[str, Asset]:
    """Every file of the folder by its name."""
    return {file.name: _asset(file) for file in sorted(folder.iterdir()) if file.is_file()}


def _asset(file: Path) -> Asset:
    body = file.read_bytes()
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return Asset(body, kind, hashlib.sha256(body).hexdigest()[:12])


def environment(assets: dict[str, Asset]) -> Environment:
    """The templates, with the words and addresses they use."""
    made = Environment(
        loader=FileSystemLoader(PLACE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "moment": words.moment,
        "brief": words.brief,
        "segment": segment,
        "grouped": "{:,}".format,
    }
    made.globals |= {
        "words": words,
        "allowed": allowed,
        "doubt": doubt,
        "path": path,
        "asset": lambda name: f"/static/{name}?v={assets[name].version}",
        "status_text": status_text,
        "STATUS_TEXTS": STATUS_TEXTS,
    }
    return made


def page(
    request: Request,
    name: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **told: Any,
) -> HTMLResponse:
    """A page from its template, for who asks."""
    templates: Environment = request.app.state.page_templates
    html = templates.get_template(name).render(
        here=here(request),
        session=session_of(request),
        now=request.app.state.clock(),
        causes_known=request.app.state.database.rules.causes,
        can_retry=is_possible(request.app.state.settings),
        **told,
    )
    return HTMLResponse(html, status, {"Cache-Control": "no-store", **(headers or {})})


def page_problem(request: Request, fault: Fault) -> Response:
    """The fault as a page a person can read; a fault that says where to go instead, goes there."""
    if 300 <= fault.status < 400:
        return _secured(Response(status_code=fault.status, headers=dict(fault.headers)))
    phrase = HTTPStatus(fault.status).phrase
    title = TITLES.get(fault.status, phrase)
    if fault.status == 409 and request.method == "POST":
        title = "That cannot be done now"
    answer = page(
        request, "problem.html", fault.status, dict(fault.headers), title=title, fault=fault
    )
    return _secured(answer)


static = APIRouter(include_in_schema=False)


@static.get("/static/{name}")
async def get_static(request: Request, name: str) -> Response:
    """A file of ours; kept for a year when the address names its version."""
    assets: dict[str, Asset] = request.app.state.page_assets
    if name not in assets:
        raise HTTPException(404)
    asset = assets[name]
    tag = f'"{asset.version}"'
    keep = request.query_params.get("v") == asset.version
    headers = {
        "ETag": tag,
        "Cache-Control": f"public, max-age={A_YEAR_S}, immutable" if keep else "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)
