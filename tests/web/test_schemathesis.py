"""The OpenAPI description compared with what the service does.

Schemathesis sends what the description allows and what it forbids, and every documented status is
made to happen.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.bootstrap import create_app
from app.db import workers
from app.db.engine import open_database
from app.domain.causes.loader import load_builtin
from app.errors import DatabaseUnavailable
from app.settings import load_settings
from tests.conftest import NewDatabase
from tests.processes import SECRET
from tests.web.store import BEARER, KEY, Store, failed_row

AnyCase = Case[Any]
CHECKS: list[CheckFunction] = [
    status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance, unsupported_method,
    allow_header_conformance,
]  # fmt: skip
EXAMPLES = 5
IN_WORDS_ONLY = {"cursor", "after", "Last-Event-ID", "to", "q"}
"""Parameters with a condition that no schema can state, such as: `to` is not before `from`."""


@pytest.fixture(scope="module")
def database_url(new_database: NewDatabase) -> Iterator[str]:
    """One database for all tests, with rows in every table that the service reads."""
    with new_database("sqlite") as url:
        database = open_database(url)
        store = Store(database)
        store.company("c1", "Toft stores")
        store.failed(rows=(failed_row("t1"), failed_row("t2")))
        store.completed("s2")
        store.sync("unfetched")
        store.completed("twice", "c1")
        store.completed("twice", "c2")
        store.event("m1")
        database.close()
        yield url


@pytest.fixture
def app(database_url: str) -> Iterator[FastAPI]:
    """The whole application."""
    made = create_app(
        load_settings(
            database_url=database_url,
            codat_webhook_secrets=SECRET,
            codat_api_key="k",
            api_keys=KEY,
            worker_in_web=False,
        )
    )
    with made.state.database.writing() as connection:
        workers.beat(connection, "w", datetime.now(UTC))
    yield made
    made.state.database.close()


def is_rejected_in_words(response: Response) -> bool:
    """True for a 422 because of a condition that the description has in words only."""
    if response.status_code != 422:
        return False
    errors = json.loads(response.content or b"{}").get("errors", [])
    names = {error["name"] for error in errors}
    return bool(names) and names <= IN_WORDS_ONLY


def no_server_error(
    ctx: schemathesis.CheckContext, response: Response, case: AnyCase
) -> bool | None:
    """No 5xx, but for 502: there is no Codat here to call."""
    return None if response.status_code == 502 else not_a_server_error(ctx, response, case)


def acceptance(ctx: schemathesis.CheckContext, response: Response, case: AnyCase) -> bool | None:
    """What the description allows is accepted."""
    return None if is_rejected_in_words(response) else positive_data_acceptance(ctx, response, case)


def rejection(ctx: schemathesis.CheckContext, response: Response, case: AnyCase) -> bool | None:
    """What the description forbids is rejected; the Codat-compatible API ignores parameters.

    If a parameter with one value is repeated, the last value counts, as is usual.
    """
    query = parse_qsl(urlsplit(response.request.url or "").query, keep_blank_values=True)
    is_repeated = len(query) > len(dict(query))
    if case.operation.path.startswith("/codat") or is_repeated:
        return None
    return negative_data_rejection(ctx, response, case)


def differences(app: FastAPI, mode: GenerationMode) -> list[str]:
    found = []
    for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: AnyCase) -> None:
            response = case.call(headers=BEARER)
            checks = [no_server_error, *CHECKS, acceptance if mode.is_positive else rejection]
            case.validate_response(response, checks=checks, headers=BEARER)

        try:
            send()
        except Unsatisfiable:
            assert not operation.query, "only a call without parameters has no invalid request"
        except FailureGroup as failures:
            found.append(f"{operation.label}: {failures}")
    return found


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_responses_are_as_described(app: FastAPI, mode: GenerationMode) -> None:
    """No 5xx, and no status, header or schema that the description does not have."""
    found = differences(app, mode)
    assert found == [], "\n\n".join(found)


IDS = {
    "company_id": "c1",
    "sync_id": "s1",
    "transaction_id": "t1",
    "message_id": "m1",
    "key": "unclassified",
}
TESTED_ELSEWHERE = {
    "/webhooks/codat",
    "/api/v1/companies/{company_id}/syncs",
    "/api/v1/companies/{company_id}/config",
    "/api/v1/syncs/{sync_id}/retry",
    "/api/v1/retries",
    "/api/v1/retries/{retry_id}",
    "/api/v1/causes/{key}/companies/{company_id}/note",
    "/api/v1/alerts/{alert_id}/note",
    "/api/v1/events/{message_id}/replay",
    "/api/v1/changes",
}
"""Calls whose responses depend on Codat, on a setting, on a body, or on retention."""
UNKNOWN = dict.fromkeys(IDS, "nobody")
NUL = dict.fromkeys(IDS, "%00")


def provoke(client: TestClient, app: FastAPI, method: str, path: str) -> dict[int, int]:
    """For each status that a request can cause: the status of the response."""
    url = path.format(**IDS)
    is_codat_api = path.startswith("/codat")
    good = client.request(method, url)
    etag = good.headers.get("etag", "none")
    conflict = path.format(**IDS | {"sync_id": "unfetched" if is_codat_api else "twice"})
    invalid = path.format(**NUL) if "{" in path else f"{url}?{'page=0' if is_codat_api else 'x=1'}"
    return {
        good.status_code: good.status_code,
        304: client.request(method, url, headers={"If-None-Match": etag}).status_code,
        401: client.request(method, url, headers={"Authorization": "Bearer no"}).status_code,
        404: client.request(method, path.format(**UNKNOWN)).status_code,
        409: client.request(method, conflict).status_code,
        400 if is_codat_api else 422: client.request(method, invalid).status_code,
        503: _without_database(client, app, method, url),
    }


def _without_database(client: TestClient, app: FastAPI, method: str, url: str) -> int:
    state = app.state
    probe = state.readiness_probe
    database, state.database = state.database, Down()
    known_database, probe._database = probe._database, state.database
    try:
        return client.request(method, url).status_code
    finally:
        state.database, probe._database = database, known_database


class Down:
    """A database that is down."""

    classifier = load_builtin()

    def reading(self, *, priority: bool = False) -> Any:
        raise DatabaseUnavailable("down")

    writing = reading


def test_every_documented_status_happens_and_no_other(app: FastAPI) -> None:
    client = TestClient(app, headers=BEARER, raise_server_exceptions=False)
    wrong = []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items() if path not in TESTED_ELSEWHERE else ():
            documented = {int(status) for status in operation["responses"]}
            statuses = provoke(client, app, method, path)
            happened = {status for status, actual in statuses.items() if status == actual}
            if documented != happened or set(statuses.values()) - documented:
                wrong.append(f"{method} {path}: documented {sorted(documented)}, got {statuses}")
    assert wrong == []
