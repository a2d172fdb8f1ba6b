"""The pages of stored webhooks."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.web.pages.html import form_token, links, read, text
from tests.web.store import Store


@pytest.fixture
def events(store: Store) -> Store:
    store.company("c1", "Toft stores")
    store.event(
        "m1", parse_status="unreadable", raw_type=None, body=b"<b>oops</b>",
        parse_error="Invalid JSON: Expecting value: line 1 column 1 (char 0)",
    )  # fmt: skip
    store.event(
        "m2", parse_status="unknown", parse_error="Event type not in Codat's catalog",
        company_id="c1", body=b"\xff\x00",
    )  # fmt: skip
    store.event("m3", company_id="c2", body=None, deliveries=2)
    store.event("m4", projection_error="KeyError: 'id'")
    store.event("m5", processed_at=None, parse_status=None, raw_type=None, body=b"")
    return store


@pytest.mark.parametrize(
    ("query", "shown"),
    [("", "421"), ("?show=unreadable", "1"), ("?show=unknown", "2"), ("?show=ok", "43"),
     ("?show=all", "54321")],
)  # fmt: skip
def test_webhooks_are_listed_by_result(
    events: Store, user: TestClient, query: str, shown: str
) -> None:
    assert re.findall(r" m(\d)\b", read(user, f"/events{query}")) == list(shown)


def test_each_webhook_has_its_result_and_reason_in_words(events: Store, user: TestClient) -> None:
    page = read(user, "/events?show=all")
    assert "✕ Invalid – Invalid JSON – m1" in page
    assert "? Unknown type SyncFailed Event type not in Codat's catalog Toft stores m2" in page
    assert "2 deliveries – Processed SyncFailed – c2 m3" in page
    assert "✕ Failed SyncFailed KeyError – m4" in page
    assert "… Waiting – – – m5" in page


def test_a_webhook_shows_its_body_as_text(events: Store, user: TestClient) -> None:
    page = read(user, "/events/m1")
    assert "Invalid JSON Details Expecting value: line 1 column 1 (char 0)" in page
    assert "Send the message ID to your administrator." in page
    assert "&lt;b&gt;oops&lt;/b&gt;" in user.get("/events/m1").text
    assert "Company Toft stores" in read(user, "/events/m2")
    assert "Base64, because it is not text) /wA=" in read(user, "/events/m2")
    page = read(user, "/events/m3")
    assert "The body has been removed after the retention period." in page
    assert "Send the message ID" not in page
    assert "The body is empty." in read(user, "/events/m5")
    assert "Webhook not found" in read(user, "/events/m9", 404)


def test_a_webhook_is_replayed_from_its_page(events: Store, app: FastAPI, user: TestClient) -> None:
    data = {"csrf": form_token(user)}
    answer = user.post("/events/m1/replay", data=data)
    assert answer.url.path == "/events/m1"
    assert "The webhook is being processed again." in text(answer.text)
    assert "Waiting" in text(answer.text)
    assert len(app.state.wakes) == 1
    assert user.post("/events/m5/replay", data=data).status_code == 200  # an empty body is a body
    assert user.post("/events/m3/replay", data=data).status_code == 410
    disabled = re.compile(r"<button[^>]*disabled[^>]*>Replay")
    assert disabled.search(user.get("/events/m3").text)
    assert not disabled.search(user.get("/events/m5").text)
    assert user.post("/events/m9/replay", data=data).status_code == 404
    assert user.post("/events/m1/replay").status_code == 403


def test_a_webhook_of_an_unknown_type_links_to_no_company(events: Store, user: TestClient) -> None:
    assert links(user.get("/events/m2").text, "/companies/") == []
    assert links(user.get("/events/m3").text, "/companies/") == ["/companies/c2"]
