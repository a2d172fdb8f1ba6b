"""Outgoing messages from real processes to a receiver: repeated until delivered, after kill -9."""

import json
import signal
import threading
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.db.engine import open_database
from tests.processes import AUTHORIZED, TLS, Process, SimulatedCodat, Stage, get, wait_for
from tests.receiver import SIGNING_SECRET, Receiver, receiver
from tests.web.store import Store, failed_row

CLOSED = "The account is inactive"


def addresses(receiving: Receiver) -> dict[str, str]:
    return {
        "NOTIFY_WEBHOOK_URLS": f"{receiving.address}/in",
        "RETRY_WEBHOOK_URL": f"{receiving.address}/retry",
        "NOTIFY_URLS": receiving.address.replace("http://", "json://") + "/people",
        "NOTIFY_SIGNING_SECRET": SIGNING_SECRET,
    }


class Stream:
    """An open event stream of changes, read by a thread."""

    def __init__(self, process: Process) -> None:
        self.items: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._url = f"{process.address}/api/v1/changes"
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        headers = {**AUTHORIZED, "accept": "text/event-stream"}
        with httpx.stream("GET", self._url, headers=headers, timeout=60, verify=TLS) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.items.append(json.loads(line.removeprefix("data: ")))
        self.ended.set()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_failed_sync_reaches_a_receiver_that_failed_at_first(stage: Stage) -> None:
    """Signed, and again under the same id; the event stream has it too, and ends with SIGTERM."""
    codat = SimulatedCodat(stage.simulate())
    with receiver(failures=1) as receiving:
        server = stage.serve(**addresses(receiving))
        stream = Stream(server)
        codat.subscribe(server)
        _, sync_id = codat.create_sync(outcome="partly_failed", size=4)
        wait_for(lambda: len(receiving.received) >= 2)
        first, second = receiving.received[:2]
        assert first == second
        data = first.body["data"]
        assert (first.body["type"], data["sync_id"]) == ("sync.failed", sync_id)
        assert len(data["failed_transactions"]) == data["transactions"]["failed"] > 0
        wait_for(lambda: any(item["kind"] == "transaction" for item in stream.items))
        assert stream.items[0]["sync_id"] == sync_id
        wait_for(lambda: stream.items == get(server, "/changes", limit=200)["items"])
        assert server.stop() == 0
        assert stream.ended.wait(5)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_message_does_not_depend_on_who_writes_it(stage: Stage) -> None:
    """A replica without receivers records the end of a sync; one that has them sends it, once."""
    codat = SimulatedCodat(stage.simulate())
    server = stage.serve()
    codat.subscribe(server)
    company_id, sync_id = codat.create_sync(outcome="partly_failed", size=4)
    wait_for(lambda: fetched(server, sync_id))
    with receiver() as receiving:
        workers = [stage.start("worker", **addresses(receiving)) for _ in range(2)]
        wait_for(lambda: "sync.failed" in receiving.types())
        time.sleep(1.5)  # each worker has looked again
        assert receiving.types().count("sync.failed") == 1
        (message,) = [m for m in receiving.received if m.body["type"] == "sync.failed"]
        assert message.body["data"]["company_id"] == company_id
        assert [worker.stop() for worker in workers] == [0, 0]


def fetched(server: Process, sync_id: str) -> bool:
    found = get(server, "/syncs", q=sync_id)["items"]
    return bool(found) and found[0]["errors"]["state"] == "fetched"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_messages_are_delivered_although_the_service_was_killed(stage: Stage) -> None:
    """kill -9 between commit and delivery; a worker sends what was requested, and an alert."""
    database = open_database(stage.database_url)
    Store(database).failed(rows=(failed_row(message=CLOSED),), at=datetime.now(UTC))
    database.close()
    with receiver() as receiving:
        settings = addresses(receiving)
        server = stage.serve(WORKER_IN_WEB="false", **settings)
        url = f"{server.address}/api/v1/syncs/s1/retry"
        requested = httpx.post(url, headers=AUTHORIZED, verify=TLS)
        assert requested.status_code == 202
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert receiving.received == []
        worker = stage.start("worker", **settings)
        wait_for(lambda: len(receiving.received) >= 4)
        by_path = {message.path.rstrip("/"): message for message in receiving.received}
        assert set(by_path) == {"/retry", "/in", "/people"}
        assert by_path["/retry"].message_id == requested.json()["message_id"]
        retry = by_path["/retry"].body
        assert retry["type"] == "retry.requested"
        assert [row["message"] for row in retry["data"]["failed_transactions"]] == [CLOSED]
        assert sorted(receiving.types()) == ["alert.opened", "sync.failed"]
        assert "account inactive" in by_path["/people"].body["message"].lower()
        assert worker.stop() == 0
        assert "/people" not in worker.logged()
