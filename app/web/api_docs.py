"""`/openapi.json`, and `/docs`: Swagger UI for it, with its files served from here.

FastAPI's own page takes them from other people's hosts, which a network without a way out cannot
reach, and which would learn who reads it. Its `/openapi.json` is written anew for every question;
anybody may ask it, so ours is written once.
"""

import json
from functools import cache

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PACKAGE = ("fastapi_swagger", "resources")
FILES = "docs-files"

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def get_docs(request: Request) -> HTMLResponse:
    """The page. Its addresses are relative: a proxy may serve us under a path of its own."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{FILES}/swagger-ui.css",
        swagger_favicon_url=f"{FILES}/favicon-32x32.png",
    )


def install(app: FastAPI) -> None:
    """Serve the description, the page, and what it loads. All routes must be there by then."""

    @cache
    def described() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()

    async def get_openapi(_request: Request) -> Response:
        return Response(described(), media_type="application/json")

    app.add_route("/openapi.json", get_openapi, include_in_schema=False)
    app.include_router(router)
    app.mount(f"/{FILES}", StaticFiles(packages=[PACKAGE]))
