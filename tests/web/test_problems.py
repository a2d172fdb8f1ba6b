"""How errors leave: one shape on every route, no secret, no trace."""

import re
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app import errors
from tests.web.shelf import KEY

KEYLESS = {"/livez", "/readyz", "/metrics"}
CODES = {401, 404, 405, 422}


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every documented call, as method and path."""
    return [
        (method.upper(), path) for path, calls in app.openapi()["paths"].items() for method in calls
    ]


def assert_problem(answer: Any, path: str) -> None:
    """The answer is an error in the shape of its part of the service."""
    told = answer.json()
    if path.startswith("/codat"):
        assert set(told) >= {"statusCode", "service", "error", "correlationId", "canBeRetried"}
        assert told["statusCode"] == answer.status_code
        return
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(told) >= {"type", "title", "status", "detail", "instance"}
    assert told["status"] == answer.status_code


def test_every_route_answers_bad_input_in_one_shape(app: FastAPI, client: TestClient) -> None:
    """NUL in ids, a parameter nobody knows, a wrong page and limit, no such id."""
    for method, path in routes(app):
        if path in KEYLESS:
            continue
        for value in ("%00", "no%2Fsuch", "%ED%A0%80", "x" * 2000):
            at = re.sub(r"{\w+}", value, path)
            answer = client.request(method, f"{at}?limit=-1&page=0&wrong=1")
            codes = {401, 400, 404} if path.startswith("/codat") else CODES
            assert answer.status_code in codes, (method, at, answer.text)
            assert_problem(answer, path)


def test_every_route_but_the_platforms_wants_a_key(app: FastAPI, client: TestClient) -> None:
    """Also before it looks at anything else of the request."""
    for method, path in routes(app):
        if path in KEYLESS:
            continue
        for wrong in ("", "Bearer", "Bearer wrong", f"bearer {KEY}x", f"Token {KEY}", "Bearer ä"):
            headers = {b"Authorization": wrong.encode("latin-1")}
            answer = client.request(method, f"{path}?wrong=1", headers=headers)
            assert answer.status_code == 401, (path, wrong)
            challenge = answer.headers["www-authenticate"]
            assert "Bearer" in challenge
            assert_problem(answer, path)


def test_every_key_opens_the_door(client: TestClient) -> None:
    """All of them, whichever comes first; the scheme in any case."""
    for told in (f"Bearer {KEY}", "bearer another-key-as-long"):
        answer = client.get("/api/v1/syncs", headers={"Authorization": told})
        assert answer.status_code == 200


def test_a_wrong_method_says_which_is_right(client: TestClient) -> None:
    """405 with Allow."""
    answer = client.delete("/api/v1/syncs/s1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    assert_problem(answer, "/api/v1")


def test_an_odd_host_header_is_no_fault(client: TestClient) -> None:
    """An address cannot always be made of it."""
    answer = client.get("/no/such/path", headers={"Host": "["})
    assert answer.status_code == 404
    assert client.get("/api/v1/syncs", headers={"Host": "[::1"}).status_code == 200


def test_an_unknown_path_is_a_problem_too(client: TestClient) -> None:
    """Whoever asks."""
    answer = client.get("/no/such/path")
    assert answer.status_code == 404
    assert_problem(answer, "/")


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (errors.NotKnown("no such sync"), 404, True),
        (errors.BadRequest("q", "too odd"), 422, True),
        (errors.Conflicting("not now"), 409, True),
        (errors.Declined("our key is wrong"), 502, True),
        (errors.StorageUnavailable("host=db user=secret"), 503, False),
        (errors.StorageRefused("value secret"), 422, False),
        (errors.SchemaError("at 0001"), 503, False),
        (errors.CodatRefused("secret"), 502, False),
        (errors.CodatUnavailable("secret"), 502, False),
        (errors.CodatRateLimited("secret", retry_after=timedelta(seconds=90)), 503, False),
        (errors.SettingsError("secret"), 500, False),
        (RuntimeError("secret"), 500, False),
    ],
)
def test_each_error_leaves_as_the_table_says(
    app: FastAPI, client: TestClient, error: Exception, status: int, shown: bool
) -> None:
    """Its text only where it was written for callers."""

    def fail(_company: str | None, _sync: str) -> bool:
        raise error

    app.add_api_route("/fails", lambda: fail(None, ""), methods=["GET"])
    answer = client.get("/fails")
    assert answer.status_code == status
    assert (str(error) in answer.text) is shown
    assert ("retry-after" in answer.headers) is (status == 503)
    if isinstance(error, errors.CodatRateLimited):
        assert answer.headers["retry-after"] == "90"
    assert_problem(answer, "/fails")


def test_the_documents_tell_every_error(app: FastAPI) -> None:
    """Each call under a key has a summary, and its errors in the right media type."""
    described = app.openapi()
    assert {"Problem", "WrongParameter"} <= set(described["components"]["schemas"])
    for path, calls in described["paths"].items():
        for call in calls.values():
            assert call["summary"], path
            if path.startswith("/api/v1"):
                asks_database = set() if path.endswith("/webhook-secrets") else {"503"}
                assert {"401", "422"} | asks_database <= set(call["responses"]), path
                for status, told in call["responses"].items():
                    if status >= "400":
                        assert list(told["content"]) == ["application/problem+json"], path
            if path.startswith("/codat"):
                assert {"400", "401", "503"} <= set(call["responses"]), path
                assert "422" not in call["responses"], path
            if "{" in path:
                assert "404" in call["responses"], path
    assert "HTTPValidationError" not in str(described["paths"])
