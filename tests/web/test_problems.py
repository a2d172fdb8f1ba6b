"""Error responses: one format on every route, no secret, no stack trace."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import errors
from tests.web.store import BEARER, KEY

WITHOUT_KEY = {"/livez", "/readyz", "/metrics"}
STATUSES = {401, 404, 405, 422}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def calls(app: FastAPI) -> list[tuple[str, str]]:
    """Every documented call, as method and path."""
    return [
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    ]


def assert_problem(answer: Any, path: str) -> None:
    """The answer is an error in the format of its part of the service."""
    body = answer.json()
    if path.startswith("/codat"):
        assert set(body) >= {"statusCode", "service", "error", "correlationId", "canBeRetried"}
        assert body["statusCode"] == answer.status_code
        return
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) >= {"type", "title", "status", "detail", "instance"}
    assert body["status"] == answer.status_code


def test_every_call_answers_invalid_input_in_one_format(app: FastAPI, client: TestClient) -> None:
    """A NUL in an id, an unknown parameter, an invalid page and limit, an unknown id."""
    for method, path in calls(app):
        if path in WITHOUT_KEY:
            continue
        for value in ("%00", "no%2Fsuch", "%ED%A0%80", "x" * 2000):
            url = re.sub(r"{\w+}", value, path)
            answer = client.request(method, f"{url}?limit=-1&page=0&wrong=1")
            statuses = {401, 400, 404} if path.startswith("/codat") else STATUSES
            assert answer.status_code in statuses, (method, url, answer.text)
            assert_problem(answer, path)


def test_every_call_but_the_health_checks_needs_a_key(app: FastAPI, client: TestClient) -> None:
    """The key is checked before anything else of the request."""
    for method, path in calls(app):
        if path in WITHOUT_KEY:
            continue
        for header in ("", "Bearer", "Bearer wrong", f"bearer {KEY}x", f"Token {KEY}", "Bearer ä"):
            headers = {b"Authorization": header.encode("latin-1")}
            answer = client.request(method, f"{path}?wrong=1", headers=headers)
            assert answer.status_code == 401, (path, header)
            assert "Bearer" in answer.headers["www-authenticate"]
            assert_problem(answer, path)


def test_each_of_the_keys_is_accepted(client: TestClient) -> None:
    """The scheme is case-insensitive."""
    for header in (f"Bearer {KEY}", "bearer another-key-as-long"):
        answer = client.get("/api/v1/syncs", headers={"Authorization": header})
        assert answer.status_code == 200


def test_wrong_methods_paths_and_hosts_are_problems(client: TestClient) -> None:
    """And no unexpected errors; a wrong method is answered with the right one."""
    answer = client.delete("/api/v1/syncs/s1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["detail"] == "Method not allowed"
    assert_problem(answer, "/api/v1")
    answer = client.get("/no/such/path", headers={"Host": "["})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Not found")
    assert_problem(answer, "/")
    assert client.get("/api/v1/syncs", headers={"Host": "[::1"}).status_code == 200


@pytest.fixture
def failing(app: FastAPI) -> Iterator[list[Exception]]:
    """`/fails` raises the last of these."""
    raised: list[Exception] = []

    async def fail() -> None:
        raise raised[-1]

    app.add_api_route("/fails", fail, methods=["GET"])
    yield raised
    app.router.routes.pop()


@pytest.mark.parametrize(
    ("error", "status", "is_shown"),
    [
        (errors.NotFound("no such sync"), 404, True),
        (errors.Gone("it was removed"), 410, True),
        (errors.BadRequest("q", "too long"), 422, True),
        (errors.Conflict("not now"), 409, True),
        (errors.UpstreamRefused("our key is wrong"), 502, True),
        (errors.DatabaseUnavailable("host=db user=secret"), 503, False),
        (errors.DatabaseDown("host=db user=secret"), 503, False),
        (errors.DatabaseRejected("value secret"), 422, False),
        (errors.SchemaError("at 0001"), 503, False),
        (errors.CodatRefused("secret"), 502, False),
        (errors.CodatUnavailable("secret"), 502, False),
        (errors.CodatRateLimited("secret", retry_after=timedelta(seconds=90)), 503, False),
        (errors.SettingsError("secret"), 500, False),
        (RuntimeError("secret"), 500, False),
    ],
)
def test_each_error_has_its_status(
    client: TestClient, failing: list[Exception], error: Exception, status: int, is_shown: bool
) -> None:
    """Its text is returned only if it was written for callers."""
    failing.append(error)
    answer = client.get("/fails", headers=BEARER)
    assert answer.status_code == status
    assert (str(error) in answer.text) is is_shown
    assert ("retry-after" in answer.headers) is (status == 503)
    if isinstance(error, errors.CodatRateLimited):
        assert answer.headers["retry-after"] == "90"
    assert_problem(answer, "/fails")


def test_the_description_documents_every_error(app: FastAPI) -> None:
    """Each call has a summary, and its errors in one media type (see also `test_schemathesis`)."""
    description = app.openapi()
    schemas = description["components"]["schemas"]
    assert {"Problem", "InvalidParameter"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    for path, operations in description["paths"].items():
        for call in operations.values():
            assert call["summary"], path
            errors = {status: found for status, found in call["responses"].items() if status >= "4"}
            if path.startswith("/codat"):
                assert {"400", "401", "422", "503"} & set(errors) == {"400", "401", "503"}, path
            elif path.startswith("/api/v1"):
                media_types = {name for found in errors.values() for name in found["content"]}
                assert media_types == {"application/problem+json"}, path
