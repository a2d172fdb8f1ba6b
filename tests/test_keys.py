"""Keys: rotated under traffic without a rejection, and compared in constant time."""

import hashlib
import hmac
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.settings import load_settings
from app.web import auth
from bench.harness import stored_message_ids
from bench.retrying_sender import RetryingSender
from tests.processes import (
    AUTHORIZED,
    TLS,
    Process,
    Stage,
    failed_event,
    free_port,
    get,
    signed,
    wait_until_live,
)

OLD = "whsec_" + b64encode(b"o" * 32).decode()
NEW = "whsec_" + b64encode(b"n" * 32).decode()


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
    """Two replicas, restarted in turn: old; old and new; Codat changes over; new alone."""
    ports = [free_port(), free_port()]
    replicas = [start(stage, ports[0], OLD), start(stage, ports[1], OLD, NEW)]
    for replica in replicas:
        wait_until_live(replica)
    urls = [replica.webhooks for replica in replicas]
    with RetryingSender(urls, threads=3, secrets=(OLD,)) as sender:

        def restart(place: int, *secrets: str) -> None:
            assert sender.wait_for_more(20)
            assert replicas[place].stop() == 0
            replicas[place] = start(stage, ports[place], *secrets)
            wait_until_live(replicas[place])

        restart(0, OLD, NEW)
        for secrets in ((NEW, OLD), (NEW,)):
            sender.secrets = secrets
            assert sender.wait_for_more(40)
        began = datetime.now(UTC)
        assert sender.wait_for_more(60)
        for replica in replicas:
            old, new = last_used(replica)
            assert datetime.fromisoformat(old) < began < datetime.fromisoformat(new)
        restart(1, NEW)
        assert sender.wait_for_more(20)
        assert sender.drain()
    assert set(sender.answers) <= {204, 0}  # 0: a replica that was just restarted
    assert sender.acknowledged == stored_message_ids(stage.database_url)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_use_of_a_secret_is_shown_and_counted(stage: Stage) -> None:
    """By its position in the setting; not before the first use, and not by a forgery."""
    process = start(stage, free_port(), OLD, NEW)
    wait_until_live(process)
    assert last_used(process) == [None, None]
    began = datetime.now(UTC)
    body = failed_event("s1")
    headers = signed(body, "m", NEW)
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


def test_a_named_key_is_accepted_alone_and_after_its_name() -> None:
    """Also as Basic authentication, whose user is then the name."""
    settings = load_settings(api_keys="support:a-key-of-support-1,billing:a-key-of-billing-1")
    for sent, name in (
        (b"a-key-of-support-1", "support"), (b"support:a-key-of-support-1", "support"),
        (b"billing:a-key-of-billing-1", "billing"), (b"billing:a-key-of-support-1", None),
        (b"support", None), (b":a-key-of-support-1", None), (b"support:", None),
    ):  # fmt: skip
        found = auth.find_key(settings, [sent])
        assert (found.name if found else None) == name


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
    assert (auth.find_key(settings, [candidate]) is not None) is (candidate.decode() in KEYS)
    size = hashlib.sha256().digest_size
    assert compared == [(size, size)] * len(KEYS)
