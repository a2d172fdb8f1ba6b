"""Hostile requests against the real process, small: the long run is `make fuzz`."""

import itertools
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from bench.fuzz import Figures, fuzz
from bench.ground import counts, kept_ids, resident_mib
from bench.hostile import BODY_LIMIT, signed_headers, sync_body
from tests.processes import TLS, Process, Stage, ask

PARTS = ("id", "timestamp", "signature")
HOLDS = 250
DOOR = "/webhooks/codat"


def serve(playing: Stage, **settings: str) -> Process:
    return playing.serve(WORKER_IN_WEB="false", LOG_LEVEL="error", **settings)


def post(process: Process, body: bytes, headers: dict[str, str]) -> int:
    return httpx.post(process.address + DOOR, content=body, headers=headers, verify=TLS).status_code


def connect(process: Process) -> socket.socket:
    host, port = process.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_hostile_requests_leave_nothing_and_break_nothing(playing: Stage) -> None:
    """Two thousand of them: no 5xx, no row, no memory, no error in the log; then all is well."""
    process = serve(playing, MAX_BODY_BYTES=str(BODY_LIMIT))
    figures = Figures(seed=11, database=playing.database_url, requests=2000)
    fuzz(process, playing.database_url, figures)
    assert (figures.errors, figures.accepted, figures.unanswered) == ([], [], [])
    assert figures.said == []
    assert {name: n for name, n in figures.stored.items() if n} == {}
    assert figures.fine
    assert figures.answers[401] > 300
    assert process.stop() == 0


def mixes() -> Iterator[tuple[dict[str, str], str | None]]:
    """Each header of each family right, wrong or absent: 729 deliveries, and who may be kept."""
    body = sync_body()
    for states in itertools.product(("right", "wrong", "absent"), repeat=6):
        ids = {family: f"msg_{uuid.uuid4().hex}" for family in ("webhook", "svix")}
        headers: dict[str, str] = {}
        by_family = dict(zip(("webhook", "svix"), (states[:3], states[3:]), strict=True))
        for family, its in by_family.items():
            good = signed_headers(body, ids[family], family=family)
            bad = signed_headers(b"{}", f"x{ids[family]}", family=family) | {
                f"{family}-timestamp": "1700000000"
            }
            for part, state in zip(PARTS, its, strict=True):
                name = f"{family}-{part}"
                if state != "absent":
                    headers[name] = (good if state == "right" else bad)[name]
        complete = [family for family, its in by_family.items() if "absent" not in its]
        alone = complete[0] if len(complete) == 1 else None
        fine = alone is not None and set(by_family[alone]) == {"right"}
        yield headers, ids[alone] if fine and alone else None


def test_header_families_mixed_in_every_way(playing: Stage) -> None:
    """Kept is what one complete family proves by itself, under that family's id; nothing else."""
    process = serve(playing)
    expected = set()
    with httpx.Client(base_url=process.address) as client:
        for headers, message_id in mixes():
            status = client.post(DOOR, content=sync_body(), headers=headers).status_code
            assert status == (204 if message_id else 401), headers
            expected |= {message_id} if message_id else set()
    assert len(expected) == 2 * (27 - 8)
    assert set(kept_ids(playing.database_url)) == expected


def test_two_complete_families_must_say_the_same(playing: Stage) -> None:
    """Both right and alike is one delivery; both right and different is nobody's."""
    process = serve(playing)
    one = signed_headers(sync_body(), "msg_1")
    also = signed_headers(sync_body(), "msg_1", family="svix")
    also["svix-timestamp"] = one["webhook-timestamp"]
    also["svix-signature"] = one["webhook-signature"]
    other = signed_headers(sync_body(), "msg_2", family="svix")
    assert post(process, sync_body(), one | other) == 401
    assert post(process, sync_body(), one | also) == 204
    assert kept_ids(playing.database_url) == ["msg_1"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_timestamps_count_to_five_minutes_either_way(playing: Stage) -> None:
    """Close by on either side; and a number written in any other way is none."""
    process = serve(playing)
    for n, (seconds, status) in enumerate(
        [(-296, 204), (-303, 401), (296, 204), (305, 401), (0, 204), (-(10**8), 401)]
    ):
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        assert post(process, sync_body(), signed_headers(sync_body(), f"m{n}", at=at)) == status
    good = signed_headers(sync_body(), "m")
    stamp = good["webhook-timestamp"]
    grouped = f"{stamp[:5]}_{stamp[5:]}"
    odds = (
        f"+{stamp}",
        f"{stamp}.0",
        f"{stamp}e0",
        hex(int(stamp)),
        grouped,
        f"-{stamp}",
        "",
        "inf",
    )
    for odd in (*odds, "9" * 400):
        assert post(process, sync_body(), good | {"webhook-timestamp": odd}) == 401, odd


DEEP_AND_HUGE = {
    "brackets": b"[" * 1_000_000,
    "closed brackets": b"[" * 400_000 + b"]" * 400_000,
    "objects": b'{"Data":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": b'{"RuleType":"Sync Failed","n":' + b"9" * 900_000 + b"}",
    "many members": json.dumps({f"k{n}": n for n in range(60_000)}).encode(),
    "a long text": b'{"RuleType":"' + b"a" * 1_000_000 + b'"}',
    "many items": json.dumps(
        {
            "eventType": "expenses.sync.unsuccessful",
            "payload": {
                "referenceCompany": {"id": "c1"},
                "syncId": "s-many",
                "transactions": [
                    {"transactionId": f"t{n}", "status": "PushError", "errorMessage": "x"}
                    for n in range(9_000)
                ],
            },
        }
    ).encode(),
    "escapes": b'{"RuleType":"' + rb"\ud800\u0000" * 50_000 + b'"}',
}


def test_deep_and_huge_json_with_a_right_signature_is_kept(playing: Stage) -> None:
    """Kept byte for byte and answered in time, whatever can be made of it."""
    process = serve(playing)
    for name, body in DEEP_AND_HUGE.items():
        assert len(body) <= 1_048_576
        message_id = "msg_" + name.replace(" ", "_")
        began = time.monotonic()
        assert post(process, body, signed_headers(body, message_id)) == 204, name
        assert time.monotonic() - began < 10, name
        kept = ask(process, f"/events/{message_id}", body="true")
        assert kept["body"].encode() == body
    assert process.stop() == 0


HALF_OPEN = (
    b"",
    b"POST",
    b"POST /webhooks/codat HTTP/1.1\r\nHost: h\r\n",
    b"POST /webhooks/codat HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{",
    b"POST /webhooks/codat HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 16,
)


def test_slow_and_half_open_connections_do_not_stop_honest_ones(playing: Stage) -> None:
    """Hundreds that say half a word, trickle on, or do not read their answers."""
    process = serve(playing)
    with ExitStack() as held:
        slow = []
        for n in range(HOLDS):
            slow.append(held.enter_context(connect(process)))
            slow[-1].sendall(HALF_OPEN[n % len(HALF_OPEN)])
        slowest = 0.0
        for n in range(40):
            for each in slow[n::40]:
                _trickle(each)
            body = sync_body(f"s{n}")
            began = time.monotonic()
            assert post(process, body, signed_headers(body, f"msg_{n}")) == 204
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 10  # Codat waits for 15
    assert len(kept_ids(playing.database_url)) == 40
    assert process.stop() == 0


def _trickle(slow: socket.socket) -> None:
    try:
        slow.sendall(b"x")
    except OSError:
        return  # it was hung up on, which is as well


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_endless_heads_cost_no_memory(playing: Stage) -> None:
    """Many at once pour for seconds; each is cut off, and what they poured is not held."""
    process = serve(playing)
    body = sync_body()
    assert post(process, body, signed_headers(body, "msg_before")) == 204
    before = resident_mib(process)
    cut_off = []

    def pour() -> None:
        end = time.monotonic() + 3
        with connect(process) as sock:
            try:
                sock.sendall(b"GET / HTTP/1.1\r\n")
                while time.monotonic() < end:
                    sock.sendall(b"X-H: " + b"a" * 8000 + b"\r\n")
            except OSError:
                cut_off.append(True)

    threads = [threading.Thread(target=pour) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cut_off) == 40
    assert resident_mib(process) - before < 30
    assert post(process, body, signed_headers(body, "msg_after")) == 204
    assert counts(playing.database_url)["events"] == 2
