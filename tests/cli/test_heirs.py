"""A serving process that hangs or dies, and the one that takes its place."""

import os
import signal
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.processes import Process, Stage, answers, children, wait_for

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
pytestmark = pytest.mark.timeout(120)
TWO = {"WEB_CONCURRENCY": "2", "WORKER_IN_WEB": "false"}
IMPATIENT = """
from app import serving
serving.LOOK_EVERY_S = 0.5
from app.__main__ import cli
cli()
"""


@on_postgresql
def test_one_that_hangs_is_killed_and_replaced(playing: Stage) -> None:
    """Else its share of the connections would wait for ever. Who beats is left alone."""
    process = playing.start("serve", python=("-c", IMPATIENT), **TWO)
    wait_for(lambda: answers(process, "/livez"))
    one, other = children(process)
    began = time.monotonic()
    os.kill(one, signal.SIGSTOP)
    wait_for(lambda: len(children(process) - {one}) == 2)
    assert time.monotonic() - began > 2
    time.sleep(4)  # as long as it takes to be found hanging
    assert other in children(process)
    assert process.log.read_text().count("a serving process hangs") == 1
    assert process.stop() == 0


@on_postgresql
def test_who_waits_for_one_that_hangs_is_answered_by_its_heir(playing: Stage) -> None:
    """Whoever was dealt to it, and has not been let in, is not turned away."""
    process = playing.serve(**TWO)
    family = children(process)
    for each in family:
        os.kill(each, signal.SIGSTOP)
    place = ("127.0.0.1", int(process.address.rpartition(":")[2]))
    with ExitStack() as stack:
        waiting = [
            stack.enter_context(closing(socket.create_connection(place, 20))) for _ in range(8)
        ]
        for client in waiting:
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        for each in family:
            os.kill(each, signal.SIGKILL)
        assert [client.recv(12) for client in waiting] == [b"HTTP/1.1 200"] * 8


@on_postgresql
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells them so")
def test_nothing_of_one_that_died_is_left_open(playing: Stage) -> None:
    """In the parent, nor in who takes its place."""
    process = playing.serve(**TWO)
    before = lose_one(process)
    for _ in range(3):
        assert lose_one(process) == before


def lose_one(process: Process) -> tuple[int, int]:
    """How many files the parent has open, and each child, when the heir is there."""
    dying = min(children(process))
    os.kill(dying, signal.SIGKILL)
    wait_for(lambda: len(children(process) - {dying}) == 2)
    return wait_for(lambda: alike(process), 10)


def alike(process: Process) -> tuple[int, int] | None:
    """The files of the parent and of each child, None while the children's differ."""
    of_children = {open_files(each) for each in children(process)}
    return (open_files(process.popen.pid), of_children.pop()) if len(of_children) == 1 else None


def open_files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))
