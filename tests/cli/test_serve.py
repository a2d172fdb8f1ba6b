"""`serve` and `worker` as processes: refused starts, and the end after a signal."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import RunVerb
from tests.processes import (
    API_KEY,
    ROOT,
    Stage,
    answers,
    environment,
    get,
    refuses,
    run,
    signed,
    wait_for,
)

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HALF_A_DELIVERY = b"POST /webhooks/codat HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"


def last_line(text: str) -> str:
    return text.splitlines()[-1]


@pytest.mark.parametrize(
    ("database_url", "number"),
    [("sqlite", signal.SIGINT), ("postgresql", signal.SIGTERM)],
    indirect=["database_url"],
)
def test_a_signal_ends_everything_within_ten_seconds(stage: Stage, number: signal.Signals) -> None:
    """An open event stream and a delivery that is half sent do not delay it."""
    process = stage.serve()
    place = ("127.0.0.1", int(process.address.rpartition(":")[2]))
    body = json.dumps({"eventType": "SyncFailed", "companyId": "c", "payload": {"syncId": "s"}})
    with (
        socket.create_connection(place) as slow,
        httpx.stream(
            "GET",
            f"{process.address}/api/v1/changes",
            headers={"authorization": f"Bearer {API_KEY}", "accept": "text/event-stream"},
            timeout=15,
        ) as stream,
    ):
        slow.sendall(HALF_A_DELIVERY)
        answer = httpx.post(
            f"{process.address}/webhooks/codat",
            content=body,
            headers=signed(body.encode(), "m1"),
        )
        assert answer.status_code == 204
        wait_for(lambda: get(process, "/syncs/s"))
        started = time.monotonic()
        process.popen.send_signal(number)
        wait_for(lambda: refuses(*place), 3)
        for _ in stream.iter_bytes():
            pass
        assert process.popen.wait(10) == 0
    assert time.monotonic() - started < 10
    assert "Traceback" not in process.log.read_text()


@on_sqlite
def test_a_worker_ends_with_code_0(stage: Stage) -> None:
    worker = stage.start("worker")
    web = stage.serve(WORKER_IN_WEB="false")
    wait_for(lambda: answers(web, "/readyz"))  # with the worker's heartbeat
    assert worker.stop() == 0
    assert web.stop() == 0


@on_sqlite
def test_an_address_in_use_is_one_error(stage: Stage) -> None:
    process = stage.serve()
    port = process.address.rpartition(":")[2]
    second = run(stage.folder, "serve", DATABASE_URL=stage.database_url, PORT=port)
    assert second.returncode == 1
    assert last_line(second.stderr) == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use"
    )
    assert "Traceback" not in second.stderr
    assert answers(process, "/livez")


@pytest.mark.parametrize("verb", ["serve", "worker"])
def test_bad_settings_refuse_the_start_with_one_line(
    run_verb: RunVerb, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "own.toml").write_text("[[rule]]\ncause = 'none'\nmessage = 'x'\n")
    for name, value, line in (
        ("PORT", "0", "PORT must be a number from 1 to 65535."),
        ("CAUSES_FILE", "own.toml", "CAUSES_FILE: rule 1 (none): unknown cause"),
    ):
        result = run_verb(verb, **{name: value})
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: {line}\n"


def test_all_missing_settings_are_named_at_once(run_verb: RunVerb) -> None:
    result = run_verb("serve", CODAT_WEBHOOK_SECRETS="", CODAT_API_KEY="", API_KEYS="")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: Missing settings: CODAT_WEBHOOK_SECRETS, CODAT_API_KEY, API_KEYS. "
        "See .env.example.\n"
    )


def test_a_shutdown_that_hangs_is_cut_short() -> None:
    code = (
        "import threading, time\n"
        "from app.web import shutdown\n"
        "shutdown.EXIT_WITHIN_S = 0.3\n"
        "shutdown.force_exit_later()\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert "shutdown timed out" in done.stdout + done.stderr
