"""The feed of changes and the retry, as callers meet them."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db.engine import Database
from app.db.keep import keep_all
from app.db.tables_told import outgoing
from app.errors import StorageUnavailable
from app.settings import load_settings
from app.web.api.event_stream import Streams, Watcher
from app.web.api.schemas_changes import ChangeAnswer
from tests.processes import SECRET
from tests.reports import delivery
from tests.web.shelf import KEY, Shelf, done_item, failed_item

STREAM = {"Accept": "text/event-stream"}


def change(database: Database, *sync_ids: str) -> None:
    with database.writing() as connection:
        items = (failed_item(),)
        keep_all(
            connection, [delivery(f"m-{each}", sync_id=each, items=items) for each in sync_ids]
        )


def test_changes_are_told_oldest_first_with_the_state_they_led_to(
    client: TestClient, database: Database
) -> None:
    """And read on from the last one's cursor."""
    change(database, "s1")
    told = client.get("/api/v1/changes").json()
    first, second = told["items"]
    assert (first["kind"], first["sync_id"], first["sync"]["state"]) == ("sync", "s1", "failed")
    assert (first["at"], first["rows"]) == ("2026-01-01T09:00:00Z", None)
    assert first["sync"]["transactions"]["failed"] == 1
    assert (second["kind"], second["transaction_id"]) == ("transaction", "t1")
    assert [row["message"] for row in second["rows"]] == ["Account is closed"]
    assert (second["sync"], told["next"]) == (None, None)
    change(database, "s2")
    later = client.get("/api/v1/changes", params={"after": second["cursor"], "limit": 1}).json()
    assert [each["sync_id"] for each in later["items"]] == ["s2"]
    assert later["next"] == later["items"][0]["cursor"]


@pytest.mark.parametrize("headers", [{}, STREAM])
def test_a_wrong_cursor_is_named(client: TestClient, headers: dict[str, str]) -> None:
    """Also before a stream begins."""
    answer = client.get("/api/v1/changes?after=nonsense", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "after")
    if headers:
        answer = client.get("/api/v1/changes", headers={**headers, "Last-Event-ID": "nonsense"})
        assert answer.json()["errors"][0]["name"] == "Last-Event-ID"


def events(text: str) -> list[tuple[str, Any]]:
    """The events of a stream: each one's id and what it says."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            found.append((fields["id"], json.loads(fields["data"])))
    return found


def test_a_stream_tells_the_same_and_goes_on_where_it_was_left(
    app: FastAPI, client: TestClient, database: Database
) -> None:
    """By Last-Event-ID, which beats the address it began with; and ends with the process."""
    change(database, "s1", "s2")
    listed = client.get("/api/v1/changes").json()["items"]
    looks = iter([False, True] * 3)
    app.state.is_ending = lambda: next(looks)
    answer = client.get("/api/v1/changes", headers=STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer.text)
    assert [each for _, each in told] == listed
    assert [cursor for cursor, _ in told] == [each["cursor"] for each in listed]
    left = {**STREAM, "Last-Event-ID": told[1][0]}
    rest = client.get("/api/v1/changes", params={"after": told[2][0]}, headers=left)
    assert events(rest.text) == told[2:]


def test_streams_are_few_and_each_gives_its_place_back(app: FastAPI, client: TestClient) -> None:
    """However it ends."""
    app.state.streams = Streams(most=1)
    app.state.is_ending = lambda: True
    for _ in range(3):
        assert client.get("/api/v1/changes", headers=STREAM).status_code == 200
    assert app.state.streams.enter()
    answer = client.get("/api/v1/changes", headers=STREAM)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client.get("/api/v1/changes").status_code == 200


def test_a_quiet_stream_shows_that_it_lives_and_ends_when_the_database_is_away() -> None:
    """A proxy would cut a silent connection; a reader comes back with its cursor."""
    looks = 0

    def read(after: str | None) -> tuple[Sequence[ChangeAnswer], bool]:
        nonlocal looks
        looks += 1
        assert after == "c0"
        if looks == 3:
            raise StorageUnavailable("away")
        return [], False

    async def scene() -> list[bytes]:
        watcher = Watcher(read, lambda: False, look_every_s=0, alive_every_s=0)
        return [line async for line in watcher.lines([], False, "c0")]

    lines = asyncio.run(scene())
    assert lines == [b": changes\n\n", *[b": nothing new\n\n"] * 3]


def retrying(app: FastAPI) -> None:
    app.state.settings = load_settings(
        api_keys=KEY,
        retry_webhook_url="https://pushes.example/retry",
        notify_signing_secret=SECRET,
    )


def test_a_retry_hands_the_failed_transactions_on(
    app: FastAPI, client: TestClient, shelf: Shelf, database: Database
) -> None:
    """Noted in the timeline; a double click sends once."""
    retrying(app)
    shelf.failed(items=(failed_item("t1"), done_item("t2")))
    answer = client.post("/api/v1/syncs/s1/retry")
    told = answer.json()
    assert (answer.status_code, told["transactions"]) == (202, 1)
    assert told["already_requested"] is False
    again = client.post("/api/v1/syncs/s1/retry").json()
    assert (again["message_id"], again["already_requested"]) == (told["message_id"], True)
    with database.reading() as connection:
        (body,) = connection.execute(select(outgoing.c.body)).scalars()
    said = json.loads(body)
    assert said["type"] == "retry.requested"
    (row,) = said["data"]["failed_transactions"]
    assert (row["transaction_id"], row["message"]) == ("t1", "Account is closed")
    steps = client.get("/api/v1/syncs/s1/timeline").json()["items"]
    assert [step["kind"] for step in steps] == ["retry", "retry"]
    assert told["message_id"] in steps[0]["reason"]


def test_a_retry_without_failures_or_without_an_address_is_a_conflict(
    app: FastAPI, client: TestClient, shelf: Shelf
) -> None:
    """And nothing is owed or noted."""
    shelf.failed()
    shelf.done("s2")
    assert client.post("/api/v1/syncs/s1/retry").status_code == 409
    retrying(app)
    answer = client.post("/api/v1/syncs/s2/retry")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert client.post("/api/v1/syncs/unknown/retry").status_code == 404
    for sync_id in ("s1", "s2"):
        assert client.get(f"/api/v1/syncs/{sync_id}/timeline").json()["items"] == []
