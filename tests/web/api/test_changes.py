"""The change feed as pages and as a stream, and requests to retry."""

import asyncio
import json
from threading import BoundedSemaphore
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from app.db import change_feed
from app.db.tables import changes, outgoing_messages
from app.errors import DatabaseUnavailable
from app.settings import load_settings
from app.web.api import changes as change_routes
from app.web.api.changes import Batch, follow
from app.web.api.schemas import ChangedSync
from tests.processes import SECRET
from tests.web.store import KEY, T0, Store, after, completed_row, failed_row

STREAM = {"Accept": "text/event-stream"}


def test_changes_have_the_state_that_they_led_to(store: Store, client: TestClient) -> None:
    """Oldest first; the cursor of the last one continues the feed."""
    store.failed("s1")
    page = client.get("/api/v1/changes").json()
    first, second = page["items"]
    assert (first["kind"], first["sync_id"], first["sync"]["state"]) == ("sync", "s1", "failed")
    assert (first["at"], first["rows"]) == ("2026-01-01T09:00:00Z", None)
    assert first["sync"]["transactions"]["failed"] == 1
    assert (second["kind"], second["transaction_id"]) == ("transaction", "t1")
    assert [row["message"] for row in second["rows"]] == ["Account is closed"]
    assert (second["sync"], page["next"]) == (None, None)
    store.failed("s2")
    params = {"after": second["cursor"], "limit": "1"}
    later = client.get("/api/v1/changes", params=params).json()
    assert [change["sync_id"] for change in later["items"]] == ["s2"]
    assert later["next"] == later["items"][0]["cursor"]


def test_a_sync_in_the_feed_has_the_fields_of_the_api(store: Store, client: TestClient) -> None:
    store.sync("s1", code=4040, error_message="Company c1 is gone")
    state = client.get("/api/v1/changes").json()["items"][0]["sync"]
    sync = client.get("/api/v1/syncs/s1").json()
    assert state == {name: sync[name] for name in ChangedSync.model_fields}
    assert state["cause"]["key"] == "disconnected"


def test_an_older_change_without_newer_fields_is_readable(store: Store, client: TestClient) -> None:
    """What it does not have is null."""
    payload = {"state": "failed", "outcome": "failed", "transactions": {"total": 1}}
    row = {"at": T0, "kind": "sync", "company_id": "c1", "sync_id": "s1"}
    with store.database.writing() as connection:
        connection.execute(insert(changes), row | {"payload": json.dumps(payload)})
        rows = {"rows": [{"status": "Failed", "failed": True}]}
        row |= {"kind": "transaction", "transaction_id": "t1", "payload": json.dumps(rows)}
        connection.execute(insert(changes), row)
    sync, transaction = client.get("/api/v1/changes").json()["items"]
    assert (sync["sync"]["state"], sync["sync"]["status_code"]) == ("failed", None)
    assert sync["sync"]["transactions"]["failed"] is None
    assert transaction["rows"][0]["message"] is None


@pytest.mark.parametrize("headers", [{}, STREAM])
def test_an_invalid_cursor_is_named(client: TestClient, headers: dict[str, str]) -> None:
    """Also before a stream begins."""
    answer = client.get("/api/v1/changes?after=nonsense", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "after")
    if headers:
        answer = client.get("/api/v1/changes", headers={**headers, "Last-Event-ID": "nonsense"})
        assert answer.json()["errors"][0]["name"] == "Last-Event-ID"


@pytest.mark.parametrize("headers", [{}, STREAM])
def test_a_cursor_that_retention_has_passed_is_gone(
    store: Store, client: TestClient, headers: dict[str, str]
) -> None:
    """410 and never a silent gap; without a cursor the feed begins with the oldest change."""
    store.failed("s1")
    first = client.get("/api/v1/changes").json()["items"][0]["cursor"]
    with store.database.writing() as connection:
        assert change_feed.prune(connection, after(days=1), 100) == 2
    answer = client.get("/api/v1/changes", params={"after": first}, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (410, 410)
    assert client.get("/api/v1/changes").json() == {"items": [], "next": None}


def events_of(text: str) -> list[tuple[str, Any]]:
    """The id and the data of each event of a stream."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            events.append((fields["id"], json.loads(fields["data"])))
    return events


def test_a_stream_sends_the_same_and_continues_after_the_last_event(
    app: FastAPI, store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Last-Event-ID` takes precedence over `after`. The stream ends with the process."""
    store.failed("s1")
    store.failed("s2", rows=None)
    listed = client.get("/api/v1/changes").json()["items"]
    monkeypatch.setattr(change_routes, "POLL_EVERY_S", 0)
    stops = iter([False, True] * 3)
    app.state.is_stopping = lambda: next(stops)
    answer = client.get("/api/v1/changes", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [change for _, change in events] == listed
    assert [cursor for cursor, _ in events] == [change["cursor"] for change in listed]
    headers = {**STREAM, "Last-Event-ID": events[1][0]}
    rest = client.get("/api/v1/changes", params={"after": events[2][0]}, headers=headers)
    assert events_of(rest.text) == events[2:]


def test_streams_are_limited_and_give_their_place_back(app: FastAPI, client: TestClient) -> None:
    app.state.stream_places = BoundedSemaphore(1)
    app.state.is_stopping = lambda: True
    for _ in range(3):
        assert client.get("/api/v1/changes", headers=STREAM).status_code == 200
    assert app.state.stream_places.acquire(blocking=False)
    answer = client.get("/api/v1/changes", headers=STREAM)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client.get("/api/v1/changes").status_code == 200


def test_an_idle_stream_sends_comments_and_ends_when_the_database_is_down() -> None:
    """A proxy would cut a silent connection. The client reconnects with its cursor."""
    reads = 0

    def read(cursor: str | None) -> Batch:
        nonlocal reads
        reads += 1
        assert cursor == "c0"
        if reads == 3:
            raise DatabaseUnavailable("down")
        return [], False

    async def collect() -> list[bytes]:
        stream = follow(read, "c0", ([], False), lambda: False, poll_every_s=0, comment_every_s=0)
        return [line async for line in stream]

    assert asyncio.run(collect()) == [b": changes\n\n", *[b": no changes\n\n"] * 3]


def enable_retry(app: FastAPI) -> None:
    app.state.settings = load_settings(
        api_keys=KEY, retry_webhook_url="https://pushes.example/retry", notify_signing_secret=SECRET
    )


def test_a_retry_sends_the_open_failures_once(
    app: FastAPI, store: Store, client: TestClient
) -> None:
    """With an entry in the timeline; a double click sends one message."""
    enable_retry(app)
    store.failed(rows=(failed_row("t1"), completed_row("t2")))
    answer = client.post("/api/v1/syncs/s1/retry")
    accepted = answer.json()
    assert (answer.status_code, accepted["transactions"]) == (202, 1)
    assert accepted["already_requested"] is False
    again = client.post("/api/v1/syncs/s1/retry").json()
    assert (again["message_id"], again["already_requested"]) == (accepted["message_id"], True)
    with store.database.reading() as connection:
        requests = outgoing_messages.c.kind == "retry.requested"
        (body,) = connection.execute(select(outgoing_messages.c.body).where(requests)).scalars()
    message = json.loads(body)
    assert message["type"] == "retry.requested"
    (row,) = message["data"]["failed_transactions"]
    assert (row["transaction_id"], row["message"]) == ("t1", "Account is closed")
    entries = client.get("/api/v1/syncs/s1/timeline").json()["items"]
    message_id = accepted["message_id"]
    assert [(entry["kind"], entry["reason"]) for entry in entries] == [
        ("retry", f"1 failed item ({message_id})"),
        ("retry", f"Retry already requested; not sent again ({message_id})"),
    ]
    assert app.state.wakes


def test_a_retry_needs_failures_and_an_address(
    app: FastAPI, store: Store, client: TestClient
) -> None:
    """Otherwise 409; nothing is sent or logged."""
    store.failed()
    store.completed("s2")
    assert client.post("/api/v1/syncs/s1/retry").status_code == 409
    enable_retry(app)
    answer = client.post("/api/v1/syncs/s2/retry")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert client.post("/api/v1/syncs/unknown/retry").status_code == 404
    for sync_id in ("s1", "s2"):
        assert client.get(f"/api/v1/syncs/{sync_id}/timeline").json()["items"] == []
