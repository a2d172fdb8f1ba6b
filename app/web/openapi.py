"""`/openapi.json` with real examples, and `/docs`: Swagger UI with files served from here.

FastAPI's own page loads its files from other hosts, which a network without internet access cannot
reach. Its `/openapi.json` is generated for each request; this one, which needs no key, is
generated once.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel, to_snake
from starlette.staticfiles import StaticFiles

from app.domain.webhook_loss import WEBHOOK_PATH
from app.web.openapi_texts import TAGS, TEXTS
from app.web.problems import MEDIA_TYPE, Problem, extend_openapi

EXAMPLES = Path(__file__).parent / "openapi_examples.json"
"""Responses of the application by operation id. `tests/web/test_openapi.py` makes and checks it."""
SWAGGER_PACKAGE = ("fastapi_swagger", "resources")
SWAGGER_FILES = "docs-files"

_WEBHOOK_RESPONSES = {
    204: "Verified and committed. Also for duplicates, unknown types and bodies that are not JSON.",
    401: "The signature is missing or invalid. The body is the same for every cause.",
    405: "The method is neither POST nor PUT.",
    408: "The body arrived too slowly.",
    413: "The body is larger than `MAX_BODY_BYTES`.",
    415: "The body is compressed (`Content-Encoding`).",
    503: "The event cannot be stored now. Send it again.",
}
_WEBHOOK_HEADERS = {
    "webhook-id": "The message ID, the same for every attempt. `svix-id` in the older family.",
    "webhook-timestamp": "The time of this attempt in Unix seconds, at most 5 minutes off.",
    "webhook-signature": "`v1,` and the signature in base64. Several are separated by spaces.",
}
_WEBHOOK_BODY = {
    "title": "WebhookBody",
    "type": "object",
    "additionalProperties": True,
    "description": "Any of Codat's events, in the older or the newer form. Stored unchanged.",
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

router = APIRouter(include_in_schema=False)


def operation_id(route: APIRoute) -> str:
    """The name of the call in generated clients: `list_syncs` → `listSyncs`."""
    return to_camel(route.name)


@router.get("/docs")
async def get_docs(request: Request) -> HTMLResponse:
    """Swagger UI. Its addresses are relative, because a proxy may serve it under another path."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url=f"{SWAGGER_FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{SWAGGER_FILES}/swagger-ui.css",
        swagger_favicon_url=f"{SWAGGER_FILES}/favicon-32x32.png",
    )


def install(app: FastAPI) -> None:
    """Serve the description and the page. All other routes must have been added."""
    extend_openapi(app, _add_webhook_endpoint)
    extend_openapi(app, _add_examples)
    extend_openapi(app, _describe)

    @cache
    def description(root_path: str) -> bytes:
        described = app.openapi()
        if root_path:
            described["servers"] = [{"url": root_path}]
        return json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()

    async def get_openapi(request: Request) -> Response:
        return Response(
            description(request.scope.get("root_path", "")), media_type="application/json"
        )

    app.add_route("/openapi.json", get_openapi, include_in_schema=False)
    app.include_router(router)
    app.mount(f"/{SWAGGER_FILES}", StaticFiles(packages=[SWAGGER_PACKAGE]))


def _add_webhook_endpoint(description: dict[str, Any]) -> None:
    """Describe the endpoint, which stands in front of FastAPI and is no route of it."""
    members = Problem.model_json_schema()["properties"]
    names = ("type", "title", "status")
    description["components"]["schemas"] |= {
        "WebhookProblem": {
            "title": "WebhookProblem",
            "description": "Why a delivery is not stored.",
            "type": "object",
            "required": list(names),
            "properties": {name: members[name] for name in names},
        },
        "WebhookBody": _WEBHOOK_BODY,
    }
    calls = {method: _webhook_call(method) for method in ("post", "put")}
    description["paths"].setdefault(WEBHOOK_PATH, calls)


def _webhook_call(method: str) -> dict[str, Any]:
    responses: dict[str, dict[str, Any]] = {}
    for status, text in _WEBHOOK_RESPONSES.items():
        responses[str(status)] = {"description": text}
        if status >= 400:
            responses[str(status)]["content"] = {
                MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/WebhookProblem"}}
            }
    responses["405"]["headers"] = {"Allow": {"schema": {"type": "string"}}}
    responses["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return {
        "tags": ["Webhooks"],
        "summary": "Deliver a webhook event",
        "description": "Codat sends its events here, with or without a trailing slash. The "
        "signature over the exact bytes of the body authenticates the request; it needs no API "
        "key. The response is sent after the event has been committed.",
        "operationId": f"deliverWebhook{method.capitalize()}",
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in _WEBHOOK_HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/WebhookBody"}}
            },
        },
        "responses": responses,
    }


def _add_examples(description: dict[str, Any]) -> None:
    examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    for calls in description["paths"].values():
        for call in calls.values():
            example = examples.get(call["operationId"])
            for status, response in call["responses"].items():
                content = response.get("content", {}).get("application/json")
                if example is not None and content and status.startswith("2"):
                    content["example"] = example
    description["components"]["schemas"]["Problem"]["examples"] = [examples["problem"]]


def _describe(description: dict[str, Any]) -> None:
    """Add what is the same everywhere: tags, and the texts of fields and parameters."""
    description["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    for schema in description["components"]["schemas"].values():
        for name, member in schema.get("properties", {}).items():
            if "description" not in member:
                member["description"] = TEXTS[to_snake(name).strip("_")]
    for calls in description["paths"].values():
        for call in calls.values():
            for parameter in call.get("parameters", []):
                if "description" not in parameter:
                    parameter["description"] = TEXTS[to_snake(parameter["name"])]
                parameter["schema"].pop("description", None)
                _drop_null(parameter["schema"])


def _drop_null(schema: dict[str, Any]) -> None:
    """A parameter is left out, never null: generated clients need not offer that."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]
