"""What leaves, with real processes: a receiver that fails at first, kill -9, an open stream."""

import json
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.db.engine import open_database
from app.db.tables import transactions
from tests.processes import API_KEY, SECRET, TLS, Process, Stage, run, wait_for
from tests.receiver import SIGNING_SECRET, Receiver, receiver
from tests.test_journeys import a_sync, control
from tests.web.shelf import Shelf

AUTH = {"authorization": f"Bearer {API_KEY}"}


def addressed(receiving: Receiver) -> dict[str, str]:
    return {
        "NOTIFY_WEBHOOK_URLS": f"{receiving.address}/in",
        "RETRY_WEBHOOK_URL": f"{receiving.address}/retry",
        "NOTIFY_SIGNING_SECRET": SIGNING_SECRET,
    }


class Stream:
    """An open stream of changes, read by a thread of its own."""

    def __init__(self, service: Process) -> None:
        self.told: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._address = f"{service.address}/api/v1/changes"
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        headers = {**AUTH, "accept": "text/event-stream"}
        with httpx.stream("GET", self._address, headers=headers, timeout=30) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.told.append(json.loads(line.removeprefix("data: ")))
        self.ended.set()


def test_a_failed_sync_reaches_a_receiver_that_failed_at_first(playing: Stage) -> None:
    """Signed, under the same id again; the stream tells it too, and ends with the process."""
    codat = playing.simulate()
    with receiver(failures=1) as receiving:
        service = playing.serve(**addressed(receiving))
        stream = Stream(service)
        door = f"{service.address}/webhooks/codat"
        control(codat, "/subscriptions", {"url": door, "secret": SECRET})
        _, sync_id = a_sync(codat, outcome="partly_failed", size=4)
        wait_for(lambda: len(receiving.got) >= 2)
        (_, first, body), (_, second, same) = receiving.got[:2]
        assert first == second
        assert body == same
        assert (body["type"], body["data"]["sync_id"]) == ("sync.failed", sync_id)
        failed = body["data"]["failed_transactions"]
        assert len(failed) == body["data"]["transactions"]["failed"] > 0
        wait_for(lambda: any(each["kind"] == "transaction" for each in stream.told))
        assert stream.told[0]["sync_id"] == sync_id
        listed = httpx.get(
            f"{service.address}/api/v1/changes?limit=200", headers=AUTH, verify=TLS
        ).json()
        wait_for(lambda: stream.told == listed["items"])
        assert service.stop() == 0
        assert stream.ended.wait(5)


def test_what_was_owed_is_delivered_although_the_service_was_killed(playing: Stage) -> None:
    """kill -9 between the commit and the sending; another process sends it."""
    database = open_database(playing.database_url)
    Shelf(database).failed()
    database.close()
    with receiver() as receiving:
        settings = addressed(receiving)
        service = playing.serve(WORKER_IN_WEB="false", **settings)
        asked = httpx.post(f"{service.address}/api/v1/syncs/s1/retry", headers=AUTH, verify=TLS)
        assert asked.status_code == 202
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        assert receiving.got == []
        worker = playing.start("worker", **settings)
        wait_for(lambda: bool(receiving.got))
        ((path, message_id, body),) = receiving.got
        assert (path, message_id) == ("/retry", asked.json()["message_id"])
        assert body["type"] == "retry.requested"
        assert [row["message"] for row in body["data"]["failed_transactions"]] == [
            "Account is closed"
        ]
        assert worker.stop() == 0


def test_an_alert_reaches_programs_and_people(playing: Stage) -> None:
    """As a signed webhook, and in words through Apprise."""
    database = open_database(playing.database_url)
    Shelf(database).failed(at=datetime.now(UTC))
    with database.writing() as connection:
        connection.execute(transactions.update().values(cause="account_inactive"))
    database.close()
    with receiver() as receiving:
        words = receiving.address.replace("http://", "json://") + "/words"
        worker = playing.start("worker", NOTIFY_URLS=words, **addressed(receiving))
        wait_for(lambda: len(receiving.got) >= 2)
        assert receiving.kinds() == ["alert.opened"]
        (said,) = [body for path, _, body in receiving.got if path.startswith("/words")]
        assert "account is inactive" in said["message"]
        assert worker.stop() == 0
        assert "/words" not in worker.log.read_text()


def test_an_address_without_a_secret_stops_the_start(tmp_path: Path) -> None:
    """With one line that names the setting."""
    done = run(tmp_path, "serve", NOTIFY_WEBHOOK_URLS="https://receiver.example/in")
    assert done.returncode == 1
    assert done.stderr.startswith("error: NOTIFY_SIGNING_SECRET: is not set")
    assert len(done.stderr.splitlines()) == 1
