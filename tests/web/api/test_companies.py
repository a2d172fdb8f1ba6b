"""Companies, and the calls that wait for Codat."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import errors
from tests.web.store import Store, after

V1 = "/api/v1/companies"
D1, D2 = "fd4cc60e-8666-4443-8fad-12c56d7420ee", "0498e921-9b53-4396-a412-4f2f5983b0a2"


def test_a_company_has_totals_and_its_newest_sync(store: Store, client: TestClient) -> None:
    store.company("c1", "Toft stores", connection_state="Linked")
    store.failed()
    company = client.get(f"{V1}/c1").json()
    assert company["syncs"] == {
        "total": 1, "in_progress": 0, "all_written": 0, "nothing_to_write": 0,
        "partly_failed": 0, "failed": 1, "unknown": 0,
    }  # fmt: skip
    assert (company["open_failures"], company["connection_state"]) == (1, "Linked")
    assert company["last_sync"]["sync_id"] == "s1"
    assert client.get(V1).json() == {"items": [company], "next": None}
    assert client.get(f"{V1}?q=TOFT").json()["items"] == [company]
    assert client.get(f"{V1}?q=c2").json()["items"] == []
    store.completed("s2", at=after(days=-1))
    assert client.get(f"{V1}/c1/syncs/last-successful").json()["sync_id"] == "s2"
    assert client.get(f"{V1}/c1/syncs/latest").json()["sync_id"] == "s1"


def test_a_company_that_cannot_sync_says_why_and_since_when(
    store: Store, client: TestClient
) -> None:
    """These come first, those that began last before the others; then all others by name."""
    for name in ("Arbor", "Birch", "Cedar"):
        store.company(name[0].lower(), name)
    store.company("d", None)
    store.failed("s1", "c", code=4260, rows=(), at=after(hours=1))
    store.failed("s2", "c", code=4040, rows=None, at=after(hours=2))
    store.failed("s3", "d", code=4260, rows=(), at=after(hours=3))
    store.failed("s4", "b")
    pages: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = client.get(V1, params={"limit": 1, **cursor}).json()
        pages += answer["items"]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert [(company["company_id"], company["state"]) for company in pages] == [
        ("d", "cannot_sync"),
        ("c", "cannot_sync"),
        ("a", "nothing_open"),
        ("b", "open_failures"),
    ]
    cannot_sync = pages[1]["cannot_sync"]
    assert (cannot_sync["since"], cannot_sync["sync_id"]) == ("2026-01-01T10:00:00Z", "s2")
    assert cannot_sync["cause"]["key"] == "disconnected"
    assert pages[1]["open_failures"] == 0
    assert [pages[0]["cannot_sync"]["since"], pages[2]["cannot_sync"]] == [
        "2026-01-01T12:00:00Z",
        None,
    ]
    only = client.get(V1, params={"cannot_sync": "true"}).json()["items"]
    assert only == pages[:2]
    assert client.get(V1, params={"cannot_sync": "false"}).json()["items"] == pages[2:]
    assert client.get(V1, params={"q": "cedar"}).json()["items"] == pages[1:2]


def test_a_sync_is_started_with_each_dataset_once(app: FastAPI, client: TestClient) -> None:
    answer = client.post(f"{V1}/c1/syncs", json={"dataset_ids": [D1, D1.upper(), D2]})
    assert (answer.status_code, answer.json()) == (202, {"sync_id": "sync/2"})
    assert answer.headers["location"] == "/api/v1/syncs/sync%2F2"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "dataset_ids"),
        ({"dataset_ids": []}, "dataset_ids"),
        ({"dataset_ids": None}, "dataset_ids"),
        ({"dataset_ids": "x"}, "dataset_ids"),
        ({"dataset_ids": [D1, "not-a-uuid"]}, "dataset_ids"),
        ({"dataset_ids": [D1] * 501}, "dataset_ids"),
        ({"dataset_ids": [D1], "colour": "red"}, "colour"),
        ([], "body"),
    ],
)
def test_an_invalid_body_is_422_and_names_the_field(
    app: FastAPI, client: TestClient, body: Any, name: str
) -> None:
    """Codat is not called."""
    answer = client.post(f"{V1}/c1/syncs", json=body)
    assert answer.status_code == 422
    assert name in [error["name"] for error in answer.json()["errors"]]
    assert app.state.codat.calls == 0


@pytest.mark.parametrize("path", ["syncs", "config"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotFound("Company not found"), 404),
        (errors.Conflict("A sync is in progress."), 409),
        (errors.BadRequest("dataset_ids", "Codat does not accept them"), 422),
        (errors.UpstreamRefused("our key is wrong"), 502),
        (errors.CodatRefused("canary", status=418), 502),
        (errors.CodatUnavailable("canary"), 502),
        (errors.CodatRateLimited("canary", retry_after=timedelta(seconds=90)), 503),
    ],
)
def test_errors_of_codat_are_problems_without_its_texts(
    app: FastAPI, client: TestClient, path: str, error: errors.ServiceError, status: int
) -> None:
    app.state.codat.error = error
    if path == "syncs":
        answer = client.post(f"{V1}/c1/syncs", json={"dataset_ids": [D1]})
    else:
        answer = client.get(f"{V1}/c1/config")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "canary" not in answer.text
    assert answer.headers.get("retry-after") == ("90" if status == 503 else None)


def test_a_configuration_is_returned_and_not_cached(app: FastAPI, client: TestClient) -> None:
    """Or downloaded under a safe name, whatever the company's id contains."""
    answer = client.get(f"{V1}/c1/config")
    assert answer.json() == app.state.codat.config
    assert answer.headers["cache-control"] == "private, no-store"
    assert "content-disposition" not in answer.headers
    app.state.codat.config = {"name": "\ud800 Bäckerei"}
    hostile = client.get(f"{V1}/a%22%0d%0a%2F..%2Fb/config?download=true")
    assert "Bäckerei" in hostile.text
    disposition = hostile.headers["content-disposition"]
    assert disposition == 'attachment; filename="codat-config-a_.._b.json"'
