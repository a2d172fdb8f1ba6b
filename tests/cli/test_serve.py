"""Several processes serve one address: as one to whoever asks, and none is missed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from app.settings import load_settings
from app.web.shutdown import END_WITHIN_S
from bench.ground import kept_ids
from bench.hostile import sync_body
from bench.sender import Load
from tests.processes import (
    ROOT,
    TLS,
    Process,
    Stage,
    answers,
    ask,
    children,
    environment,
    free_port,
    is_there,
    refuses,
    wait_for,
)

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
pytestmark = pytest.mark.timeout(120)


def serve(playing: Stage, **settings: str) -> Process:
    return playing.serve(WEB_CONCURRENCY="2", WORKER_IN_WEB="false", **settings)


def load(process: Process) -> Load:
    return Load(f"{process.address}/webhooks/codat", sync_body)


def counted(process: Process) -> int:
    """The new deliveries of which `/metrics` tells."""
    told = httpx.get(f"{process.address}/metrics", verify=TLS).text
    found = re.search(r'^webhook_deliveries_total\{fate="new"\} (\S+)', told, re.MULTILINE)
    return int(float(found[1])) if found else 0


@on_postgresql
def test_they_count_as_one(playing: Stage) -> None:
    """Whichever of them is asked."""
    process = serve(playing)
    assert len(children(process)) == 2
    with load(process) as sender:
        assert sender.grow(60)
        assert sender.settle()
    assert {counted(process) for _ in range(12)} == {len(sender.sent)}
    uses = [ask(process, "/webhook-secrets") for _ in range(12)]
    assert all(each == uses[0] and each["items"][0]["last_used_at"] for each in uses)


@on_postgresql
def test_one_that_is_killed_is_replaced_and_what_it_counted_stays(playing: Stage) -> None:
    """Under load; and nothing acknowledged is lost."""
    process = serve(playing)
    with load(process) as sender:
        assert sender.grow(40)
        before = children(process)
        acknowledged = len(sender.acknowledged)
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(children(process) - {min(before)}) == 2)
        assert sender.grow(40)
        assert sender.settle()
    assert acknowledged <= counted(process) <= len(sender.sent)
    assert sender.odd_answers == {}
    assert sender.acknowledged == set(kept_ids(playing.database_url))


@on_postgresql
def test_sigterm_ends_them_all(playing: Stage) -> None:
    """Exit code 0 within ten seconds, under load; and nothing acknowledged is lost."""
    process = serve(playing)
    family = children(process)
    with load(process) as sender:
        assert sender.grow(40)
        assert process.stop() == 0
    assert not [each for each in family if is_there(each)]
    assert sender.odd_answers == {}
    assert sender.acknowledged <= set(kept_ids(playing.database_url))


@on_postgresql
@pytest.mark.parametrize("later_s", [0.0, 0.03, 0.1, 0.3, 0.6])
def test_a_signal_while_they_are_born_is_missed_by_none(playing: Stage, later_s: float) -> None:
    """They end at once; none is left behind, and none waits for the clock that ends for certain."""
    process = playing.start("serve", WEB_CONCURRENCY="4", WORKER_IN_WEB="false")
    wait_for(lambda: children(process))
    time.sleep(later_s)
    began = time.monotonic()
    family = children(process)
    assert process.stop() == 0
    assert time.monotonic() - began < END_WITHIN_S - 1
    assert not [each for each in family if is_there(each)]


@on_postgresql
def test_one_that_hangs_does_not_keep_the_address(playing: Stage) -> None:
    """It is killed when the time to end is over."""
    process = serve(playing)
    family = children(process)
    os.kill(max(family), signal.SIGSTOP)
    assert process.stop() == 0
    wait_for(lambda: not any(is_there(each) for each in family), 5)
    assert "something hangs" in process.log.read_text()


@on_postgresql
def test_nobody_is_let_in_after_the_signal(playing: Stage) -> None:
    """Not even by the parent, while a slow delivery keeps a child from ending."""
    process = serve(playing)
    place = ("127.0.0.1", int(process.address.rpartition(":")[2]))
    with socket.create_connection(place) as slow:
        slow.sendall(b"POST /webhooks/codat HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf")
        wait_for(lambda: answers(process, "/livez"))
        process.popen.send_signal(signal.SIGTERM)
        wait_for(lambda: refuses(*place), 3)
        assert process.popen.poll() is None
    assert process.stop() == 0


@on_postgresql
def test_ctrl_c_ends_them_all_well(playing: Stage) -> None:
    """A terminal sends it to the children too; that and the parent's signal are no impatience."""
    process = serve(playing)
    for each in children(process):
        os.kill(each, signal.SIGTERM)
        os.kill(each, signal.SIGINT)
    assert process.stop(signal.SIGINT) == 0
    assert "Traceback" not in process.log.read_text()


@on_postgresql
def test_none_outlives_a_parent_that_was_killed(playing: Stage) -> None:
    """The address is free for the next one."""
    process = serve(playing)
    family = children(process)
    process.popen.kill()
    process.popen.wait()
    wait_for(lambda: not any(is_there(each) for each in family), 15)
    heir = playing.start(
        "serve", PORT=process.address.rpartition(":")[2], WEB_CONCURRENCY="2", WORKER_IN_WEB="false"
    )
    heir.address = process.address
    assert wait_for(lambda: answers(heir, "/livez"))


@on_postgresql
def test_an_address_that_is_taken_is_said_in_one_line(playing: Stage) -> None:
    """Before any child is there."""
    process = serve(playing)
    port = process.address.rpartition(":")[2]
    late = playing.start("serve", PORT=port, WEB_CONCURRENCY="2")
    assert late.popen.wait(30) == 1
    said = late.log.read_text()
    assert said.count(f"error: cannot listen on 127.0.0.1:{port}: Address already in use") == 1
    assert "Traceback" not in said
    assert answers(process, "/livez")


@on_postgresql
def test_of_two_that_start_at_once_one_gives_way(playing: Stage) -> None:
    """Else the address would look taken by both, and one would be deaf."""
    port = str(free_port())
    both = [playing.start("serve", PORT=port, WEB_CONCURRENCY="2") for _ in range(2)]
    late = wait_for(lambda: [each for each in both if each.popen.poll() is not None])
    assert [each.popen.returncode for each in late] == [1]
    (other,) = (each for each in both if each not in late)
    other.address = f"http://127.0.0.1:{port}"
    assert wait_for(lambda: answers(other, "/livez"))


HANG = "signal.signal(15, signal.SIG_IGN); time.sleep(60)"
BROKEN = "raise ServiceError('it is broken')"
NO_ROOM = """
fork, left = os.fork, [1]
def fork_once():
    if not left:
        raise BlockingIOError(11, 'no room')
    left.pop()
    return fork()
os.fork = fork_once
"""


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (BROKEN, 1, "error: it is broken"),
        (f"if number: {HANG}\n    {BROKEN}", 1, "something hangs"),
        (f"if not number: os.kill(os.getppid(), 15)\n    {HANG}", 0, "something hangs"),
        ("os.kill(os.getppid(), 15); time.sleep(60)", 0, ""),
    ],
)
def test_all_end_as_one_does(work: str, code: int, said: str) -> None:
    """One that cannot work ends all with its reason; a signal to the parent ends all well."""
    assert_ends(work, code, said)


@pytest.mark.parametrize(
    ("before", "work", "said"),
    [
        (NO_ROOM, "time.sleep(60)", "no room"),
        ("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", BROKEN, "error: it is broken"),
    ],
)
def test_what_the_system_does_not_give_ends_all(before: str, work: str, said: str) -> None:
    """No room for one more process; or, from whoever started us, no word of who died."""
    assert_ends(work, 1, said, before)


def assert_ends(work: str, code: int, said: str, before: str = "") -> None:
    told = (
        "import os, signal, time\n"
        "from app import ending\n"
        "ending.END_WITHIN_S = 1.5\n"
        "from app.errors import ServiceError\n"
        "from app.cli.serve import Processes\n"
        f"{before}\n"
        f"def work(number, beat):\n    {work}\n"
        "try:\n"
        "    Processes(work).run(12)\n"
        "except ServiceError:\n"
        "    raise SystemExit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", told],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("url", "processes"), [("sqlite:///x.db", 1), ("postgresql://u:p@h/x", 3)])
def test_on_sqlite_there_is_one_process(url: str, processes: int) -> None:
    """It has one writer, for whom more would only wait."""
    assert load_settings(database_url=url, web_concurrency=3).serving_processes == processes
