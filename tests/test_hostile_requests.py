"""Hostile requests against the real process, a few of each kind: `make fuzz` sends many."""

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

from bench.harness import resident_mib, stored_message_ids
from bench.hostile import send_all
from bench.hostile_requests import BODY_LIMIT
from tests.conftest import NewDatabase
from tests.processes import TLS, Process, Stage, failed_event, get, signed, stage, wait_for

BODY = failed_event("s1")
PARTS = ("id", "timestamp", "signature")
CONNECTIONS = 250
ANSWER_WITHIN_S = 10  # Codat waits for 15


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    new_database: NewDatabase,
) -> Iterator[tuple[Process, str]]:
    """One server for the tests that only look at answers, and the address of its database."""
    folder = tmp_path_factory.mktemp("server")
    with new_database("sqlite") as url, stage(folder, url) as found:
        process = found.serve(WORKER_IN_WEB="false", LOG_LEVEL="error")
        yield process, url
        assert process.logged() == ""


def post(process: Process, body: bytes, headers: dict[str, str]) -> int:
    return httpx.post(process.webhooks, content=body, headers=headers, verify=TLS).status_code


def connect(process: Process) -> socket.socket:
    host, port = process.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_hostile_requests_store_nothing_and_break_nothing(stage: Stage) -> None:
    """No 5xx but 503, no row, no memory, no error in the log; then a valid event is stored."""
    process = stage.serve(WORKER_IN_WEB="false", LOG_LEVEL="error", MAX_BODY_BYTES=str(BODY_LIMIT))
    result = send_all(process, stage.database_url, seed=11, count=1000)
    assert (result.bad, result.stored, result.log) == ([], {}, "")
    assert result.passed
    assert result.answers[401] > 300
    assert process.stop() == 0


def mixed_headers() -> Iterator[tuple[dict[str, str], str | None]]:
    """Each header of each family valid, invalid or absent; and the id of what is stored."""
    for states in itertools.product(("valid", "invalid", "absent"), repeat=6):
        ids = {family: f"msg_{uuid.uuid4().hex}" for family in ("webhook", "svix")}
        headers: dict[str, str] = {}
        by_family = dict(zip(("webhook", "svix"), (states[:3], states[3:]), strict=True))
        for family, its in by_family.items():
            valid = signed(BODY, ids[family], family=family)
            invalid = signed(b"{}", f"x{ids[family]}", family=family) | {
                f"{family}-timestamp": "1700000000"
            }
            for part, state in zip(PARTS, its, strict=True):
                name = f"{family}-{part}"
                if state != "absent":
                    headers[name] = (valid if state == "valid" else invalid)[name]
        complete = [family for family, its in by_family.items() if "absent" not in its]
        only = complete[0] if len(complete) == 1 else None
        is_valid = only is not None and set(by_family[only]) == {"valid"}
        yield headers, ids[only] if is_valid and only else None


def test_mixed_header_families(server: tuple[Process, str]) -> None:
    """Stored is what one complete family proves, under the id of that family."""
    process, url = server
    before = stored_message_ids(url)
    expected = set()
    with httpx.Client(base_url=process.address, verify=TLS) as client:
        for headers, message_id in mixed_headers():
            answer = client.post("/webhooks/codat", content=BODY, headers=headers)
            assert answer.status_code == (204 if message_id else 401), headers
            expected |= {message_id} if message_id else set()
    assert len(expected) == 2 * (27 - 8)
    assert stored_message_ids(url) - before == expected


def test_two_complete_families_must_agree(server: tuple[Process, str]) -> None:
    process, url = server
    one = signed(BODY, "msg_agree")
    same = signed(BODY, "msg_agree", family="svix")
    same["svix-timestamp"] = one["webhook-timestamp"]
    same["svix-signature"] = one["webhook-signature"]
    other = signed(BODY, "msg_other", family="svix")
    assert post(process, BODY, one | other) == 401
    assert post(process, BODY, one | same) == 204
    assert {"msg_agree", "msg_other"} & stored_message_ids(url) == {"msg_agree"}


def test_timestamps_may_differ_by_five_minutes(server: tuple[Process, str]) -> None:
    """In either direction, and only as a plain number."""
    process, _ = server
    for n, (seconds, status) in enumerate(
        [(-290, 204), (-303, 401), (290, 204), (310, 401), (0, 204), (-(10**8), 401)]
    ):
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        headers = signed(BODY, f"msg_time_{n}", at=at)
        assert post(process, BODY, headers) == status, seconds
    valid = signed(BODY, "msg_time")
    stamp = valid["webhook-timestamp"]
    for odd in (
        *(f"+{stamp}", f"-{stamp}", f"{stamp}.0", f"{stamp}e0", f"{stamp[:5]}_{stamp[5:]}"),
        *(hex(int(stamp)), "", "inf", "9" * 400),
    ):
        assert post(process, BODY, valid | {"webhook-timestamp": odd}) == 401, odd


def event_with_rows(count: int) -> bytes:
    rows = [
        {"transactionId": f"t{n}", "status": "PushError", "errorMessage": "x"} for n in range(count)
    ]
    payload = {"referenceCompany": {"id": "c1"}, "syncId": "s-many", "transactions": rows}
    return json.dumps({"eventType": "expenses.sync.unsuccessful", "payload": payload}).encode()


DEEP_AND_HUGE = {
    "brackets": b"[" * 1_000_000,
    "closed brackets": b"[" * 400_000 + b"]" * 400_000,
    "objects": b'{"Data":' * 100_000 + b"1" + b"}" * 100_000,
    "a long number": b'{"RuleType":"Sync Failed","n":' + b"9" * 900_000 + b"}",
    "many members": json.dumps({f"k{n}": n for n in range(60_000)}).encode(),
    "a long text": b'{"RuleType":"' + b"a" * 1_000_000 + b'"}',
    "many rows": event_with_rows(9_000),
    "escapes": b'{"RuleType":"' + rb"\ud800\u0000" * 50_000 + b'"}',
    "an id with NUL": failed_event("\0", "c\0"),
}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_deep_and_huge_bodies_are_stored_and_shown(stage: Stage) -> None:
    """With a valid signature: byte for byte, in time; the worker gets past all of them."""
    process = stage.serve(LOG_LEVEL="error")
    for name, body in DEEP_AND_HUGE.items():
        assert len(body) <= 1_048_576
        message_id = "msg_" + name.replace(" ", "_")
        began = time.monotonic()
        assert post(process, body, signed(body, message_id)) == 204, name
        assert time.monotonic() - began < ANSWER_WITHIN_S, name
        shown = get(process, f"/events/{message_id}", body="true")
        assert shown["body"].encode() == body
    wait_for(lambda: all(event["processed_at"] for event in get(process, "/events")["items"]))
    assert [event["projection_error"] for event in get(process, "/events")["items"]] == (
        [None] * len(DEEP_AND_HUGE)
    )
    assert get(process, "/syncs/s-many")["state"] == "failed"
    assert process.stop() == 0


HALF_OPEN = (
    b"",
    b"POST",
    b"POST /webhooks/codat HTTP/1.1\r\nHost: h\r\n",
    b"POST /webhooks/codat HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n{",
    b"POST /webhooks/codat HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 16,
)


def test_slow_and_half_open_connections_do_not_delay_others(server: tuple[Process, str]) -> None:
    """Hundreds that send half a request, trickle on, or do not read their answers."""
    process, url = server
    with ExitStack() as opened:
        slow = []
        for n in range(CONNECTIONS):
            slow.append(opened.enter_context(connect(process)))
            slow[-1].sendall(HALF_OPEN[n % len(HALF_OPEN)])
        slowest = 0.0
        for n in range(40):
            for connection in slow[n::40]:
                trickle(connection)
            body = failed_event(f"s{n}")
            began = time.monotonic()
            assert post(process, body, signed(body, f"msg_slow_{n}")) == 204
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < ANSWER_WITHIN_S
    assert sum(name.startswith("msg_slow_") for name in stored_message_ids(url)) == 40


def trickle(connection: socket.socket) -> None:
    try:
        connection.sendall(b"x")
    except OSError:
        return  # the server closed it, which is fine


def test_endless_headers_cost_no_memory(server: tuple[Process, str]) -> None:
    """Many at the same time: all are cut off, and what they sent is not retained."""
    process, _ = server
    assert post(process, BODY, signed(BODY, "msg_before")) == 204
    before = resident_mib(process)
    cut_off = []

    def pour() -> None:
        end = time.monotonic() + 30
        with connect(process) as connection:
            try:
                connection.sendall(b"GET / HTTP/1.1\r\n")
                while time.monotonic() < end:
                    connection.sendall(b"X-H: " + b"a" * 8000 + b"\r\n")
            except OSError:
                cut_off.append(True)

    threads = [threading.Thread(target=pour) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cut_off) == 40
    assert resident_mib(process) - before < 30
    assert post(process, BODY, signed(BODY, "msg_after")) == 204
