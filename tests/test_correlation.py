"""One id in the logs of all processes tells what became of a webhook, or of a request."""

import json
from typing import Any

import httpx
import pytest

from tests.processes import (
    API_KEY,
    AUTHORIZED,
    TLS,
    Process,
    SimulatedCodat,
    Stage,
    deliver,
    failed_event,
    get,
    wait_for,
)
from tests.receiver import SIGNING_SECRET, receiver

Line = dict[str, Any]
EVENTS = ("webhook stored", "webhook projected", "sync fetched", "outgoing message delivered")


def grep(text: str, *processes: Process) -> list[Line]:
    """The log lines that contain a text, in the order of their times."""
    lines = [line for process in processes for line in process.logged().splitlines()]
    found = [json.loads(line) for line in lines if line.startswith("{") and text in line]
    return sorted(found, key=lambda line: line["timestamp"])


def events(lines: list[Line]) -> list[str]:
    return [line["event"] for line in lines]


def post(server: Process, path: str, request_id: str) -> httpx.Response:
    headers = {**AUTHORIZED, "x-request-id": request_id}
    return httpx.post(f"{server.address}/api/v1{path}", headers=headers, verify=TLS)


@pytest.fixture
def settings() -> dict[str, str]:
    return {"API_KEYS": f"support:{API_KEY}", "LOG_LEVEL": "info"}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_one_message_id_and_one_request_id_tell_the_story(
    stage: Stage, settings: dict[str, str]
) -> None:
    """From the endpoint over projection and fetch to a receiver, through `serve` and `worker`."""
    codat = SimulatedCodat(stage.simulate())
    company_id, sync_id = codat.create_sync(outcome="partly_failed", size=4)
    with receiver() as receiving:
        outgoing = {
            "NOTIFY_WEBHOOK_URLS": f"{receiving.address}/in",
            "RETRY_WEBHOOK_URL": f"{receiving.address}/retry",
            "NOTIFY_SIGNING_SECRET": SIGNING_SECRET,
        }
        server = stage.serve(WORKER_IN_WEB="false", **settings, **outgoing)
        worker = stage.start("worker", **settings, **outgoing)
        assert deliver(server, "msg_grep-me", failed_event(sync_id, company_id)) == 204
        wait_for(lambda: EVENTS[-1] in events(grep("msg_grep-me", server, worker)))
        lines = grep("msg_grep-me", server, worker)
        assert events(lines) == list(EVENTS)
        assert {line["message_id"] for line in lines} == {"msg_grep-me"}
        assert lines[0]["request_id"]
        for line in lines[1:3]:
            assert (line["company_id"], line["sync_id"]) == (company_id, sync_id)
        sent = {message.message_id: message.body["type"] for message in receiving.received}
        assert sent[lines[3]["outgoing_message_id"]] == "sync.failed"

        retried = post(server, f"/syncs/{sync_id}/retry", "grep-the-retry")
        assert retried.headers["x-request-id"] == "grep-the-retry"
        wait_for(lambda: len(grep("grep-the-retry", server, worker)) >= 3)
        lines = grep("grep-the-retry", server, worker)
        assert events(lines) == ["retry requested", "request", "outgoing message delivered"]
        assert lines[0]["actor"] == lines[1]["actor"] == "support"
        assert lines[2]["outgoing_message_id"] == retried.json()["message_id"]

        post(server, f"/syncs/{sync_id}/refresh", "grep-the-refresh")
        wait_for(lambda: "sync fetched" in events(grep("grep-the-refresh", server, worker)))
        post(server, "/events/msg_grep-me/replay", "grep-the-replay")
        wait_for(lambda: "webhook projected" in events(grep("grep-the-replay", server, worker)))
        timeline = get(server, f"/syncs/{sync_id}/timeline")["items"]
        reasons = {entry["kind"]: entry["reason"] for entry in timeline}
        assert reasons["refresh"] == "Requested by support"
        assert reasons["replay"] == "Codat reported: failed (Sync Failed); requested by support"
        assert API_KEY not in server.logged() + worker.logged()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_request_id_that_is_not_plain_is_replaced(stage: Stage, settings: dict[str, str]) -> None:
    """It is never copied into logs and answers; errors have one too."""
    server = stage.serve(**settings)
    answers = {"/api/v1/syncs": 200, "/api/v1/none": 404, "/webhooks/codat": 405}
    for sent in ("x" * 129, "two words", "a\tb", "é", '{"a":1}', ""):
        headers = {b"x-request-id": sent.encode(), b"authorization": f"Bearer {API_KEY}".encode()}
        for path, status in answers.items():
            answer = httpx.get(f"{server.address}{path}", headers=headers, verify=TLS)
            assert answer.status_code == status
            assert len(answer.headers["x-request-id"]) == 32
    assert len(grep('"event": "request"', server)) >= 12
    assert "two words" not in server.logged()
