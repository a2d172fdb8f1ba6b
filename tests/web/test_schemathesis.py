"""Our own OpenAPI document, held against what the service does, on both databases.

Schemathesis asks what the document allows and what it forbids; and every status it names is made
to happen.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

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
from app.db import sync_writer as store
from app.db.engine import Database
from app.errors import StorageUnavailable
from app.settings import load_settings
from tests.processes import SECRET
from tests.web.shelf import BEARER, KEY, Shelf, failed_item

AnyCase = Case[Any]
ALWAYS: list[CheckFunction] = [
    status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance, unsupported_method,
    allow_header_conformance,
]  # fmt: skip
EXAMPLES = 25
WORDS_ONLY = {"cursor", "after", "Last-Event-ID", "to", "q"}
"""Parameters with a condition that no schema states: `next` of a page, `to` not before `from`."""


@pytest.fixture
def app(database: Database, database_url: str) -> Iterator[FastAPI]:
    """The whole application, with something of everything in its database."""
    shelf = Shelf(database)
    shelf.company("c1", "Toft stores")
    shelf.failed(items=(failed_item("t1"), failed_item("t2")))
    shelf.done("s2")
    shelf.sync("unfetched")
    shelf.done("twice", "c1")
    shelf.done("twice", "c2")
    shelf.event("m1", body=b"{}")
    with database.writing() as connection:
        store.beat(connection, "w", datetime.now(UTC))
    made = create_app(
        load_settings(
            database_url=database_url,
            codat_webhook_secrets=SECRET,
            codat_api_key="k",
            api_keys=KEY,
            worker_in_web=False,
        )
    )
    yield made
    made.state.database.close()


def words_only(response: Response, case: AnyCase) -> bool:
    """Whether a request was refused for a condition that the document states in words."""
    if response.status_code != 422:
        return False
    told = json.loads(response.content or b"{}")
    names = {each["name"] for each in told.get("errors", [])}
    return bool(names) and names <= WORDS_ONLY


def server_error(ctx: schemathesis.CheckContext, response: Response, case: AnyCase) -> bool | None:
    """No 5xx; but 502 is true of what waits for a Codat that is not there."""
    return None if response.status_code == 502 else not_a_server_error(ctx, response, case)


def acceptance(ctx: schemathesis.CheckContext, response: Response, case: AnyCase) -> bool | None:
    """What the document allows is not refused."""
    return None if words_only(response, case) else positive_data_acceptance(ctx, response, case)


def refusal(ctx: schemathesis.CheckContext, response: Response, case: AnyCase) -> bool | None:
    """What the document forbids is refused; Codat's own paths let odd parameters pass.

    Of a parameter that is repeated and stands for one value, the last counts, as is usual.
    """
    repeated = any(isinstance(value, list) for value in (case.query or {}).values())
    if case.operation.path.startswith("/codat") or repeated:
        return None
    return negative_data_rejection(ctx, response, case)


def broken_promises(app: FastAPI, mode: GenerationMode) -> list[str]:
    found = []
    for each in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        assert isinstance(each, Ok)
        operation = each.ok()

        @seed(1)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: AnyCase) -> None:
            response = case.call(headers=BEARER)
            checks = [server_error, *ALWAYS, acceptance if mode.is_positive else refusal]
            case.validate_response(response, checks=checks, headers=BEARER)

        try:
            ask()
        except Unsatisfiable:
            assert not operation.query, "only what takes nothing cannot be asked wrongly"
        except FailureGroup as failures:
            found.append(f"{operation.label}: {failures}")
    return found


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_answer_breaks_a_promise_of_the_document(app: FastAPI, mode: GenerationMode) -> None:
    """No 5xx, no status, header or shape that it does not name; allowed is taken, forbidden not."""
    found = broken_promises(app, mode)
    assert found == [], "\n\n".join(found)


FILLED = {
    "company_id": "c1",
    "sync_id": "s1",
    "transaction_id": "t1",
    "event_id": "m1",
    "cause": "unclassified",
}
OF_THEIR_OWN = {
    "/webhooks/codat",
    "/api/v1/companies/{company_id}/syncs",
    "/api/v1/companies/{company_id}/config",
    "/api/v1/syncs/{sync_id}/retry",
    "/api/v1/events/{event_id}/replay",
}
"""Calls whose answers depend on Codat, on an address or on a body: they have tests of their own."""
UNKNOWN = dict.fromkeys(FILLED, "nobody")
NUL = dict.fromkeys(FILLED, "%00")


def provoked(client: TestClient, app: FastAPI, method: str, path: str) -> dict[int, int]:
    """For each status that can be made to happen by what is asked: what came."""
    filled = path.format(**FILLED)
    mirrored = path.startswith("/codat")
    good = client.request(method, filled)
    tag = good.headers.get("etag", "no tag")
    clash = path.format(**FILLED | {"sync_id": "unfetched" if mirrored else "twice"})
    wrong = path.format(**NUL) if "{" in path else f"{filled}?{'page=0' if mirrored else 'x=1'}"
    return {
        good.status_code: good.status_code,
        304: client.request(method, filled, headers={"If-None-Match": tag}).status_code,
        401: client.request(method, filled, headers={"Authorization": "Bearer no"}).status_code,
        404: client.request(method, path.format(**UNKNOWN)).status_code,
        409: client.request(method, clash).status_code,
        400 if mirrored else 422: client.request(method, wrong).status_code,
        503: _without_database(client, app, method, filled),
    }


def _without_database(client: TestClient, app: FastAPI, method: str, path: str) -> int:
    state = app.state
    there, state.database = state.database, Away()
    owe, state.owe = state.owe, Away().owe
    try:
        return client.request(method, path).status_code
    finally:
        state.database, state.owe = there, owe


class Away:
    """A database that is not there."""

    def reading(self) -> Any:
        raise StorageUnavailable("away")

    def owe(self, company_id: str | None, sync_id: str) -> bool:
        raise StorageUnavailable("away")


def test_every_documented_status_happens_and_no_other(app: FastAPI) -> None:
    """For each call: the statuses that can be provoked are those that the document names."""
    client = TestClient(app, headers=BEARER, raise_server_exceptions=False)
    untrue = []
    for path, calls in app.openapi()["paths"].items():
        for method, call in calls.items() if path not in OF_THEIR_OWN else ():
            named = {int(status) for status in call["responses"]}
            came = provoked(client, app, method, path)
            happens = {status for status, seen in came.items() if status == seen}
            if named != happens or set(came.values()) - named:
                untrue.append(f"{method} {path}: {sorted(named)} documented, {came} came")
    assert untrue == []
