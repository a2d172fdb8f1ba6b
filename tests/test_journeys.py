"""Journeys through the real processes: the service, its worker and a simulated Codat."""

import asyncio
import re
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.testclient import TestClient

from app.bootstrap import create_app, make_retention
from app.db.engine import Database
from app.settings import load_settings
from tests import factories
from tests.conftest import KINDS, NewDatabase
from tests.processes import (
    API_KEY,
    AUTHORIZED,
    CODAT_KEY,
    SECRET,
    TLS,
    Process,
    SimulatedCodat,
    Stage,
    answers,
    count_workers,
    deliver,
    failed_event,
    get,
    stage,
    wait_for,
    wait_until_live,
)
from tests.worker.fakes import Clock

TAKEN_OVER_WITHIN_S = 45  # on a quiet machine 15; a lease that nobody takes over lasts 60
UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


class Service(NamedTuple):
    """A service with its worker, to which Codat sends its webhooks."""

    stage: Stage
    process: Process
    codat: SimulatedCodat


@pytest.fixture(scope="module", params=KINDS)
def service(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    new_database: NewDatabase,
) -> Iterator[Service]:
    """One service for the journeys that need no other settings."""
    folder = tmp_path_factory.mktemp("service")
    with new_database(request.param) as url, stage(folder, url) as found:
        codat = SimulatedCodat(found.simulate())
        process = found.serve()
        codat.subscribe(process)
        yield Service(found, process, codat)


def fetched(process: Process, sync_id: str) -> Any:
    """The sync, once it has ended and its errors are known; else None."""
    found = get(process, f"/syncs/{sync_id}")
    has_ended = found and found["state"] != "started"
    return found if has_ended and found["errors"]["state"] in ("fetched", "not_needed") else None


def metric(process: Process, name: str) -> float:
    text = httpx.get(f"{process.address}/metrics", verify=TLS).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_a_failed_sync_is_known_item_by_item(service: Service) -> None:
    """A webhook in, the error of every item out: the same as at Codat."""
    _, sync_id = service.codat.create_sync(outcome="partly_failed", size=5)
    sync = wait_for(lambda: fetched(service.process, sync_id))
    real = service.codat.call("GET", f"/syncs/{sync_id}")
    assert (sync["state"], sync["outcome"]) == ("failed", "partly_failed")
    assert sync["status_code"] == real["status"]["syncStatusCode"]
    assert sync["error_message"] == real["status"]["errorMessage"]
    rows = get(service.process, f"/syncs/{sync_id}/transactions")["items"]
    assert [(row["transaction_id"], row["status"], row["message"]) for row in rows] == [
        (item["transactionId"], item["status"], item.get("message")) for item in real["items"]
    ]
    assert sync["transactions"]["total"] == len(real["items"])
    kinds = [entry["kind"] for entry in get(service.process, f"/syncs/{sync_id}/timeline")["items"]]
    assert kinds[0] == "delivery"
    assert "fetch" in kinds


def test_syncs_that_no_webhook_reported_are_found(service: Service) -> None:
    """One that was started here and one that was not: `reconcile` finds how both ended."""
    codat = service.codat
    company = codat.create_company()
    body = {"dataset_ids": [str(uuid.uuid4())]}
    with httpx.Client(
        base_url=f"{service.process.address}/api/v1/companies/{company}", headers=AUTHORIZED
    ) as client:
        started = client.post("/syncs", json=body)
        assert started.status_code == 202, started.text
        assert client.post("/syncs", json=body).status_code == 409
        config = client.get("/config", params={"download": "true"})
        assert config.headers["content-disposition"].startswith("attachment")
    sync_id = started.json()["sync_id"]
    assert get(service.process, f"/syncs/{sync_id}")["state"] == "started"
    codat.call("POST", f"/syncs/{sync_id}/advance", {"outcome": "partly_failed", "shapes": []})
    _, other_id = codat.create_sync(outcome="write_error", size=2, shapes=[], tell_start=False)
    done = service.stage.run("reconcile")
    assert done.returncode == 0, done.stderr
    sync = wait_for(lambda: fetched(service.process, sync_id))
    assert (sync["state"], sync["outcome"]) == ("failed", "partly_failed")
    other = wait_for(lambda: fetched(service.process, other_id))
    rows = codat.call("GET", f"/syncs/{other_id}")["items"]  # an ID may have two
    assert (other["state"], other["transactions"]["failed"]) == ("failed", len(rows))


def test_a_fetch_that_was_abandoned_is_redriven(service: Service) -> None:
    """Codat has no such sync, so its fetch ends; `redrive` queues it again."""
    event = failed_event(UNKNOWN_ID, service.codat.create_company())
    assert deliver(service.process, "msg_unknown", event) == 204

    def attempts_when_given_up() -> Any:
        found = get(service.process, f"/syncs/{UNKNOWN_ID}")
        return found and found["errors"]["state"] == "given_up" and len(calls())

    def calls() -> list[Any]:
        entries = get(service.process, f"/syncs/{UNKNOWN_ID}/timeline")["items"]
        return [entry for entry in entries if entry["kind"] == "fetch"]

    before = wait_for(attempts_when_given_up)
    done = service.stage.run("redrive", "--all-dead")
    assert (done.returncode, done.stdout) == (0, "Abandoned fetches queued again: 1\n")
    wait_for(lambda: len(calls()) > before)


def test_refreshes_that_find_nothing_new_change_nothing(service: Service) -> None:
    """Consumers that poll by ETag or `updated_at` would read everything again."""
    company_id, sync_id = service.codat.create_sync(outcome="partly_failed", size=3)
    wait_for(lambda: fetched(service.process, sync_id))
    paths = (f"/syncs/{sync_id}", f"/companies/{company_id}")

    def fetches() -> int:
        entries = get(service.process, f"/syncs/{sync_id}/timeline")["items"]
        return [entry["kind"] for entry in entries].count("fetch")

    address = f"{service.process.address}/api/v1"
    with httpx.Client(base_url=address, headers=AUTHORIZED, verify=TLS) as client:
        before = [client.get(path).headers["etag"] for path in paths]
        for _ in range(3):
            done = fetches()
            assert client.post(f"/syncs/{sync_id}/refresh").status_code == 202
            wait_for(lambda done=done: fetches() > done)  # type: ignore[misc]
            assert [client.get(path).headers["etag"] for path in paths] == before


def test_no_call_is_made_from_the_rate_limit_event_until_the_reset(service: Service) -> None:
    """Codat reports that the quota is used up: fetches wait, and no attempt is lost."""
    service.codat.call("POST", "/quota/exhaust", {})
    wait_for(lambda: metric(service.process, "codat_rate_limit_pause_seconds"))
    calls = service.codat.calls()
    _, sync_id = service.codat.create_sync(outcome="partly_failed", size=3)
    wait_for(lambda: get(service.process, f"/syncs/{sync_id}"))
    time.sleep(1.5)
    assert service.codat.calls() == calls
    assert get(service.process, f"/syncs/{sync_id}")["errors"]["state"] == "waiting"
    service.codat.call("POST", "/quota/reset", {})
    sync = wait_for(lambda: fetched(service.process, sync_id))
    assert sync["errors"]["attempts"] == 1


def test_a_rebuild_while_serving_finds_no_difference(service: Service) -> None:
    """After these journeys, and while events arrive."""
    sync_ids = [
        service.codat.create_sync(outcome="partly_failed", size=n, shapes=["legacy", "new"])[1]
        for n in range(1, 8)
    ]
    done = service.stage.run("rebuild")
    assert done.returncode == 0, done.stderr
    assert ": 0 events, 0 syncs and 0 failed transactions differed" in done.stdout
    wait_for(lambda: all(fetched(service.process, sync_id) for sync_id in sync_ids))


@on_postgresql
def test_another_worker_takes_over_the_fetch_of_a_killed_one(stage: Stage) -> None:
    """SIGKILL while Codat is answering; another worker that runs beside it finishes the fetch."""
    codat = SimulatedCodat(stage.simulate())
    company, sync_id = codat.create_sync(outcome="write_error", size=3, shapes=[])
    codat.call("POST", "/faults", {"kind": "timeout", "call": "transactions", "hold_seconds": 60})
    server = stage.serve(WORKER_IN_WEB="false")
    first = stage.start("worker")
    assert deliver(server, "msg_1", failed_event(sync_id, company)) == 204
    wait_for(lambda: codat.calls("transactions"))
    stage.start("worker")
    wait_for(lambda: count_workers(stage) == 2)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    waiting = get(server, f"/syncs/{sync_id}")
    assert (waiting["state"], waiting["errors"]["state"]) == ("failed", "waiting")
    sync = wait_for(lambda: fetched(server, sync_id), TAKEN_OVER_WITHIN_S)
    assert (sync["transactions"]["failed"], sync["errors"]["attempts"]) == (3, 2)


@on_sqlite
def test_a_restarted_service_goes_on_with_the_fetch_it_had(stage: Stage) -> None:
    """After SIGTERM with the same attempt, after SIGKILL within seconds, before its lease ends."""
    codat = SimulatedCodat(stage.simulate())
    server = stage.serve()

    def start_fetch(call: str) -> str:
        company, sync_id = codat.create_sync(outcome="write_error", size=3, shapes=[])
        codat.call("POST", "/faults", {"kind": "timeout", "call": call, "hold_seconds": 60})
        before = codat.calls(call)
        assert deliver(server, f"msg_{sync_id}", failed_event(sync_id, company)) == 204
        wait_for(lambda: codat.calls(call) > before)
        return sync_id

    sync_id = start_fetch("sync_status")
    assert server.stop() == 0
    server = stage.serve()
    assert wait_for(lambda: fetched(server, sync_id))["errors"]["attempts"] == 1

    killed_id = start_fetch("transactions")
    killed_at = time.monotonic()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    server = stage.serve()
    in_time = TAKEN_OVER_WITHIN_S - (time.monotonic() - killed_at)
    assert wait_for(lambda: fetched(server, killed_id), in_time)["transactions"]["failed"] == 3


@on_postgresql
def test_without_a_worker_events_are_stored_and_shown_as_waiting(stage: Stage) -> None:
    """Nothing is lost; everything is projected once a worker runs, also while Codat is down."""
    server = stage.serve(WORKER_IN_WEB="false")
    for n in range(20):
        assert deliver(server, f"msg_{n}", failed_event(f"s{n}")) == 204
    ready = httpx.get(f"{server.address}/readyz", verify=TLS)
    assert (ready.status_code, ready.json()["checks"]["worker"]) == (
        503,
        "no worker is running",
    )
    events = get(server, "/events")["items"]
    assert [event["processed_at"] for event in events] == [None] * 20
    assert get(server, "/syncs")["items"] == []
    assert metric(server, "webhook_events_pending") == 20
    wait_for(lambda: "20 webhooks received, waiting to be processed" in page(server, "/"))
    assert "no worker is running" in page(server, "/")
    worker = stage.start("worker")
    wait_for(lambda: metric(server, "webhook_events_pending") == 0)
    assert len(get(server, "/syncs")["items"]) == 20
    assert answers(server, "/readyz")
    assert "waiting to be processed" not in page(server, "/")

    def attempted() -> Any:
        found = get(server, "/syncs/s0")
        return found if found["errors"]["last_error"] else None

    sync = wait_for(attempted)
    assert (sync["state"], sync["errors"]["state"]) == ("failed", "waiting")
    assert "Cannot connect to Codat" in sync["errors"]["last_error"]
    assert datetime.fromisoformat(sync["errors"]["next_attempt_at"])
    assert sync["transactions"]["failed"] is None
    assert worker.stop() == 0


def page(process: Process, path: str) -> str:
    """A page as a signed-in user sees it."""
    with httpx.Client(base_url=process.address, verify=TLS) as client:
        assert client.post("/sign-in", data={"key": API_KEY}).status_code == 303
        return client.get(path).text


@on_sqlite
def test_an_event_that_cannot_be_applied_is_shown_and_stops_no_other(stage: Stage) -> None:
    """In the API, in `doctor` and in the metrics; after a fix it is replayed."""
    broken = stage.start("serve", python=("-m", "tests.planted", "raise-project"))
    wait_until_live(broken)
    for message_id, sync_id in (("m1", "s1"), ("m2", "poison"), ("m3", "s3")):
        assert deliver(broken, message_id, failed_event(sync_id)) == 204
    wait_for(lambda: metric(broken, "webhook_events_projection_errors"))
    wait_for(lambda: get(broken, "/syncs/s3"))
    assert get(broken, "/syncs/s1")["state"] == "failed"
    assert get(broken, "/syncs/poison") is None
    event = get(broken, "/events/m2")
    assert "planted" in event["projection_error"]
    assert event["processed_at"]
    done = stage.run("doctor")
    assert "events_failed: Webhook events that could not be processed: 1." in done.stdout
    assert broken.stop() == 0
    fixed = stage.serve()
    replayed = httpx.post(
        f"{fixed.address}/api/v1/events/m2/replay", headers=AUTHORIZED, verify=TLS
    )
    assert replayed.status_code == 202
    wait_for(lambda: get(fixed, "/syncs/poison"))
    assert get(fixed, "/events/m2")["projection_error"] is None
    assert metric(fixed, "webhook_events_projection_errors") == 0


@pytest.mark.parametrize("days", [30, 0])
def test_changes_are_removed_after_keep_changes_days(
    database: Database, database_url: str, days: int
) -> None:
    """A consumer that comes back later gets 410 and no silent gap; the syncs stay. 0: unlimited."""
    clock = Clock()
    app = create_app(
        load_settings(
            database_url=database_url, api_keys=API_KEY, codat_api_key=CODAT_KEY,
            codat_webhook_secrets=SECRET, worker_in_web=False, keep_changes_days=days,
        ),
        clock=clock,
    )  # fmt: skip
    factories.deliver(database, "m1", event_type=factories.STARTED)
    with TestClient(app, headers=AUTHORIZED) as client:
        first = client.get("/api/v1/changes").json()["items"][-1]["cursor"]
        factories.deliver(database, "m2")
        clock.now += timedelta(days=31)
        retention = make_retention(app.state.settings, database, clock)
        asyncio.run(retention.run())
        late = client.get("/api/v1/changes", params={"after": first})
        assert late.status_code == (410 if days else 200), late.text
        assert len(client.get("/api/v1/changes").json()["items"]) == (0 if days else 2)
        assert client.get("/api/v1/syncs/s1").json()["state"] == "failed"
