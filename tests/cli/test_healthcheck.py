"""The container's health check says the truth whatever the container's environment."""

import socket
import subprocess
import sys
import threading

import pytest

from app.cli.healthcheck import check, listeners
from tests.processes import ROOT, Stage, environment

SERVE = [b"python", b"-m", b"app", b"serve", b""]
WORKER = [b"/sbin/docker-init", b"--", b"python", b"-m", b"app", b"worker", b""]


@pytest.mark.skipif(sys.platform != "linux", reason="it reads Linux' list of sockets")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_it_asks_the_server_where_it_listens(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another port and path, on all addresses of both families, and without a proxy."""
    hosts = ["0.0.0.0", "127.0.0.1"] + ["::"] * socket.has_dualstack_ipv6()
    for host in hosts:
        web = stage.serve(HOST=host, ROOT_PATH="/codat-sync")
        port = int(web.address.rpartition(":")[2])
        own = [place for place in listeners() if place[1] == port]
        assert own == [(host, port)]
        is_open = host != "127.0.0.1"
        with monkeypatch.context() as others:
            others.setenv("http_proxy", "http://127.0.0.1:1")
            problem = check(SERVE, own)
        assert problem == (None if is_open else "listens on 127.0.0.1 only; set HOST=0.0.0.0")
        assert web.stop() == 0
        assert port not in [port for _, port in listeners()]
        assert (check(SERVE, own) or "").startswith("no answer at ") is is_open


@pytest.mark.parametrize("host", ["127.0.0.11", "::1", "127.0.0.1"])
def test_what_only_the_container_can_reach_is_unhealthy(host: str) -> None:
    """Docker's own name server listens there too."""
    assert check(SERVE, [(host, 1)]) == f"listens on {host} only; set HOST=0.0.0.0"
    assert check(SERVE, []) == "nothing listens"


def test_a_worker_is_healthy_while_it_runs() -> None:
    assert check(WORKER, []) is None


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 No\r\n\r\n", b"nonsense\r\n\r\n", b""])
def test_another_answer_is_unhealthy(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert check(SERVE, [("0.0.0.0", server.getsockname()[1])])
        thread.join(5)


def test_it_imports_little() -> None:
    """It runs every ten seconds, also on a busy machine."""
    code = "import app.cli.healthcheck, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not {"pydantic", "typer", "httpx", "sqlalchemy"} & set(done.stdout.split())
