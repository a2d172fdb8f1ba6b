"""A kept webhook is read again: applied if it is understood now, and never twice."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.codat.webhooks import payloads as codat_events
from app.db.engine import Database
from app.db.keep import keep_all, keep_raw
from app.db.tables import events, fetches
from app.domain.models import Delivery, Event
from tests.reports import T0, fetch_row, sync_row
from tests.worker.test_fetcher import FakeCodat, fetch

PATH = "/api/v1/events/m1/replay"
FAILING = json.dumps({"RuleType": "Sync Failed", "CompanyId": "c1", "Data": {"syncId": "s1"}})


def delivery(body: str = FAILING, meaning: Event | None = None) -> Delivery:
    raw = body.encode()
    return Delivery("m1", T0, raw, meaning or codat_events.read(raw))


def keep(database: Database, told: Delivery) -> None:
    with database.writing() as connection:
        keep_all(connection, [told])


def replay(client: TestClient) -> dict[str, Any]:
    answer = client.post(PATH)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("refused", [True, False])
def test_an_event_that_could_not_be_understood_is_applied_now(
    database: Database, client: TestClient, refused: bool
) -> None:
    """By a version that did not know its type, or whose database refused its meaning."""
    if refused:
        with database.writing() as connection:
            keep_raw(connection, delivery(), "its meaning could not be stored")
    else:
        keep(database, delivery(meaning=Event(reason="its type is in no catalog of Codat's")))
    assert client.get("/api/v1/syncs/s1").status_code == 404
    told = replay(client)
    assert (told["reading"], told["event"], told["changed"]) == ("ok", "sync.failed", True)
    assert (told["sync"]["sync_id"], told["sync"]["state"]) == ("s1", "failed")
    owing = fetch_row(database)
    assert owing
    assert owing["state"] == "owed"
    kept = client.get("/api/v1/events/m1?body=true").json()
    assert (kept["reading"], kept["reason"], kept["body"]) == ("ok", None, FAILING)
    steps = client.get("/api/v1/syncs/s1/timeline").json()["items"]
    assert "it is sync.failed, it was un" in steps[-1]["reason"]


def test_replaying_again_changes_nothing(database: Database, client: TestClient) -> None:
    """Not even after Codat's own verdict: an old failure must not come back as news."""
    keep(database, delivery())
    fetch(database, FakeCodat(code=2000, items=()))
    before = dict(sync_row(database))
    assert before["state"] == "completed"
    for _ in range(2):
        told = replay(client)
        assert (told["changed"], told["sync"]["state"]) == (False, "completed")
    assert dict(sync_row(database)) == before
    owing = fetch_row(database)
    assert owing
    assert owing["state"] == "settled"


def test_work_that_was_given_up_starts_again(database: Database, client: TestClient) -> None:
    """As it does when the message is resent in the Portal."""
    keep(database, delivery())
    with database.writing() as connection:
        connection.execute(update(fetches).values(state="dead", due=None))
    assert replay(client)["sync"]["errors"]["state"] == "waiting"


def test_what_is_still_not_understood_says_so(database: Database, client: TestClient) -> None:
    """Its reading and the reason, and no sync."""
    keep(database, delivery("not json"))
    told = replay(client)
    assert (told["reading"], told["changed"], told["sync"]) == ("unreadable", False, None)
    assert "JSON" in told["reason"]


def test_an_event_without_its_body_is_gone(database: Database, client: TestClient) -> None:
    """Retention has removed it; nothing is changed by asking."""
    keep(database, delivery())
    with database.writing() as connection:
        connection.execute(update(events).values(body=None))
    answer = client.post(PATH)
    assert (answer.status_code, answer.json()["status"]) == (410, 410)
    assert sync_row(database)["state"] == "failed"


def test_an_event_nobody_kept_is_404(client: TestClient) -> None:
    """By its message id."""
    assert client.post(PATH).status_code == 404
