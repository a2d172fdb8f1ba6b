"""`/openapi.json` describes the whole service, with examples that are real responses.

After a change of a response, make the examples again and look at the difference:

    UPDATE_EXAMPLES=1 python -m pytest tests/web/test_openapi.py
"""

import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic.alias_generators import to_snake

from app.bootstrap import create_app
from app.db import alerts, workers
from app.db.engine import Database
from app.db.tables import jobs, outgoing_messages
from app.domain.models import Transaction
from app.domain.webhook_loss import Finding
from app.settings import load_settings
from app.web import openapi
from app.web.openapi import EXAMPLES
from app.web.openapi_texts import TAGS, TEXTS
from tests.conftest import NewDatabase
from tests.factories import deliver
from tests.processes import API_KEY, SECRET
from tests.web.store import BEARER, KEY, NOW, T0, Store, after, completed_row

WEBHOOKS = "/webhooks/codat"
COMPANY = "0498e921-9b53-4396-a412-4f2f5983b0a2"
SYNC = "6fb40d5e-b13e-11ed-afa1-0242ac120002"
FIRST, SECOND = "fd4cc60e-8666-4443-8fad-12c56d7420ee", "b888f774-3e7f-4135-a18c-6b985523c4bc"
CODATS_CONFIG = {
    "companyId": COMPANY,
    "configuration": {"bankAccount": {"id": "32"}, "supplier": {"id": "29"}},
    "enabled": True,
    "configured": True,
}
LOCKED = (
    "The document date cannot be before the end of year lock date, currently set at 31-Jul-2025"
)
# Values that differ between runs
RANDOM = {
    "retrySync": {"message_id": "msg_9f3c1c0d4c0b4c6fa4a9e4a0b7d6c2e1"},
    "retryMany": {"retry_id": "retry_1b7a2f6d5c3e4d0f9a8b7c6d5e4f3a2b"},
}
QUERIES = {
    "listSyncs": "?limit=1", "getEvent": "?body=true", "listEvents": "?limit=1",
    "previewRetry": "?cause=period_closed",
}  # fmt: skip
BODIES = {
    "startSync": {"dataset_ids": [FIRST]},
    "retryMany": {"cause": "period_closed"},
    "putAlertNote": {"text": "The endpoint is enabled again.", "is_handled": True},
    "putCauseNote": {"text": "The customer reopens the period.", "is_handled": True},
}
WRITES = (
    "retrySync", "retryMany", "getRetry", "replayEvent", "refreshSync", "startSync",
    "putAlertNote", "putCauseNote",
)  # fmt: skip
"""What is called last, in this order."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture(scope="module")
def service(new_database: NewDatabase) -> Iterator[FastAPI]:
    """The whole application as it is served, not started."""
    with new_database("sqlite") as url:
        app = create_app(
            load_settings(
                database_url=url,
                codat_webhook_secrets=SECRET,
                codat_api_key="codat-key",
                api_keys=API_KEY,
                max_body_bytes=1024,
            )
        )
        yield app
        app.state.database.close()
        asyncio.run(app.state.codat.close())


@pytest.fixture(scope="module")
def description(service: FastAPI) -> dict[str, Any]:
    """The whole description."""
    described: dict[str, Any] = call(service, "GET", "/openapi.json").json()
    return described


@pytest.fixture(scope="module")
def operations(description: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The path and the description of every call."""
    return [
        (path, operation)
        for path, methods in description["paths"].items()
        for operation in methods.values()
    ]


def call(service: FastAPI, method: str, path: str, body: bytes = b"") -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(service)
        async with httpx.AsyncClient(transport=transport, base_url="http://us") as client:
            return await client.request(method, path, content=body)

    return asyncio.run(send())


def fill(store: Store) -> None:
    """A company with a sync that failed partly after one that succeeded, and an alert."""
    store.company(COMPANY, "Toft stores", platform="Xero", connection_state="Linked")
    store.completed(
        "1c4a0d3e-b13e-11ed-afa1-0242ac120002", COMPANY, at=after(days=-1),
        rows=(completed_row(SECOND),), updated_at=after(days=-1),
    )  # fmt: skip
    rows = (
        Transaction(FIRST, "PushError", LOCKED, "expenses"),
        Transaction(SECOND, "Completed", None, "expenses"),
    )
    store.failed(
        SYNC, COMPANY, rows=rows, data_pushed=True, status="Failed",
        error_message="Error writing data", failure_stage="Pushing", failed_received_at=T0,
        updated_at=after(minutes=1),
    )  # fmt: skip
    deliver(store.database, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", sync_id=SYNC, company_id=COMPANY)
    with store.database.writing() as connection:
        finding = Finding("endpoint_disabled", "", "Codat has disabled the webhook endpoint.")
        alerts.sync_alerts(connection, {"endpoint_disabled"}, [finding], T0)
        workers.beat(connection, "worker", NOW)
        connection.execute(jobs.update().values(state="done", attempts=1))


def forget_messages(database: Database) -> None:
    """So that the next retry is not the same as the last one."""
    with database.writing() as connection:
        connection.execute(jobs.delete().where(jobs.c.kind == "message"))
        connection.execute(outgoing_messages.delete())


def responses(app: FastAPI, client: TestClient) -> dict[str, Any]:
    """The response of every call that answers with JSON, by operation id; first those that read."""
    app.state.codat.config = CODATS_CONFIG
    app.state.codat.sync_id = "2d3c7b54-b13f-11ed-afa1-0242ac120002"
    app.state.settings = load_settings(
        api_keys=KEY, retry_webhook_url="https://you.example/retry", notify_signing_secret=SECRET
    )
    ids = {
        "company_id": COMPANY, "sync_id": SYNC, "transaction_id": FIRST, "key": "period_closed",
        "message_id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
    }  # fmt: skip
    calls = [
        (operation["operationId"], method, path)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    found: dict[str, Any] = {}
    order = {name: place for place, name in enumerate(WRITES)}
    for name, method, path in sorted(calls, key=lambda call: (order.get(call[0], -1), call[0])):
        url = path.format(**ids) + QUERIES.get(name, "")
        answer = client.request(method, url, json=BODIES.get(name))
        assert answer.is_success, (url, answer.text)
        if name == "listAlerts":
            ids["alert_id"] = answer.json()["items"][0]["id"]
        if name == "retrySync":
            forget_messages(app.state.database)
        if name == "retryMany":
            ids["retry_id"] = answer.json()["retry_id"]
        if answer.headers.get("content-type") == "application/json":
            found[name] = answer.json() | RANDOM.get(name, {}) if name in RANDOM else answer.json()
    found["problem"] = client.get("/api/v1/syncs?limit=0&sort=size").json()
    return found


@pytest.mark.own_database
def test_examples_are_real_responses(app: FastAPI, store: Store, client: TestClient) -> None:
    fill(store)
    real = responses(app, client)
    if os.environ.get("UPDATE_EXAMPLES") == "1":
        EXAMPLES.write_text(json.dumps(real, indent=1, ensure_ascii=False) + "\n", "utf-8")
    stored = json.loads(EXAMPLES.read_text("utf-8"))
    for name, response in real.items():
        assert stored.get(name) == response, f"{name}: see the docstring of this module"
    assert set(stored) == set(real)


def test_every_json_response_has_an_example(operations: list[tuple[str, dict[str, Any]]]) -> None:
    for path, operation in operations:
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/json")
            assert not status.startswith("2") or not content or "example" in content, path


def test_the_webhook_endpoint_is_described_with_every_response(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    """Both methods, the three headers of the signature, no key."""
    described = [operation for path, operation in operations if path == WEBHOOKS]
    assert len(described) == 2
    for operation in described:
        assert set(operation["responses"]) == {"204", "401", "405", "408", "413", "415", "503"}
        headers = [parameter["name"] for parameter in operation["parameters"]]
        assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature"]
        assert operation["security"] == []
        assert "content" not in operation["responses"]["204"]


def test_calls_fields_and_parameters_are_described(
    description: dict[str, Any], operations: list[tuple[str, dict[str, Any]]]
) -> None:
    """`_describe` raises for a name without a text; here, that no text is left over."""
    assert {"Authentication", "Paging", "Errors", "Idempotency"} <= set(
        re.findall(r"\*\*(\w+)", description["info"]["description"])
    )
    for _, operation in operations:
        assert operation["summary"]
        assert operation["operationId"] in {"livez", "readyz"} or operation["description"]
    named = [
        *(item for schema in description["components"]["schemas"].values()
          for item in schema.get("properties", {}).items()),
        *((parameter["name"], parameter) for _, operation in operations
          for parameter in operation.get("parameters", [])),
    ]  # fmt: skip
    assert all(member["description"] for _, member in named)
    assert set(TEXTS) <= {to_snake(name).strip("_") for name, _ in named}


def test_calls_have_one_tag_and_names_for_methods(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    """Generated clients use the names."""
    assert {operation["tags"][0] for _, operation in operations} == set(TAGS)
    names = [operation["operationId"] for _, operation in operations]
    assert len(names) == len(set(names))
    assert {"listSyncs", "getCause", "codatGetSync", "readyz"} <= set(names)
    assert all(name.isalnum() for name in names)
    assert {len(operation["tags"]) for _, operation in operations} == {1}


def test_the_description_is_generated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may request it, as often as they like."""
    generated: list[dict[str, str]] = []

    def generate() -> dict[str, str]:
        generated.append({"openapi": "3.1.0"})
        return generated[-1]

    app = FastAPI(openapi_url=None)
    openapi.install(app)
    monkeypatch.setattr(app, "openapi", generate)
    answers = {call(app, "GET", "/openapi.json").content for _ in range(3)}
    assert (answers, len(generated)) == ({b'{"openapi":"3.1.0"}'}, 1)


@pytest.mark.parametrize(
    ("method", "body", "status"),
    [("POST", b"{}", 401), ("PUT", b"{}", 401), ("POST", b"x" * 2000, 413), ("GET", b"", 405)],
)
def test_the_webhook_endpoint_responds_as_described(
    service: FastAPI, method: str, body: bytes, status: int
) -> None:
    """Status, media type, members, headers."""
    description = service.openapi()
    described = description["paths"][WEBHOOKS]["post"]["responses"][str(status)]
    answer = call(service, method, WEBHOOKS, body)
    assert answer.status_code == status
    assert list(described["content"]) == [answer.headers["content-type"]]
    reference = described["content"]["application/problem+json"]["schema"]["$ref"]
    schema = description["components"]["schemas"][reference.rpartition("/")[2]]
    assert set(answer.json()) == set(schema["required"])
    assert set(described.get("headers", {})) <= {name.title() for name in answer.headers}


def test_a_generated_client_lists_ten_syncs(
    app: FastAPI,
    store: Store,
    description: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every schema is understood, and what it returns has types."""
    for number in range(12):
        store.failed(f"s{number:02}", rows=(completed_row(),), updated_at=after(minutes=number))
    document, package = tmp_path / "openapi.json", tmp_path / "receiver_client"
    document.write_text(json.dumps(description))
    (tmp_path / "config.yml").write_text("post_hooks: []")
    generated = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("openapi-python-client")), "generate"),
            *("--path", str(document), "--output-path", str(package), "--meta", "none"),
            *("--config", str(tmp_path / "config.yml"), "--fail-on-warning"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert generated.returncode == 0, generated.stdout + generated.stderr

    monkeypatch.syspath_prepend(tmp_path)
    list_syncs = importlib.import_module("receiver_client.api.syncs.list_syncs")
    names = importlib.import_module("receiver_client.models")
    made = importlib.import_module("receiver_client").AuthenticatedClient("http://us", KEY)
    made.set_async_httpx_client(
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://us", headers=BEARER)
    )
    wanted = {"state": [names.State.FAILED], "sort": names.Sort.UPDATED_AT_ASCENDING, "limit": 10}
    first = asyncio.run(list_syncs.asyncio(client=made, **wanted))
    rest = asyncio.run(list_syncs.asyncio(client=made, **wanted, cursor=first.next_))
    found = [*first.items, *rest.items]
    assert [len(first.items), rest.next_] == [10, None]
    assert [sync.sync_id for sync in found] == [f"s{number:02}" for number in range(12)]
    assert {(sync.outcome, sync.updated_at.tzinfo is None) for sync in found} == {
        (names.Outcome.FAILED, False)
    }
