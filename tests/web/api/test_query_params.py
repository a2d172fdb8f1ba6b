"""Invalid requests: each parameter is named, none is an unexpected error."""

import base64
import json
from typing import Any

from fastapi.testclient import TestClient

from tests.web.store import Store

V1 = "/api/v1"
INVALID = [
    ("syncs?limit=0", "limit"), ("syncs?limit=201", "limit"), ("syncs?limit=x", "limit"),
    ("syncs?state=done", "state"), ("syncs?outcome=", "outcome"),
    ("syncs?status_code=two", "status_code"), ("syncs?status_code=99999999999", "status_code"),
    ("syncs?sort=size", "sort"), ("syncs?from=yesterday", "from"), ("syncs?to=2026-02-30", "to"),
    ("syncs?from=0001-01-01T00:00:00%2B14:00", "from"), ("syncs?to=9999-12-31", "to"),
    ("syncs?from=2026-02-01&to=2026-01-01", "to"), ("syncs?company_id=", "company_id"),
    ("syncs?company_id=a%00b", "company_id"), ("syncs?q=%00", "q"), ("syncs?q=%20", "q"),
    ("syncs?cursor=zzz", "cursor"), ("syncs?cursor=" + "W" * 5000, "cursor"),
    ("syncs?format=xml", "format"), ("syncs?colour=red", "colour"), ("syncs?page=2", "page"),
    ("syncs/s1?fields=all", "fields"), ("syncs/s1/transactions?failed=maybe", "failed"),
    ("syncs/s1/transactions?cursor=W10", "cursor"), ("syncs/s1/timeline?kind=fetch", "kind"),
    ("companies?sort=name", "sort"), ("companies/c1?limit=1", "limit"),
    ("companies/c1/config?download=perhaps", "download"), ("companies/c1/syncs/latest?x=1", "x"),
    ("push-errors?open=perhaps", "open"), ("stats?day=1", "day"),
    ("events?parse_status=good", "parse_status"), ("events/m1?body=please", "body"),
    ("syncs/a%00b", "sync_id"), ("events/%00", "message_id"), ("syncs/" + "x" * 1500, "sync_id"),
]  # fmt: skip
FORGED: list[tuple[str, list[Any]]] = [
    ("company_id", ["\ud800", "s1"]),
    ("company_id", ["a\0", "s1"]),
    ("updated_at", ["2026-01-01T00:00:00", 1]),
    ("updated_at", ["0001-01-01T00:00:00+14:00", 1]),
    ("updated_at", ["2026-01-01T00:00:00+00:00", 2**70]),
    ("updated_at", [None, 1]),
    ("status_code", [2**40, "2026-01-01T00:00:00+00:00", 1]),
    ("status_code", [True, "2026-01-01T00:00:00+00:00", 1]),
    ("started_at", [None, "1"]),
]
UNKNOWN = [
    "syncs/nope", "syncs/nope/transactions", "syncs/nope/timeline", "syncs/s1/transactions/nope",
    "syncs/s1?company_id=c2", "companies/nope", "companies/nope/syncs/latest",
    "companies/c1/syncs/last-successful", "companies/c1/transactions/nope", "causes/nope",
    "events/nope",
]  # fmt: skip


def test_an_invalid_parameter_is_named(store: Store, client: TestClient) -> None:
    """422 in one format, without the value."""
    store.failed()
    for path, name in INVALID:
        answer = client.get(f"{V1}/{path}")
        assert answer.status_code == 422, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert [error["name"] for error in answer.json()["errors"]] == [name], path
        assert "yesterday" not in answer.text


def test_all_invalid_parameters_are_named_together(client: TestClient) -> None:
    answer = client.get(f"{V1}/syncs?limit=0&sort=size")
    assert answer.json()["detail"] == "Invalid parameters: limit, sort"


def test_a_forged_cursor_is_invalid_and_never_an_unexpected_error(client: TestClient) -> None:
    for sort, values in FORGED:
        forged = base64.urlsafe_b64encode(json.dumps([f"syncs:{sort}", *values]).encode())
        answer = client.get(f"{V1}/syncs", params={"sort": sort, "cursor": forged.decode()})
        assert answer.status_code == 422, (sort, values, answer.text)
        assert answer.json()["errors"][0]["name"] == "cursor"


def test_an_unknown_id_is_404(store: Store, client: TestClient) -> None:
    store.failed()
    for path in UNKNOWN:
        answer = client.get(f"{V1}/{path}")
        assert (answer.status_code, answer.json()["status"]) == (404, 404), path
