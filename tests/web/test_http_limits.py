"""The bounds on connections, over real sockets; and on bodies."""

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from fastapi import Body, FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from app.web import http_limits
from app.web.http_limits import BodyBudget, BodyLimit

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = b"POST /body HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
Address = tuple[str, int]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/slow` waits, `/body` reads the body, `/large` answers 30 MB, `/scope` shows the scope."""
    if scope["type"] != "http":
        return
    is_complete = http_limits.BODY_COMPLETE in scope
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    size = 0
    more = scope["path"] in ("/body", "/scope")
    while more:
        message: Message = await receive()
        more = message.get("more_body", False)
        size += len(message.get("body", b""))
    answer = b"x" * 30_000_000 if scope["path"] == "/large" else str(size).encode()
    if scope["path"] == "/scope":
        answer = b"%d %s" % (is_complete, b" ".join(name for name, _ in scope["headers"]))
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    """A server with short deadlines."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HEAD_WITHIN_S", "BODY_WITHIN_S", "READ_WITHIN_S"):
            patch.setattr(http_limits, name, 0.6)
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=http_limits.BoundedProtocol, ws="none", lifespan="off", log_level="critical"
        )
        config.limit_concurrency = 20
        config.timeout_keep_alive = 1
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextmanager
def connect(address: Address, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=5) as sock:
        sock.sendall(data)
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """What arrives until the server closes the connection."""
    received = b""
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def send_until_closed(sock: socket.socket, piece: bytes, limit: int = 2_000_000) -> int:
    """How many bytes can be sent before the server closes the connection."""
    sent = 0
    while sent < limit:
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
    ("start", "piece"),
    [
        pytest.param(b"GET /" + b"a" * 10, b"a" * 10_000, id="path"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"X-H: " + b"a" * 1000 + b"\r\n", id="headers"),
        pytest.param(b"GET / HTTP/1.1\r\nX-H: ", b"a" * 10_000, id="header value"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"a" * 10_000, id="header name"),
        pytest.param(CHUNKED + b"0\r\n", b"T: " + b"a" * 1000 + b"\r\n", id="trailers"),
        pytest.param(CHUNKED + b"0\r\nT: ", b"a" * 10_000, id="trailer value"),
        pytest.param(CHUNKED + b"1;", b"a" * 10_000, id="chunk extension"),
        pytest.param(b"", b"\r\n" * 5_000, id="blank lines"),
    ],
)
def test_endless_heads_are_cut_off(
    address: Address, start: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEAD_WITHIN_S", "BODY_WITHIN_S"):
        monkeypatch.setattr(http_limits, name, 60)  # by their size, long before the deadline
    with connect(address, start) as sock:
        assert send_until_closed(sock, piece) < 1_000_000


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 431)])
def test_headers_that_arrive_in_one_piece_are_measured_too(
    address: Address, size: int, status: int
) -> None:
    headers = b"".join(b"H%d: %s\r\n" % (n, b"a" * 990) for n in range(size // 1000))
    with connect(address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n" + headers + b"\r\n")
        assert status_of(read_all(sock)) == status


def test_a_large_body_does_not_count_as_a_head(address: Address) -> None:
    head = b"POST /body HTTP/1.1\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n"
    with connect(address, head + b"b" * 200_000) as sock:
        assert read_all(sock).endswith(b"\r\n\r\n200000")
    with connect(address, CHUNKED + b"1\r\nb\r\n" * 100_000 + b"0\r\n\r\n") as sock:
        assert read_all(sock).endswith(b"\r\n\r\n100000")


@pytest.mark.parametrize(("pieces", "is_complete"), [((b"ab",), True), ((b"a", b"b"), False)])
def test_a_body_that_arrives_with_its_head_is_marked(
    address: Address, pieces: tuple[bytes, ...], is_complete: bool
) -> None:
    head = b"POST /scope HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    with connect(address, head + pieces[0]) as sock:
        for piece in pieces[1:]:
            time.sleep(0.2)
            sock.sendall(piece)
        assert read_all(sock).endswith(b"\r\n\r\n%d connection content-length" % is_complete)


@pytest.mark.parametrize("pause_s", [0, 0.2])
def test_trailers_are_not_added_to_the_headers(address: Address, pause_s: float) -> None:
    with connect(address, CHUNKED.replace(b"/body", b"/scope") + b"1\r\nb\r\n") as sock:
        time.sleep(pause_s)
        sock.sendall(b"0\r\nWebhook-Id: m\r\n\r\n")
        assert read_all(sock).endswith(b" connection transfer-encoding")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 408),
        (b"GE", 408),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", 408),
        (GET + b"GET", 200),
        (b"POST /body HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345", 0),
        (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345", 200),
    ],
)
def test_an_incomplete_request_times_out(address: Address, data: bytes, status: int) -> None:
    started = time.monotonic()
    with connect(address, data) as sock:
        answer = read_all(sock)
    assert time.monotonic() - started < 10
    assert status_of(answer) == status


def test_a_trickle_does_not_extend_the_deadline(address: Address) -> None:
    with connect(address) as sock:
        started = time.monotonic()
        for byte in GET + GET:
            try:
                sock.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.05)
        assert 0.5 < time.monotonic() - started < 3.5


def test_a_slow_answer_is_not_cut_off(address: Address) -> None:
    """The deadline is for the client, also when it sends requests ahead."""
    with connect(address) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\n\r\n" * 3)
        time.sleep(1.8)
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert read_all(sock).count(b"200 OK") == 4


def test_pipelined_requests_are_limited(address: Address) -> None:
    with connect(address, b"GET / HTTP/1.1\r\n\r\n" * 10) as sock:
        time.sleep(0.3)
        assert sock.recv(65536).count(b"200 OK") == 10
    with connect(address, b"GET /slow HTTP/1.1\r\n\r\n" * 5000) as sock:
        assert read_all(sock).count(b"200 OK") <= 1


def test_a_client_that_does_not_read_is_disconnected(address: Address) -> None:
    with connect(address, b"GET /large HTTP/1.1\r\n\r\n") as sock:
        time.sleep(1.5)
        assert len(read_all(sock)) < 30_000_000


def test_a_client_that_reads_slowly_gets_the_whole_answer(address: Address) -> None:
    """It takes more than twice as long as a client may read nothing."""
    with connect(address, b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n") as sock:
        received = 0
        while piece := sock.recv(2_000_000):
            received += len(piece)
            time.sleep(0.1)
        assert received > 30_000_000


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\0\0"])
def test_what_is_not_http_gets_400(address: Address, data: bytes) -> None:
    with connect(address, data) as sock:
        assert status_of(read_all(sock)) == 400


@contextmanager
def connect_many(address: Address, data: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(connect(address, data)) for _ in range(20)]


def test_too_many_busy_connections_get_503_until_their_deadline(address: Address) -> None:
    with connect_many(address, b"GE"):
        time.sleep(0.1)
        with connect(address, GET) as sock:
            assert b"503" in sock.recv(1000)
        time.sleep(1)
        with connect(address, GET) as sock:
            assert b"200 OK" in sock.recv(1000)


@pytest.mark.parametrize("first", [GET, b""])
def test_idle_connections_keep_nobody_out(address: Address, first: bytes) -> None:
    """Whether they have sent a request before or none. Those idle the longest are closed."""
    with connect_many(address, first) as idle:
        time.sleep(0.2)
        for _ in range(3):
            with connect(address, GET) as sock:
                assert b"200 OK" in sock.recv(1000)
        if first:
            assert [read_all(sock).count(b"200 OK") for sock in idle[:2]] == [1, 1]
            idle[-1].sendall(GET)
            time.sleep(0.2)
            assert idle[-1].recv(1000).count(b"200 OK") == 2


@pytest.mark.parametrize("target", [b"http://other.test/scope", b"HTTP://h:80/scope?x=http://y"])
def test_a_target_in_absolute_form_is_understood(address: Address, target: bytes) -> None:
    with connect(address, b"GET %s HTTP/1.1\r\nConnection: close\r\n\r\n" % target) as sock:
        assert read_all(sock).endswith(b" connection")


@pytest.mark.parametrize("line", [b"GET http://h", b"OPTIONS *", b"CONNECT h:443", b"GET x"])
def test_targets_without_a_path_are_answered(address: Address, line: bytes) -> None:
    with connect(address, b"%s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % line) as sock:
        assert 200 <= status_of(read_all(sock)) < 500


@pytest.mark.parametrize(
    ("limits", "connections", "raised_to"),
    [
        ((1024, 4096), 2000, [2100]),
        ((1024, 1024), 924, [1024]),
        ((1024, resource.RLIM_INFINITY), 2000, [2100]),
        ((50_000, 50_000), 2000, []),
        ((50, 50), 1, [50]),
    ],
)
def test_connections_fit_the_limit_on_open_files(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], connections: int, raised_to: list[int]
) -> None:
    set_limits: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: set_limits.append(new[0]))
    assert http_limits.max_connections() == connections
    assert set_limits == raised_to


def make_limited_app(budget: BodyBudget) -> BodyLimit:
    app = FastAPI()

    @app.post("/")
    def post(text: str = Body(embed=True)) -> dict[str, int]:
        return {"length": len(text), "used": budget.used}

    return BodyLimit(app, budget, max_bytes=1000)


@pytest.mark.parametrize(
    ("length", "held", "status"), [(900, 0, 200), (2000, 0, 413), (900, 1500, 503), (50, 1500, 200)]
)
def test_bodies_of_other_routes_are_bounded_each_and_in_total(
    length: int, held: int, status: int
) -> None:
    budget = BodyBudget(2000, held)
    with TestClient(make_limited_app(budget)) as client:
        answer = client.post("/", json={"text": "x" * length})
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 503)
    if status == 200:
        assert answer.json()["used"] > held + length
    assert budget.used == held


def test_a_client_that_disconnects_gives_its_bytes_back() -> None:
    budget = BodyBudget(2000)
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"text": "half', "more_body": True},
        {"type": "http.disconnect"},
    ]
    used: list[int] = []

    async def receive() -> Message:
        used.append(budget.used)
        return messages.pop(0)

    async def send(_message: Message) -> None:
        """The client is gone."""

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(make_limited_app(budget)(scope, receive, send))
    assert used == [0, 14]
    assert budget.used == 0
