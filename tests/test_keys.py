"""Keys: rotated under traffic without a rejection, and compared in constant time."""

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
from app.web import auth
from bench.harness import stored_message_ids
from bench.hostile_requests import signed_headers
from tests.processes import (
    AUTHORIZED,
    TLS,
    Process,
    Stage,
    failed_event,
    free_port,
    get,
    wait_for,
    wait_until_live,
)

OLD = "whsec_" + b64encode(b"o" * 32).decode()
NEW = "whsec_" + b64encode(b"n" * 32).decode()


class Sender:
    """Delivers continuously; when a replica cannot be reached, to the next one, like a proxy."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.secrets: tuple[str, ...] = (OLD,)
        self.answers: Counter[int] = Counter()
        self.acknowledged: list[str] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(3)]

    def __enter__(self) -> "Sender":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: int) -> None:
        with httpx.Client(timeout=15, verify=TLS) as client:
            for n in itertools.count():
                if self._stopped.is_set():
                    return
                self._deliver(client, f"msg_{worker}_{n}", n)
                time.sleep(0.03)  # leaves the machine some time for the restarts

    def _deliver(self, client: httpx.Client, message_id: str, n: int) -> None:
        body = failed_event(message_id)
        signed = [signed_headers(body, message_id, secret=secret) for secret in self.secrets]
        headers = signed[0] | {
            "webhook-signature": " ".join(each["webhook-signature"] for each in signed)
        }
        for url in itertools.islice(itertools.cycle(self.urls), n % 2, n % 2 + 200):
            try:
                answer = client.post(url, content=body, headers=headers)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code == 204:
                self.acknowledged.append(message_id)
            return
        self.answers[0] += 1

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        target = sum(self.answers.values()) + count
        wait_for(lambda: sum(self.answers.values()) >= target, 30)


def start(stage: Stage, port: int, *secrets: str) -> Process:
    settings = {"PORT": str(port), "CODAT_WEBHOOK_SECRETS": ",".join(secrets)}
    return stage.start("serve", WORKER_IN_WEB="false", **settings)


def last_used(process: Process) -> Any:
    """When each secret last verified a delivery, as the API shows it."""
    url = f"{process.address}/api/v1/webhook-secrets"
    answer = httpx.get(url, headers=AUTHORIZED, verify=TLS)
    assert answer.status_code == 200
    assert "whsec" not in answer.text
    return [secret["last_used_at"] for secret in answer.json()["items"]]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_secrets_are_rotated_under_traffic_without_a_rejection(stage: Stage) -> None:
    """Two replicas, restarted one by one: old; old and new; Codat changes over; new alone."""
    ports = [free_port(), free_port()]
    replicas = [start(stage, port, OLD) for port in ports]
    for replica in replicas:
        wait_until_live(replica)
    with Sender([replica.webhooks for replica in replicas]) as sender:

        def restart_all(*secrets: str) -> None:
            for n, port in enumerate(ports):
                sender.wait_for_more(20)
                assert replicas[n].stop() == 0
                replicas[n] = start(stage, port, *secrets)
                wait_until_live(replicas[n])
            sender.wait_for_more(20)

        restart_all(OLD, NEW)
        for secrets in ((NEW, OLD), (NEW,)):
            sender.secrets = secrets
            sender.wait_for_more(40)
        began = datetime.now(UTC)
        sender.wait_for_more(60)
        for replica in replicas:
            old, new = last_used(replica)
            assert datetime.fromisoformat(old) < began < datetime.fromisoformat(new)
        restart_all(NEW)
    assert set(sender.answers) == {204}
    assert set(sender.acknowledged) == set(stored_message_ids(stage.database_url))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_use_of_a_secret_is_shown_and_counted(stage: Stage) -> None:
    """By its position in the setting; not before the first use, and not by a forgery."""
    process = start(stage, free_port(), OLD, NEW)
    wait_until_live(process)
    assert last_used(process) == [None, None]
    began = datetime.now(UTC)
    body = failed_event("s1")
    headers = signed_headers(body, "m", secret=NEW)
    for content, status in ((body, 204), (b"{}", 401)):
        sent = httpx.post(process.webhooks, content=content, headers=headers, verify=TLS)
        assert sent.status_code == status
    old, new = last_used(process)
    assert old is None
    assert began <= datetime.fromisoformat(new) <= datetime.now(UTC)
    shown = httpx.get(f"{process.address}/metrics", verify=TLS).text
    assert 'webhook_secret_last_used_timestamp_seconds{index="0"} 0.0' in shown
    assert 'webhook_secret_matches_total{index="1"} 1.0' in shown
    assert "whsec" not in shown
    assert get(process, "/events/m")


KEYS = ("first-key-of-our-own", "second-key-of-our-own", "third-key-of-our-own")


@pytest.mark.parametrize(
    "candidate",
    [b"", b"x", b"first-key-of-our-owX", KEYS[0].encode(), KEYS[2].encode(), b"y" * 10_000],
)
def test_every_key_is_compared_completely(
    candidate: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No comparison ends early, and none is left out after a match: the time reveals nothing."""
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def record(ours: bytes, theirs: bytes) -> bool:
        compared.append((len(ours), len(theirs)))
        return original(ours, theirs)

    monkeypatch.setattr(hmac, "compare_digest", record)
    settings = load_settings(api_keys=",".join(KEYS))
    assert auth.is_key(settings, [candidate]) is (candidate.decode() in KEYS)
    size = hashlib.sha256().digest_size
    assert compared == [(size, size)] * len(KEYS)
