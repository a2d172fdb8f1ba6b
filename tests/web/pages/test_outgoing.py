"""The pages of outgoing messages, and sending one again."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import insert, select

from app.db import outgoing
from app.db.outgoing import EVERYONE
from app.db.tables import jobs, outgoing_messages
from app.domain.outgoing import recipient_name
from tests.web.pages.html import form_token, links, read, text
from tests.web.store import T0, Store, after

HOOK = "https://ours.example/hook?token=secret-token"
RECIPIENT = recipient_name("webhook", HOOK)


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    """With one receiver."""
    hooks = (SecretStr(HOOK),)
    app.state.settings = app.state.settings.model_copy(update={"notify_webhook_urls": hooks})
    return app


def add(store: Store, message_id: str, state: str | None = "done", **fields: Any) -> int:
    """A message with its job; returns its key. `state` None: without a job."""
    values = {"message_id": message_id, "recipient": RECIPIENT, "kind": "sync.failed",
              "body": json.dumps({"type": message_id}), "created_at": T0}  # fmt: skip
    job = {name: fields.pop(name) for name in ("attempts", "last_error", "run_at", "lease_token")
           if name in fields}  # fmt: skip
    with store.database.writing() as connection:
        added = connection.execute(insert(outgoing_messages), values | fields)
        key = int(added.inserted_primary_key[0])  # type: ignore[index]
        if state:
            row = {"kind": "message", "key": key, "group_key": RECIPIENT, "state": state,
                   "run_at": T0, "generation": 1, "attempts": 1}  # fmt: skip
            connection.execute(insert(jobs), row | job)
    return key


@pytest.fixture
def messages(store: Store) -> dict[str, int]:
    """One message of each state, the newest last."""
    store.company("c1", "Toft stores")
    pk = store.failed()
    return {
        "m1": add(store, "m1", ended_at=after(hours=1), sync_pk=pk, company_id="c1"),
        "m2": add(store, "m2", "dead", attempts=9, last_error="answered 500"),
        "m3": add(store, "m3", "pending", run_at=after(hours=4), last_error="answered 503"),
        "m4": add(store, "m4", None, recipient=EVERYONE),
        "m5": add(store, "m5", "done", recipient="webhook:0123456789abcdef"),
    }


def test_messages_are_listed_with_their_results(messages: dict[str, int], user: TestClient) -> None:
    html = user.get("/outgoing").text
    page = text(html)
    assert "Delivered sync.failed m1 ours.example (webhook) 1 Delivered 1 Jan, 10:00." in page
    assert "m2 ours.example (webhook) 9 Stopped after 9 attempts: answered 500." in page
    assert "Last attempt: answered 503. Next attempt 1 Jan, 13:00." in page
    assert "Waiting sync.failed m4 – 0 Waiting for a worker." in page
    assert "m5 No longer set" in page
    assert "secret-token" not in html
    assert page.index("m5") < page.index("m1")
    assert "Toft stores" in page
    for state, shown in (("given_up", "m2"), ("waiting", "m3 m4"), ("delivered", "m1 m5")):
        page = read(user, f"/outgoing?state={state}")
        assert {name for name in messages if f" {name} " in page} == set(shown.split())
    assert "State: use" in read(user, "/outgoing?state=lost", 422)


def test_messages_are_paged_both_ways(messages: dict[str, int], user: TestClient) -> None:
    first = user.get("/outgoing?limit=2").text
    (following,) = links(first, "cursor=")
    second = user.get(following).text
    (previous,) = links(second, "before=")
    assert links(user.get(previous).text, "/outgoing/") == links(first, "/outgoing/")
    assert links(second, "/outgoing/") == [f"/outgoing/{messages[name]}" for name in ("m3", "m2")]


def test_a_message_has_its_body_and_its_attempts(
    store: Store, messages: dict[str, int], user: TestClient
) -> None:
    with store.database.writing() as connection:
        for number in range(1, 25):
            outgoing.log_attempt(
                connection, messages["m2"], after(hours=number), f"answered {number}"
            )
    page = read(user, f"/outgoing/{messages['m2']}")
    assert '{"type": "m2"}' in page
    assert page.index("Answered 24") < page.index("Answered 23")
    assert "Answered 5 " in page
    assert "Answered 4 " not in page
    assert "No attempts yet." in read(user, f"/outgoing/{messages['m4']}")
    assert "Sync s1" in read(user, f"/outgoing/{messages['m1']}")
    for key in ("999", "0", "x", str(2**63)):
        assert user.get(f"/outgoing/{key}").status_code in (404, 422)


def test_a_message_is_sent_again(
    store: Store, app: FastAPI, messages: dict[str, int], user: TestClient
) -> None:
    data = {"csrf": form_token(user)}
    for name in ("m1", "m2"):
        answer = user.post(f"/outgoing/{messages[name]}/resend", data=data)
        assert "The message is being sent again." in text(answer.text)
        assert "Waiting" in text(answer.text)
    assert len(app.state.wakes) == 2
    with store.database.reading() as connection:
        rows = connection.execute(select(jobs.c.key, jobs.c.state, jobs.c.attempts)).all()
    assert (messages["m1"], "pending", 0) in rows
    assert (messages["m2"], "pending", 0) in rows
    assert "Sent again sync.failed (m1)" in read(user, "/syncs/s1")
    for name, reason in (("m4", "A worker has not processed this message yet."),
                         ("m5", "The address of this receiver is no longer set.")):  # fmt: skip
        assert reason in read(user, f"/outgoing/{messages[name]}")
        answer = user.post(f"/outgoing/{messages[name]}/resend", data=data)
        assert answer.status_code == 409
        assert reason in text(answer.text)
    assert user.post(f"/outgoing/{messages['m1']}/resend").status_code == 403
    assert user.post("/outgoing/999/resend", data=data).status_code == 404
