"""Retries of the open transactions of many syncs."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db import outgoing, retries
from app.db.engine import Database
from app.db.tables import outgoing_messages
from app.settings import load_settings
from app.web.api import retries as api
from tests.processes import SECRET
from tests.web.store import KEY, T0, Store, after, completed_row, failed_row
from tests.worker.fakes import claim_jobs

V1 = "/api/v1/retries"
CLOSED = "The period is closed"


@pytest.fixture
def retry_url(app: FastAPI) -> None:
    app.state.settings = load_settings(
        api_keys=f"support:{KEY}",
        retry_webhook_url="https://pushes.example/retry",
        notify_signing_secret=SECRET,
    )


@pytest.fixture
def failures(store: Store) -> Store:
    """Three syncs of two companies; one item was recorded later, one has another cause."""
    store.failed("s1", rows=(failed_row("t1", CLOSED), failed_row("t2", CLOSED)))
    store.failed("s2", "c2", rows=(failed_row("t3", CLOSED), failed_row("t4", "Oops")))
    store.failed("s3", "c2", rows=(failed_row("t5", CLOSED), failed_row("t6", CLOSED)))
    store.completed("s4", "c2", rows=(completed_row("t5"),), at=after(hours=1))
    return store


def sent(database: Database) -> list[tuple[str, list[str]]]:
    """The sync and the transactions of each message."""
    with database.reading() as connection:
        requests = outgoing_messages.c.kind == "retry.requested"
        found = connection.execute(select(outgoing_messages.c.body).where(requests))
        bodies = found.scalars().all()
    data = [json.loads(body)["data"] for body in bodies]
    return sorted(
        (each["sync_id"], [row["transaction_id"] for row in each["failed_transactions"]])
        for each in data
    )


@pytest.mark.parametrize(
    ("criteria", "preview", "messages"),
    [
        ({"cause": "period_closed"}, (3, 4, 2), [("s1", "t1 t2"), ("s2", "t3"), ("s3", "t6")]),
        ({"cause": "period_closed", "company_id": "c2"}, (2, 2, 1), [("s2", "t3"), ("s3", "t6")]),
        ({"company_id": "c2"}, (2, 3, 1), [("s2", "t3 t4"), ("s3", "t6")]),
        ({"from": "2026-01-01", "to": "2026-01-01", "cause": "unclassified"}, (1, 1, 1),
         [("s2", "t4")]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("retry_url")
def test_each_sync_gets_one_message_with_what_is_open(
    failures: Store,
    client: TestClient,
    criteria: dict[str, str],
    preview: tuple[int, int, int],
    messages: list[tuple[str, str]],
) -> None:
    shown = client.get(f"{V1}/preview", params=criteria).json()
    assert (shown["syncs"], shown["items"], shown["companies"]) == preview
    answer = client.post(V1, json=criteria)
    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["syncs"], accepted["transactions"]) == preview[:2]
    assert (accepted["already_requested"], accepted["is_complete"]) == (0, True)
    assert sent(failures.database) == [(sync_id, ids.split()) for sync_id, ids in messages]
    timeline = client.get(f"/api/v1/syncs/{messages[0][0]}/timeline").json()["items"]
    assert ", requested by support (msg_" in timeline[-1]["reason"]


@pytest.mark.usefixtures("retry_url")
def test_a_repeated_request_sends_nothing_again(
    failures: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It continues where it was interrupted, and leads to the same progress."""
    monkeypatch.setattr(retries, "SYNCS_PER_STEP", 1)
    criteria = {"cause": "period_closed"}
    with monkeypatch.context() as patched:
        patched.setattr(api, "MAX_SYNCS", 2)
        first = client.post(V1, json=criteria).json()
        assert (first["syncs"], first["is_complete"]) == (2, False)
        rest = client.post(V1, json=criteria).json()
        assert (rest["syncs"], rest["already_requested"], rest["is_complete"]) == (1, 2, True)
    again = client.post(V1, json=criteria).json()
    assert (again["syncs"], again["already_requested"]) == (0, 3)
    assert again["retry_id"] in (first["retry_id"], rest["retry_id"])
    failures.failed("s9", "c9", rows=(failed_row("t9", CLOSED),))
    more = client.post(V1, json=criteria).json()
    assert (more["syncs"], more["already_requested"]) == (1, 3)
    assert len(sent(failures.database)) == 4
    single = client.post("/api/v1/syncs/s1/retry").json()
    assert single["already_requested"]


@pytest.mark.usefixtures("retry_url")
def test_the_progress_is_known(failures: Store, client: TestClient) -> None:
    retry_id = client.post(V1, json={"cause": "period_closed"}).json()["retry_id"]
    done, dead = claim_jobs(failures.database, "message", now=after(hours=3), limit=2)
    with failures.database.writing() as connection:
        outgoing.end(connection, done, T0)
        outgoing.end(connection, dead, T0, failure="answered 410")
    progress: dict[str, Any] = client.get(f"{V1}/{retry_id}").json()
    assert progress.pop("requested_at") == "2026-01-01T12:00:00Z"
    assert progress == {
        "syncs": 3, "waiting": 1, "delivered": 1, "given_up": 1,
        "next_attempt_at": "2026-01-01T12:00:00Z", "last_error": "answered 410",
    }  # fmt: skip
    assert client.get(f"{V1}/unknown").status_code == 404


def test_a_retry_needs_failures_and_an_address(
    failures: Store, app: FastAPI, client: TestClient, request: pytest.FixtureRequest
) -> None:
    assert client.post(V1, json={"cause": "period_closed"}).status_code == 409
    request.getfixturevalue("retry_url")
    assert client.post(V1, json={"cause": "never_seen"}).status_code == 409
    for wrong in ({"q": "x"}, {"from": "soon"}, {"from": "2026-01-02", "to": "2026-01-01"}):
        assert client.post(V1, json=wrong).status_code == 422, wrong
        assert client.get(f"{V1}/preview", params=wrong).status_code == 422, wrong
    assert client.get(f"{V1}/preview?cause=never_seen").json()["items"] == 0
