"""`serve` and `worker` as processes: what they load, refused starts, the end after a signal."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.cli.conftest import RunVerb
from tests.processes import (
    AUTHORIZED,
    ROOT,
    TLS,
    Process,
    Stage,
    answers,
    deliver,
    environment,
    failed_event,
    get,
    refuses,
    run,
    signed,
    wait_for,
)

HALF_A_DELIVERY = b"POST /webhooks/codat HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"
WEB = {"fastapi", "starlette", "uvicorn", "jinja2", "prometheus_client"}
OTHER_VERBS = {"alembic", "apprise", "simulator", "opentelemetry.sdk", "app.tracing"}
PROFILE = {"PYTHONPROFILEIMPORTTIME": "1"}  # Python then lists on stderr all that it imports


def imported_modules(process: Process) -> set[str]:
    lines = process.logged().splitlines()
    return {line.split("|")[2].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_signal_ends_everything_within_ten_seconds(stage: Stage) -> None:
    """An open event stream and a delivery that is half sent do not delay it.

    Until then each process has loaded what it needs and nothing else, so that it starts fast and
    stays small. A second server on the same port, or a worker's metrics, has ended with one
    error.
    """
    worker = stage.start("worker", **PROFILE)
    web = stage.serve(WORKER_IN_WEB="false", **PROFILE)
    wait_for(lambda: answers(web, "/readyz"))  # with the worker's heartbeat
    place = ("127.0.0.1", int(web.address.rpartition(":")[2]))
    second = stage.run("serve", PORT=str(place[1]))
    metrics = stage.run("worker", WORKER_METRICS_PORT=str(place[1]))
    changes = httpx.Request(
        "GET",
        f"{web.address}/api/v1/changes",
        headers={**AUTHORIZED, "accept": "text/event-stream"},
    )
    with socket.create_connection(place) as slow, httpx.Client(timeout=15) as client:
        stream = client.send(changes, stream=True)
        slow.sendall(HALF_A_DELIVERY)
        assert deliver(web, "m1", failed_event("s")) == 204
        wait_for(lambda: get(web, "/syncs/s"))
        started = time.monotonic()
        worker.popen.send_signal(signal.SIGINT)
        web.popen.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(*place), 10)
        stream.read()  # to its end
        assert [process.popen.wait(10) for process in (web, worker)] == [0, 0]
    assert time.monotonic() - started < 10
    assert "Traceback" not in web.logged() + worker.logged()
    assert "app.worker.runner" in imported_modules(worker)
    assert imported_modules(worker) & (WEB | OTHER_VERBS | {"svix", "opentelemetry"}) == set()
    assert "fastapi" in imported_modules(web)
    assert imported_modules(web) & OTHER_VERBS == set()
    for late, port in ((second, "PORT"), (metrics, "WORKER_METRICS_PORT")):
        assert late.returncode == 1
        error = (
            f"error: cannot listen on 127.0.0.1:{place[1]} (HOST and {port}): "
            "Address already in use"
        )
        assert late.stderr.splitlines()[-1] == error
        assert "Traceback" not in late.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_server_drains_after_sigterm(stage: Stage) -> None:
    """A proxy sees that it is not ready, and no connection stays open for a later request."""
    server = stage.serve(DRAIN_SECONDS="2")
    wait_for(lambda: answers(server, "/readyz"))
    headers = {"accept": "text/event-stream", **AUTHORIZED}
    with httpx.Client(base_url=server.address, timeout=5, verify=TLS) as client:
        assert "connection" not in client.get("/readyz").headers
        with client.stream("GET", "/api/v1/changes", headers=headers) as stream:
            server.popen.send_signal(signal.SIGTERM)
            stream.read()  # to its end
        ready = client.get("/readyz")  # on the connection from before
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        assert ready.json()["checks"] == {"server": "the server is stopping"}
        body = failed_event("s")
        stored = client.post("/webhooks/codat", content=body, headers=signed(body, "m1"))
        assert (stored.status_code, stored.headers["connection"]) == (204, "close")
    assert server.popen.wait(10) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_ctrl_c_does_not_wait(stage: Stage) -> None:
    server = stage.serve()
    started = time.monotonic()
    assert server.stop(signal.SIGINT) == 0
    assert time.monotonic() - started < 2


def test_help_loads_no_library_that_takes_long(tmp_path: Path) -> None:
    listed = run(tmp_path, "--help", **PROFILE).stderr
    assert "app.settings" in listed
    assert not [name for name in ("fastapi", "sqlalchemy", "httpx", "alembic") if name in listed]


@pytest.mark.parametrize("verb", ["serve", "worker"])
def test_bad_settings_refuse_the_start_with_one_line(
    run_verb: RunVerb, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "own.toml").write_text("[[rule]]\ncause = 'none'\nmessage = 'x'\n")
    for name, value, line in (
        ("PORT", "0", "PORT must be a number from 1 to 65535, not 0."),
        ("CAUSES_FILE", "own.toml", "CAUSES_FILE: rule 1 (none): unknown cause"),
    ):
        result = run_verb(verb, **{name: value})
        assert (result.exit_code, result.stderr) == (1, f"error: {line}\n")


def test_all_missing_settings_are_named_at_once(run_verb: RunVerb) -> None:
    result = run_verb("serve", CODAT_WEBHOOK_SECRETS="", CODAT_API_KEY="", API_KEYS="")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: Missing settings: CODAT_WEBHOOK_SECRETS, CODAT_API_KEY, API_KEYS. "
        "See .env.example.\n"
    )


def python(code: str, stderr: int | IO[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=ROOT,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_shutdown_that_hangs_is_cut_short() -> None:
    code = (
        "import threading, time\n"
        "from app import logging\n"
        "from app.web import shutdown\n"
        "logging.configure('info', 'json')\n"
        "shutdown.EXIT_WITHIN_S = 0.3\n"
        "shutdown.force_exit_later()\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    )
    done = python(code, subprocess.PIPE)
    assert done.returncode == 0
    assert "shutdown timed out" in done.stderr


def test_a_full_disk_under_the_log_does_not_change_the_exit_code() -> None:
    """Python exits with 120 when it cannot write what is left for stderr."""
    code = "from app import logging; logging.configure('info', 'json'); logging.get('x').info('x')"
    with Path("/dev/full").open("w") as full:
        assert python(code, full).returncode == 0


@pytest.mark.parametrize(("verb", "function"), [("serve", "create_app"), ("worker", "open_worker")])
def test_a_signal_during_the_start_ends_it(tmp_path: Path, verb: str, function: str) -> None:
    """The exit code is 0 as after an orderly shutdown, and there is no error."""
    interrupted = (
        "import os, signal, app.bootstrap\n"
        "def stop(*_, **__): os.kill(os.getpid(), signal.SIGTERM)\n"
        f"app.bootstrap.{function} = stop\n"
        f"from app.cli.serve import {verb}; {verb}()"
    )
    assert run(tmp_path, "migrate").returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", interrupted],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_only_codat_needs_does_not_keep_the_endpoint_from_opening(stage: Stage) -> None:
    """Variables that others set: a log line, a failing fetch with the reason, and a finding."""
    for number, (variables, part) in enumerate(
        (
            ({"ALL_PROXY": "socks5://me:canary@proxy:1080"}, "ALL_PROXY=socks5://proxy:1080"),
            ({"SSL_CERT_FILE": "nope", "SSLKEYLOGFILE": "nope/keys"}, "SSL_CERT_FILE=nope"),
        )
    ):
        settings = {"CODAT_BASE_URL": "https://codat.test", "TZ": "Mars/Phobos", **variables}
        web = stage.serve(**settings)
        assert deliver(web, f"m{number}", failed_event(f"s{number}")) == 204
        path = f"/syncs/s{number}"
        reason = wait_for(lambda: (get(web, path) or {}).get("errors", {}).get("last_error"))  # noqa: B023 # called at once
        found = stage.run("doctor", **settings).stdout
        assert web.stop() == 0
        assert part in reason
        assert "calls to Codat will fail" in web.logged()
        assert f"environment_wrong: Requests to other systems fail: {part}" in found
        assert "codat_unreachable" not in found
        assert not any(word in web.logged() + found for word in ("Traceback", "canary"))
