"""Our services' door, the calls that wait for Codat: plain answers whatever Codat says."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.db.engine import Database
from app.errors import CodatError, CodatRateLimited, CodatRefused, CodatUnavailable
from app.worker.start_sync import Starter
from app.worker.user_calls import Asking
from tests.web.shelf import T0
from tests.worker.test_start_sync import Codat

V1 = "/api/v1/companies/c1"
D1, D2 = "fd4cc60e-8666-4443-8fad-12c56d7420ee", "0498e921-9b53-4396-a412-4f2f5983b0a2"


@dataclass
class Told(Codat):
    config: dict[str, Any] = field(default_factory=lambda: {"bankAccount": {"id": "32"}})
    wanted: list[str] = field(default_factory=list)

    async def get_config(self, company_id: str) -> dict[str, Any]:
        if self.error:
            raise self.error
        return self.config


@pytest.fixture
def codat(app: FastAPI, database: Database) -> Told:
    told = Told()
    app.state.codat = told
    app.state.asking = Asking(database, lambda: T0)
    app.state.starter = Starter(database, told, lambda: T0)
    return told


def test_a_sync_is_started_and_can_be_asked_for_at_once(client: TestClient, codat: Told) -> None:
    """202, its id, where it is; and it is in progress."""
    answer = client.post(f"{V1}/syncs", json={"dataset_ids": [D1, D1.upper(), D2]})
    assert (answer.status_code, answer.json()) == (202, {"sync_id": "s1"})
    sync = client.get(answer.headers["location"]).json()
    assert (sync["company_id"], sync["state"], sync["outcome"]) == ("c1", "started", "in_progress")
    steps = client.get("/api/v1/syncs/s1/timeline").json()["items"]
    assert [(step["kind"], step["reason"]) for step in steps] == [
        ("initiated", "started here, with 2 datasets")
    ]
    again = client.post(f"{V1}/syncs", json={"dataset_ids": [D1]})
    assert (again.status_code, again.json()["detail"]) == (
        409,
        "a sync of this company is in progress: s1",
    )


@pytest.mark.parametrize(
    ("body", "named"),
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
def test_a_wrong_order_is_422_and_names_what_is_wrong(
    client: TestClient, codat: Told, body: Any, named: str
) -> None:
    """Codat is not asked."""
    answer = client.post(f"{V1}/syncs", json=body)
    assert answer.status_code == 422
    assert named in [each["name"] for each in answer.json()["errors"]]
    assert codat.asked == 0


TROUBLE = [
    (CodatRefused("canary", status=404), 404),
    (CodatRefused("canary", status=401), 502),
    (CodatRefused("canary", status=402), 502),
    (CodatUnavailable("canary", status=409), 409),
    (CodatUnavailable("canary"), 502),
    (CodatRateLimited("canary", retry_after=timedelta(seconds=90)), 503),
]


@pytest.mark.parametrize(("error", "status"), TROUBLE)
@pytest.mark.parametrize("path", ["/syncs", "/config"])
def test_each_trouble_with_codat_is_a_problem_in_our_own_words(
    client: TestClient, codat: Told, path: str, error: CodatError, status: int
) -> None:
    """What Codat said is for the log."""
    codat.error = error
    if path == "/syncs":
        answer = client.post(V1 + path, json={"dataset_ids": [D1]})
    else:
        answer = client.get(V1 + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "canary" not in answer.text
    assert answer.headers.get("retry-after") == ("90" if status == 503 else None)


@pytest.mark.parametrize(("status", "named"), [(400, "dataset_ids"), (422, "company_id")])
def test_what_codat_finds_wrong_in_the_order_is_named(
    client: TestClient, codat: Told, status: int, named: str
) -> None:
    """Datasets it does not accept, a company that is not connected."""
    codat.error = CodatRefused("no", status=status)
    answer = client.post(f"{V1}/syncs", json={"dataset_ids": [D1]})
    assert answer.status_code == 422
    assert [each["name"] for each in answer.json()["errors"]] == [named]


def test_the_configuration_is_what_codat_says_now(client: TestClient, codat: Told) -> None:
    """Nothing of it is kept, here or on the way."""
    answer = client.get(f"{V1}/config")
    assert answer.json() == codat.config
    assert answer.headers["cache-control"] == "private, no-store"
    assert "content-disposition" not in answer.headers
    codat.config = {"name": "\ud800 Bäckerei"}
    assert "Bäckerei" in client.get(f"{V1}/config").text


def test_the_configuration_can_be_downloaded_under_a_harmless_name(
    client: TestClient, codat: Told
) -> None:
    """Whatever the company's id is made of."""
    answer = client.get(f"{V1}/config?download=true")
    disposition = answer.headers["content-disposition"]
    assert disposition == 'attachment; filename="codat-config-c1.json"'
    odd = client.get("/api/v1/companies/a%22%0d%0a%2F..%2Fb/config?download=true")
    assert odd.headers["content-disposition"] == ('attachment; filename="codat-config-a_.._b.json"')


@pytest.mark.parametrize("query", ["download=perhaps", "colour=red"])
def test_a_wrong_wish_for_the_configuration_is_named(
    client: TestClient, codat: Told, query: str
) -> None:
    """As everywhere."""
    answer = client.get(f"{V1}/config?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["name"] == query.partition("=")[0]


def test_without_a_key_nothing_is_started(app: FastAPI, codat: Told) -> None:
    """401, and Codat is not asked."""
    with TestClient(app) as stranger:
        assert stranger.post(f"{V1}/syncs", json={"dataset_ids": [D1]}).status_code == 401
        assert stranger.get(f"{V1}/config").status_code == 401
    assert codat.asked == 0
