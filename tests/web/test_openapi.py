"""`/openapi.json` describes the whole service, with examples that are real responses.

After a change of a response, make the examples again and look at the difference:

    UPDATE_EXAMPLES=1 python -m pytest tests/web/test_openapi.py
"""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.bootstrap import create_app
from app.db import alerts, workers
from app.db.tables import jobs
from app.domain.models import Transaction
from app.domain.webhook_loss import Finding
from app.settings import load_settings
from app.web import openapi
from app.web.openapi import EXAMPLES
from tests.conftest import NewDatabase
from tests.factories import deliver
from tests.processes import API_KEY, SECRET
from tests.web.store import KEY, NOW, T0, Store, after, completed_row

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
RANDOM = {"retrySync": {"message_id": "msg_9f3c1c0d4c0b4c6fa4a9e4a0b7d6c2e1"}}
QUERIES = {"listSyncs": "?limit=1", "getEvent": "?body=true", "listEvents": "?limit=1"}
WRITES = ("replayEvent", "refreshSync", "retrySync", "startSync")


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
def operations(service: FastAPI) -> list[tuple[str, dict[str, Any]]]:
    """The path and the description of every call."""
    description = call(service, "GET", "/openapi.json").json()
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
    for name, method, path in sorted(calls, key=lambda found: (found[0] in WRITES, found[0])):
        url = path.format(**ids) + QUERIES.get(name, "")
        body = {"dataset_ids": [FIRST]} if name == "startSync" else None
        answer = client.request(method, url, json=body)
        assert answer.is_success, (url, answer.text)
        if answer.headers["content-type"] == "application/json":
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
        assert set(operation["responses"]) == {"204", "401", "405", "408", "413", "503"}
        headers = [parameter["name"] for parameter in operation["parameters"]]
        assert headers == ["webhook-id", "webhook-timestamp", "webhook-signature"]
        assert operation["security"] == []
        assert "content" not in operation["responses"]["204"]


def test_calls_have_one_tag_and_names_for_methods(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    """Generated clients use the names."""
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
    described = service.openapi()["paths"][WEBHOOKS]["post"]["responses"][str(status)]
    answer = call(service, method, WEBHOOKS, body)
    assert answer.status_code == status
    assert list(described["content"]) == [answer.headers["content-type"]]
    schema = described["content"]["application/problem+json"]["schema"]
    assert set(answer.json()) == set(schema["required"])
    assert set(described.get("headers", {})) <= {name.title() for name in answer.headers}
