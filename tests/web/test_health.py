"""Health endpoints: alive, ready, metrics; without a key."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.db import migrations, workers
from app.db.engine import Database, open_database
from app.web.health import ANSWER_WITHIN_S, Readiness, ReadinessProbe
from app.web.shared_call import SharedCall
from tests.factories import add_event
from tests.web.store import NOW

NO_KEY = {"Authorization": ""}


def beat(database: Database, seconds_ago: float = 0) -> None:
    with database.writing() as connection:
        workers.beat(connection, "w1", NOW - timedelta(seconds=seconds_ago))


def test_it_is_alive_whatever_the_database_does(app: FastAPI, client: TestClient) -> None:
    app.state.database = None
    assert client.get("/livez", headers=NO_KEY).json() == {"status": "ok"}


def test_it_is_ready_when_database_schema_and_worker_are(
    database: Database, client: TestClient
) -> None:
    """Also while events wait for the projector."""
    beat(database, 50)
    add_event(database, "m1")
    answer = client.get("/readyz", headers=NO_KEY)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "ready": True,
        "checks": {"database": "ok", "schema": "ok", "worker": "ok"},
    }


def test_a_missing_worker_is_named(database: Database, client: TestClient) -> None:
    """If none was ever seen, or none for a minute."""
    assert client.get("/readyz").json()["checks"]["worker"] == "no worker is running"
    beat(database, 90)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["worker"] == "no worker has been seen for 90 s"


def test_it_is_ready_while_queries_use_up_the_pool(database_url: str) -> None:
    """Slow queries are no reason to take the service out of the balancer: deliveries work."""
    database = open_database(database_url, pool_size=1)
    beat(database)
    with database.reading() as connection:
        connection.execute(text("SELECT 1"))
        assert ReadinessProbe(database, lambda: NOW).check().ready
    database.close()


@pytest.mark.own_database
def test_a_wrong_schema_is_named_with_the_remedy(database: Database, client: TestClient) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "migrate" in answer.json()["checks"]["schema"]


def test_an_unreachable_database_is_named_without_its_address(
    app: FastAPI, client: TestClient
) -> None:
    unreachable = open_database("postgresql://someone:hush@127.0.0.1:1/none")
    app.state.readiness_probe = ReadinessProbe(unreachable, lambda: NOW)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] == "the database cannot be reached"
    assert "hush" not in answer.text
    assert "127.0.0.1" not in answer.text


def test_the_schema_is_checked_once_a_minute(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe runs every few seconds."""
    checked: list[int] = []
    now = [0.0]
    monkeypatch.setattr(migrations, "check", lambda _: checked.append(1))
    probe = ReadinessProbe(database, lambda: NOW, lambda: now[0])
    for at in (0, 1, 59, 61):
        now[0] = at
        probe.check()
    assert len(checked) == 2


def test_a_database_that_hangs_is_not_ready(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe gets its answer in time, and many probes occupy one thread."""
    release = threading.Event()
    runs: list[int] = []

    def hang() -> Readiness:
        runs.append(1)
        release.wait(10)
        return Readiness(ready=True, checks={})

    probe = ReadinessProbe(database, lambda: NOW)
    monkeypatch.setattr(probe, "_check", SharedCall(hang, 0.05))

    async def run() -> tuple[list[Readiness], Readiness]:
        during = list(await asyncio.gather(*(probe() for _ in range(5))))
        release.set()
        await asyncio.sleep(0.05)
        return during, await probe()

    during, later = asyncio.run(run())
    assert [readiness.ready for readiness in during] == [False] * 5
    assert during[0].checks["database"] == "the database does not answer"
    assert later.ready
    assert len(runs) == 2


def test_a_busy_worker_does_not_make_the_database_look_down(database: Database) -> None:
    """All threads that record fetches wait, and so do more jobs; the probe has its own thread."""
    beat(database)
    release = threading.Event()

    async def run() -> Readiness:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        jobs = [asyncio.create_task(asyncio.to_thread(release.wait, 10)) for _ in range(8)]
        await asyncio.sleep(0)
        try:
            return await ReadinessProbe(database, lambda: NOW)()
        finally:
            release.set()
            await asyncio.gather(*jobs)

    began = time.monotonic()
    assert asyncio.run(run()).ready
    assert time.monotonic() - began < ANSWER_WITHIN_S


def test_metrics_need_no_key(client: TestClient) -> None:
    answer = client.get("/metrics", headers=NO_KEY)
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'build_info{version="1.2.3"} 1.0' in answer.text
