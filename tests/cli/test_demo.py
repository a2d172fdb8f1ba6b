"""The demo leaves nothing behind, however it ends, and shows no secret to the machine's others."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli import demo
from simulator.__main__ import parsed
from tests.processes import ROOT, TLS, free_port, wait_for

OTHERS_GONE_PID = 2**22 + 7  # beyond what Linux gives to processes


def _children(of: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, parent in pairs if int(parent) == of]


def _alive(pid: int) -> bool:
    """Whether it runs; one that ended and was not yet waited for does not."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(told.stdout.strip()) and not told.stdout.startswith("Z")


def _command_line(pid: int) -> str:
    shown = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def playing(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo whose temporary files are in `tmp_path`, playing."""
    port = free_port()
    popen = subprocess.Popen(
        [sys.executable, "-m", "app", "demo", "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )

    def up() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=2, verify=TLS).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_for(up, 30)
        yield popen
    finally:
        if popen.poll() is None:
            popen.send_signal(signal.SIGTERM)
        popen.wait(15)
        assert popen.stdout
        popen.stdout.close()


def test_a_killed_demo_takes_its_simulator_with_it_and_the_next_one_cleans_up(
    playing: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 leaves nobody to clean up."""
    [simulator] = _children(playing.pid)
    [left] = tmp_path.glob("codat-demo-*")
    playing.kill()
    playing.wait(10)
    wait_for(lambda: not _alive(simulator))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with demo.demo_folder() as folder:
        assert not left.exists()
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_demo_leaves_nothing(playing: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """Ctrl-C, or SIGTERM: code 0, no process, no file."""
    [simulator] = _children(playing.pid)
    playing.send_signal(signal.SIGTERM)
    assert playing.wait(15) == 0
    assert not _alive(simulator)
    assert list(tmp_path.iterdir()) == []


def test_no_command_line_shows_a_secret(playing: subprocess.Popen[bytes]) -> None:
    """Every user of a machine may read every command line."""
    [simulator] = _children(playing.pid)
    shown = _command_line(simulator)
    assert "simulator" in shown
    assert "whsec_" not in shown
    assert "--key" not in shown


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        (f"codat-demo-{OTHERS_GONE_PID}-x", True),
        ("codat-demo-{mine}-x", False),
        ("codat-demo-1-x", False),
        ("codat-demo-99999999999999999999999-x", False),
        ("codat-demo-mine", False),
        ("codat-demo-", False),
    ],
)
def test_only_the_folders_of_dead_demos_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, gone: bool
) -> None:
    """What lives, and what merely is called alike, stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / name.format(mine=os.getpid())
    folder.mkdir()
    with demo.demo_folder():
        assert folder.exists() is not gone


def test_a_link_in_the_place_of_a_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may have put it there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / f"codat-demo-{OTHERS_GONE_PID}-x").symlink_to(precious)
    with demo.demo_folder():
        assert precious.exists()


def test_the_simulator_takes_its_secrets_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An option still wins."""
    monkeypatch.setenv("SIMULATOR_KEY", "k1")
    monkeypatch.setenv("SIMULATOR_SECRETS", "whsec_" + "A" * 32 + ", whsec_" + "B" * 32)
    told = parsed(["--to", "http://x"])
    assert (told.key, told.secret) == ("k1", ["whsec_" + "A" * 32, "whsec_" + "B" * 32])
    told = parsed(["--key", "k2", "--secret", "whsec_" + "C" * 32])
    assert (told.key, told.secret) == ("k2", ["whsec_" + "C" * 32])
