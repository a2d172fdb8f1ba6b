"""The platform's door: alive, ready, counted; without a key."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import Counter
from sqlalchemy import text

from app.db import migrations as schema
from app.db import sync_writer as store
from app.db.engine import Database, open_database
from app.web import health
from app.web.health import Checks, Readiness


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


def test_a_database_that_hangs_is_not_ready_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe gets its answer, and many probes hold one thread."""
    release = threading.Event()
    asked: list[int] = []
    checks = Checks(lambda: datetime.now(UTC), lambda: 0.0)

    def hang(_database: Database) -> Readiness:
        asked.append(1)
        release.wait(10)
        return Readiness(ready=True, checks={})

    monkeypatch.setattr(checks, "run", hang)
    monkeypatch.setattr(health, "ANSWER_WITHIN_S", 0.05)

    async def probes() -> tuple[list[Readiness], Readiness]:
        during = list(await asyncio.gather(*(checks.ask(database) for _ in range(5))))
        release.set()
        await asyncio.sleep(0.05)
        return during, await checks.ask(database)

    during, after = asyncio.run(probes())
    assert [found.ready for found in during] == [False] * 5
    assert during[0].checks["database"] == "the database does not answer"
    assert after.ready
    assert len(asked) == 2


def test_metrics_are_this_process_own_counters(app: FastAPI, client: TestClient) -> None:
    """And ask the database nothing."""
    Counter("kept_events", "Events kept.", registry=app.state.registry).inc()
    app.state.database = None
    answer = client.get("/metrics", headers={"Authorization": ""})
    assert answer.headers["content-type"].startswith("text/plain")
    assert "kept_events_total 1.0" in answer.text
