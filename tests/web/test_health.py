"""The platform's door: alive, ready, counted; without a key."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import Counter
from sqlalchemy import text

from app.errors import StorageUnavailable
from app.storage import schema, store
from app.storage.database import Database, open_database
from app.web import health
from app.web.health import Checks


def beat(database: Database, ago: float = 0) -> None:
    with database.writing() as connection:
        store.beat(connection, "w1", datetime.now(UTC) - timedelta(seconds=ago))


def test_it_is_alive_whatever_the_database_does(app: FastAPI, client: TestClient) -> None:
    """The process only."""
    app.state.database = None
    assert client.get("/livez", headers={"Authorization": ""}).json() == {"status": "ok"}


def test_it_is_ready_when_all_three_are(database: Database, client: TestClient) -> None:
    """Database, schema, worker."""
    beat(database, 50)
    answer = client.get("/readyz", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "checks": {"database": "ok", "schema": "ok", "worker": "ok"},
    }


def test_a_silent_worker_is_named(database: Database, client: TestClient) -> None:
    """Never seen, or too long ago."""
    assert client.get("/readyz").json()["checks"]["worker"] == "no worker has been seen"
    beat(database, 90)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "for 9" in answer.json()["checks"]["worker"]


def test_a_wrong_schema_is_named(database: Database, client: TestClient) -> None:
    """With the remedy."""
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "migrate" in answer.json()["checks"]["schema"]


def test_an_unreachable_database_is_named_without_its_address(
    app: FastAPI, client: TestClient
) -> None:
    """Nothing an outsider could use."""
    app.state.database = open_database("postgresql://someone:hush@127.0.0.1:1/none")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "the database cannot be reached"
    assert "hush" not in answer.text
    assert "127.0.0.1" not in answer.text


def test_the_schema_is_compared_once_a_minute(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To compare it means to read the migrations from disk."""
    compared: list[int] = []
    now = [0.0]
    monkeypatch.setattr(schema, "check", lambda _: compared.append(1))
    checks = Checks(lambda: datetime.now(UTC), lambda: now[0])
    for at in (0, 1, 59, 61):
        now[0] = at
        checks.run(database)
    assert len(compared) == 2


def test_metrics_are_this_process_own_counters(app: FastAPI, client: TestClient) -> None:
    """And ask the database nothing."""
    Counter("kept_events", "Events kept.", registry=app.state.registry).inc()
    app.state.database = None
    answer = client.get("/metrics", headers={"Authorization": ""})
    assert answer.headers["content-type"].startswith("text/plain")
    assert "kept_events_total 1.0" in answer.text


class Hanging:
    """A database that takes the question and does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()

    def reading(self) -> Any:
        self.asked += 1
        self.go.wait(10)
        raise StorageUnavailable("it was away")


def test_a_database_that_hangs_is_named_in_time(
    app: FastAPI, client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is asked, one question waits; and it recovers."""
    monkeypatch.setattr(health, "ANSWER_WITHIN_S", 0.2)
    app.state.database = hanging = Hanging()
    for _ in range(3):
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] == "the database does not answer"
    assert hanging.asked == 1
    hanging.go.set()
    app.state.database = database
    beat(database)
    end = time.monotonic() + 5
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end


def test_an_unforeseen_error_in_a_check_is_not_waited_for(app: FastAPI, client: TestClient) -> None:
    """It is an error of ours, and at once."""
    app.state.database = None
    assert client.get("/readyz").status_code == 500
