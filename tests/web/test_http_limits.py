"""What a connection may cost, over real sockets."""

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from app.web import http_limits as wire

HELLO = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
Address = tuple[str, int]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/slow` waits, `/body` reads it all, `/much` answers with much, `/told` with the scope."""
    if scope["type"] != "http":
        return
    whole = wire.WHOLE in scope
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    size = 0
    more = scope["path"] in ("/body", "/told")
    while more:
        message: Message = await receive()
        more = message.get("more_body", False)
        size += len(message.get("body", b""))
    answer = b"x" * 30_000_000 if scope["path"] == "/much" else str(size).encode()
    if scope["path"] == "/told":
        answer = b"%d %s" % (whole, b" ".join(name for name, _ in scope["headers"]))
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """A server whose patience is short."""
    for name in ("HEAD_WITHIN_S", "BODY_WITHIN_S", "READ_WITHIN_S"):
        monkeypatch.setattr(wire, name, 0.6)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=wire.BoundedProtocol, ws="none", lifespan="off", log_level="critical"
    )
    config.limit_concurrency = 20
    config.timeout_keep_alive = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join(10)
    listening.close()


@contextmanager
def connected(address: Address, first: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=5) as sock:
        sock.sendall(first)
        yield sock


def to_the_end(sock: socket.socket) -> bytes:
    """All that comes until the other side hangs up."""
    came = b""
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            return came
        if not piece:
            return came
        came += piece


def poured(sock: socket.socket, piece: bytes, most: int = 2_000_000) -> int:
    """How much can be sent before the other side hangs up."""
    sent = 0
    while sent < most:
        try:
            sock.sendall(piece)
        except OSError:
            break
        sent += len(piece)
        time.sleep(0.001)
    return sent


def status_of(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"GET /" + b"a" * 10, b"a" * 10_000),
        (b"GET / HTTP/1.1\r\n", b"X-H: " + b"a" * 1000 + b"\r\n"),
        (b"GET / HTTP/1.1\r\nX-H: ", b"a" * 10_000),
        (b"GET / HTTP/1.1\r\n", b"a" * 10_000),
        (
            b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"T: " + b"a" * 1000 + b"\r\n",
        ),
        (b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: ", b"a" * 10_000),
        (b"POST /body HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a" * 10_000),
        (b"", b"\r\n" * 5_000),
    ],
    ids=[
        "path",
        "headers",
        "one header",
        "a name",
        "trailers",
        "one trailer",
        "extension",
        "lines",
    ],
)
def test_what_has_no_end_is_cut_off(
    address: Address, first: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part of the head it is, and behind a chunked body too; long before a deadline."""
    for name in ("HEAD_WITHIN_S", "BODY_WITHIN_S"):
        monkeypatch.setattr(wire, name, 60)
    with connected(address, first) as sock:
        assert poured(sock, piece) < 1_000_000


@pytest.mark.parametrize("size", [60_000, 70_000])
def test_large_headers_in_one_piece_are_measured_too(address: Address, size: int) -> None:
    """They are never seen unfinished."""
    headers = b"".join(b"H%d: %s\r\n" % (n, b"a" * 990) for n in range(size // 1000))
    with connected(address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n" + headers + b"\r\n")
        assert status_of(to_the_end(sock)) == (200 if size < wire.MOST_HEAD_BYTES else 431)


def test_a_large_body_is_no_large_head(address: Address) -> None:
    """In one piece with its head, and in many small chunks."""
    body = b"b" * 200_000
    head = b"POST /body HTTP/1.1\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n"
    with connected(address, head + body) as sock:
        assert to_the_end(sock).endswith(b"\r\n\r\n200000")
    chunked = b"POST /body HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(address, chunked + b"1\r\nb\r\n" * 100_000 + b"0\r\n\r\n") as sock:
        assert to_the_end(sock).endswith(b"\r\n\r\n100000")


@pytest.mark.parametrize(("pieces", "whole"), [((b"ab",), True), ((b"a", b"b"), False)])
def test_a_body_that_came_with_its_head_is_known_to_be_there(
    address: Address, pieces: tuple[bytes, ...], whole: bool
) -> None:
    """Nobody needs a timer for it; for one that is still on its way somebody does."""
    head = b"POST /told HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    with connected(address, head + pieces[0]) as sock:
        for piece in pieces[1:]:
            time.sleep(0.2)
            sock.sendall(piece)
        assert to_the_end(sock).endswith(b"\r\n\r\n%d connection content-length" % whole)


@pytest.mark.parametrize("pause_s", [0, 0.2])
def test_trailers_are_no_headers(address: Address, pause_s: float) -> None:
    """What stands behind a body cannot be what its signature was checked with."""
    head = b"POST /told HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(address, head + b"1\r\nb\r\n") as sock:
        time.sleep(pause_s)
        sock.sendall(b"0\r\nWebhook-Id: m\r\n\r\n")
        assert to_the_end(sock).endswith(b" connection transfer-encoding")


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"", 408),
        (b"GE", 408),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", 408),
        (HELLO + b"GET", 200),
        (HELLO + b"\r\n", 200),
        (b"POST /body HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345", 200),
    ],
)
def test_half_a_word_is_not_waited_for_long(address: Address, first: bytes, status: int) -> None:
    """Before the first request and after it, in the head and in the body."""
    began = time.monotonic()
    with connected(address, first) as sock:
        answer = to_the_end(sock)
    assert time.monotonic() - began < 10
    assert status_of(answer) == status


def test_a_head_that_trickles_in_is_not_waited_for_either(address: Address) -> None:
    """A byte now and then does not move the deadline."""
    with connected(address) as sock:
        began = time.monotonic()
        for byte in HELLO + HELLO:
            try:
                sock.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.05)
        assert 0.5 < time.monotonic() - began < 3.5


def test_an_answer_that_takes_its_time_is_not_cut_off(address: Address) -> None:
    """The deadline is for the sender; also for what he sends ahead."""
    with connected(address) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\n\r\n" * 3)
        time.sleep(1.8)
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert to_the_end(sock).count(b"200 OK") == 4


def test_requests_sent_ahead_are_counted(address: Address) -> None:
    """A few are served in order; a flood is not held in memory."""
    with connected(address, b"GET / HTTP/1.1\r\n\r\n" * 10) as sock:
        time.sleep(0.3)
        assert sock.recv(65536).count(b"200 OK") == 10
    with connected(address, b"GET /slow HTTP/1.1\r\n\r\n" * 5000) as sock:
        assert to_the_end(sock).count(b"200 OK") <= 1


def test_who_does_not_read_is_not_written_to_for_ever(address: Address) -> None:
    """What he has not taken is thrown away, and the connection with it."""
    with connected(address, b"GET /much HTTP/1.1\r\n\r\n") as sock:
        time.sleep(2.5)
        assert len(to_the_end(sock)) < 30_000_000


def test_who_reads_slowly_gets_all_of_it(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking something now and then is enough, however long it all takes."""
    monkeypatch.setattr(wire, "READ_WITHIN_S", 2)
    with connected(address, b"GET /much HTTP/1.1\r\nConnection: close\r\n\r\n") as sock:
        came = 0
        while piece := sock.recv(2_000_000):
            came += len(piece)
            time.sleep(0.25)
        assert came > 30_000_000


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\0\0"])
def test_what_is_no_http_gets_400(address: Address, noise: bytes) -> None:
    """And the line is cut."""
    with connected(address, noise) as sock:
        assert status_of(to_the_end(sock)) == 400


def test_connections_are_counted_and_given_back(address: Address) -> None:
    """Beyond the limit 503; the silent ones are gone soon and all is well again."""
    silent = [socket.create_connection(address) for _ in range(20)]
    time.sleep(0.1)
    with connected(address, HELLO) as sock:
        assert b"503" in sock.recv(1000)
    time.sleep(1)
    with connected(address, HELLO) as sock:
        assert b"200 OK" in sock.recv(1000)
    for each in silent:
        each.close()


@pytest.mark.parametrize(
    ("limits", "most", "asked"),
    [
        ((1024, 4096), 2000, 2100),
        ((1024, 1024), 924, 1024),
        ((1024, resource.RLIM_INFINITY), 2000, 2100),
        ((50_000, 50_000), 2000, None),
        ((50, 50), 1, 50),
    ],
)
def test_as_many_connections_as_there_may_be_files(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], most: int, asked: int | None
) -> None:
    """With some left for the database and the log."""
    told: list[int] = []
    remember: Callable[..., None] = lambda _, now: told.append(now[0])  # noqa: E731 # one line of a fake
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", remember)
    assert wire.most_connections() == most
    assert told == ([] if asked is None else [asked])
