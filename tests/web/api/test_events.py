"""Stored webhook events, their replay, and the use of webhook secrets."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.factories import add_event, project
from tests.web.store import NOW, Store, after

V1 = "/api/v1/events"
FIELDS = {
    "message_id", "received_at", "deliveries", "processed_at", "event_type", "raw_type",
    "parse_status", "parse_error", "projection_error", "company_id", "sync_id", "body_id",
    "generated_at",
}  # fmt: skip


def test_an_event_is_null_until_it_is_projected(store: Store, client: TestClient) -> None:
    add_event(store.database, "m1")
    event = client.get(f"{V1}/m1").json()
    assert set(event) == FIELDS
    assert (event["processed_at"], event["parse_status"], event["sync_id"]) == (None, None, None)
    project(store.database)
    event = client.get(f"{V1}/m1").json()
    assert (event["processed_at"], event["parse_status"]) == ("2026-01-01T09:00:00Z", "ok")
    assert (event["event_type"], event["raw_type"]) == ("sync.failed", "SyncFailed")
    assert (event["company_id"], event["sync_id"], event["deliveries"]) == ("c1", "s1", 1)


def test_a_body_is_shown_only_on_request(store: Store, client: TestClient) -> None:
    """As text if it is UTF-8, else in base64; null after retention."""
    store.event("m1", body=b'{"a": 1}')
    store.event("m2", body=b"\xff\x00", parse_status="unreadable", parse_error="no JSON")
    store.event("m3", body=None)
    assert "body" not in client.get(f"{V1}/m1").json()
    events = [client.get(f"{V1}/m{n}?body=true").json() for n in (1, 2, 3)]
    assert [(event["body"], event["body_encoding"]) for event in events] == [
        ('{"a": 1}', "utf-8"),
        ("/wA=", "base64"),
        (None, None),
    ]
    unreadable = client.get(f"{V1}?parse_status=unreadable").json()["items"]
    assert [(event["message_id"], event["parse_error"]) for event in unreadable] == [
        ("m2", "no JSON")
    ]
    assert len(client.get(f"{V1}?parse_status=ok").json()["items"]) == 2


def test_a_replay_makes_the_event_pending_again(
    app: FastAPI, store: Store, client: TestClient
) -> None:
    """And wakes the worker, whose projector then applies it; 410 once its body is removed."""
    store.event("m1", body=b"not json", projection_error="it failed", parse_status=None)
    answer = client.post(f"{V1}/m1/replay")
    assert answer.status_code == 202
    assert (answer.json()["processed_at"], answer.json()["projection_error"]) == (None, None)
    assert len(app.state.wakes) == 1
    project(store.database, now=NOW)
    event = client.get(f"{V1}/m1").json()
    assert (event["parse_status"], event["processed_at"]) == ("unreadable", "2026-01-01T12:00:00Z")
    store.event("m2", body=None)
    assert client.post(f"{V1}/m2/replay").status_code == 410
    assert client.get(f"{V1}/m2").json()["processed_at"] is not None
    assert client.post(f"{V1}/unknown/replay").status_code == 404
    assert len(app.state.wakes) == 1


def test_an_event_with_an_empty_body_is_shown_and_replayed(
    store: Store, client: TestClient
) -> None:
    add_event(store.database, "m1", b"")
    project(store.database)
    event = client.get(f"{V1}/m1?body=true").json()
    assert (event["body"], event["body_encoding"], event["parse_status"]) == (
        *("", "utf-8"),
        "unreadable",
    )
    assert client.post(f"{V1}/m1/replay").status_code == 202


def test_the_use_of_secrets_is_shown_without_the_secrets(app: FastAPI, client: TestClient) -> None:
    app.state.metrics.secret_matched(1, after(hours=1))
    assert client.get("/api/v1/webhook-secrets").json() == {
        "items": [
            {"index": 0, "last_used_at": None},
            {"index": 1, "last_used_at": "2026-01-01T10:00:00Z"},
        ],
        "next": None,
        "since": "2026-01-01T09:00:00Z",
    }
