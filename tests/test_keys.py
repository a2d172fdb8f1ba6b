"""Keys: rotated under traffic without a refusal, compared in constant time."""

import hashlib
import hmac
import itertools
import threading
import time
from base64 import b64encode
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.settings import load_settings
from app.web import auth as deps
from bench.ground import kept_ids
from bench.hostile import signed_headers, sync_body
from tests.processes import API_KEY, TLS, Process, Stage, answers, free_port, wait_for

OLD = "whsec_" + b64encode(b"o" * 32).decode()
NEW = "whsec_" + b64encode(b"n" * 32).decode()


class Sender:
    """Delivers on and on, to the next replica when one cannot be reached, like a proxy."""

    def __init__(self, doors: list[str]) -> None:
        self.doors = doors
        self.secrets: tuple[str, ...] = (OLD,)
        self.answers: Counter[int] = Counter()
        self.acknowledged: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(3)]

    def __enter__(self) -> "Sender":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: int) -> None:
        with httpx.Client(timeout=15) as client:
            for n in itertools.count():
                if self._over.is_set():
                    return
                self._deliver(client, f"msg_{worker}_{n}", n)
                time.sleep(0.03)  # leaves the machine some time for the restarts

    def _deliver(self, client: httpx.Client, message_id: str, n: int) -> None:
        body = sync_body(message_id)
        secrets = self.secrets
        both = [signed_headers(body, message_id, secret=secret) for secret in secrets]
        headers = both[0] | {
            "webhook-signature": " ".join(each["webhook-signature"] for each in both)
        }
        for door in itertools.islice(itertools.cycle(self.doors), n % 2, n % 2 + 200):
            try:
                answer = client.post(door, content=body, headers=headers)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code == 204:
                self.acknowledged.append(message_id)
            return
        self.answers[0] += 1

    def more(self, deliveries: int) -> None:
        """Wait until so many more have been answered."""
        enough = sum(self.answers.values()) + deliveries
        wait_for(lambda: sum(self.answers.values()) >= enough, 30)


def start(playing: Stage, port: int, *secrets: str) -> Process:
    process = playing.start(
        "serve", PORT=str(port), WORKER_IN_WEB="false", CODAT_WEBHOOK_SECRETS=",".join(secrets)
    )
    process.address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(process, "/livez"))
    return process


def uses(process: Process) -> Any:
    answer = httpx.get(
        f"{process.address}/api/v1/webhook-secrets",
        headers={"authorization": f"Bearer {API_KEY}"},
        verify=TLS,
    )
    assert answer.status_code == 200
    assert "whsec" not in answer.text
    return [each["last_used_at"] for each in answer.json()["items"]]


@pytest.mark.timeout(300)
def test_secrets_are_rotated_under_traffic_without_one_refusal(playing: Stage) -> None:
    """Two replicas, restarted one by one: old; old and new; Codat changes over; new alone."""
    ports = [free_port(), free_port()]
    replicas = [start(playing, port, OLD) for port in ports]
    with Sender([f"{each.address}/webhooks/codat" for each in replicas]) as sender:

        def restart_all(*secrets: str) -> None:
            for n, port in enumerate(ports):
                sender.more(20)
                assert replicas[n].stop() == 0
                replicas[n] = start(playing, port, *secrets)
            sender.more(20)

        sender.more(40)
        restart_all(OLD, NEW)
        sender.secrets = (NEW, OLD)
        sender.more(40)
        sender.secrets = (NEW,)
        sender.more(40)
        began = datetime.now(UTC)
        sender.more(60)
        for each in replicas:
            old, new = uses(each)
            assert datetime.fromisoformat(new) > began
            assert datetime.fromisoformat(old) < began
        restart_all(NEW)
    assert set(sender.answers) == {204}
    assert set(sender.acknowledged) == set(kept_ids(playing.database_url))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_use_of_a_secret_is_shown_and_counted(playing: Stage) -> None:
    """By place and time; nothing before the first use, and nothing by a forgery."""
    process = start(playing, free_port(), OLD, NEW)
    assert uses(process) == [None, None]
    began = datetime.now(UTC)
    body = sync_body()
    headers = signed_headers(body, "m", secret=NEW)
    sent = httpx.post(
        f"{process.address}/webhooks/codat", content=body, headers=headers, verify=TLS
    )
    assert sent.status_code == 204
    forged = httpx.post(
        f"{process.address}/webhooks/codat", content=b"{}", headers=headers, verify=TLS
    )
    assert forged.status_code == 401
    old, new = uses(process)
    assert old is None
    assert began <= datetime.fromisoformat(new) <= datetime.now(UTC)
    shown = httpx.get(f"{process.address}/metrics", verify=TLS).text
    assert 'webhook_secret_last_used_timestamp_seconds{index="0"} 0.0' in shown
    assert 'webhook_secret_used_total{index="1"} 1.0' in shown
    assert "whsec" not in shown


KEYS = ("first-key-of-our-own", "second-key-of-our-own", "third-key-of-our-own")


@pytest.mark.parametrize(
    "given", [b"", b"x", b"first-key-of-our-owX", KEYS[0].encode(), KEYS[2].encode(), b"y" * 10_000]
)
def test_every_key_is_compared_whole_whatever_is_given(
    given: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No comparison ends early, and none is left out after a match: time tells nothing."""
    compared: list[tuple[int, int]] = []
    honest = hmac.compare_digest

    def noting(ours: bytes, theirs: bytes) -> bool:
        compared.append((len(ours), len(theirs)))
        return honest(ours, theirs)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    settings = load_settings(api_keys=",".join(KEYS))
    assert deps.is_key(settings, [given]) is (given.decode() in KEYS)
    size = hashlib.sha256().digest_size
    assert compared == [(size, size)] * len(KEYS)
