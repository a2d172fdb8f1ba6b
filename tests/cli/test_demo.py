"""The demo leaves nothing behind, however it ends, and shows no secret to other users."""

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
from tests.cli.conftest import RunVerb
from tests.processes import ROOT, TLS, free_port, wait_for

UNUSED_PID = 2**22 + 7  # above Linux's largest process id


def ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True).stdout


def child_of(parent: int) -> int:
    pairs = (line.split() for line in ps("-e", "-o", "pid=,ppid=").splitlines())
    [child] = [int(pid) for pid, ppid in pairs if int(ppid) == parent]
    return child


def is_running(pid: int) -> bool:
    state = ps("-o", "stat=", "-p", str(pid)).strip()
    return bool(state) and not state.startswith("Z")


@pytest.fixture
def running_demo(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo that serves, with its temporary files in `tmp_path`."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "demo", "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )

    def serves() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=2, verify=TLS).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_for(serves, 30)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(15)
        assert process.stdout
        process.stdout.close()


def test_a_killed_demo_takes_its_simulator_along_and_the_next_one_cleans_up(
    running_demo: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = child_of(running_demo.pid)
    [left] = tmp_path.glob("codat-demo-*")
    running_demo.kill()
    running_demo.wait(10)
    wait_for(lambda: not is_running(simulator))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with demo.demo_folder() as folder:
        assert not left.exists()
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_demo_leaves_nothing(
    running_demo: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    simulator = child_of(running_demo.pid)
    command_line = ps("-ww", "-o", "args=", "-p", str(simulator))
    assert "simulator" in command_line
    assert "whsec_" not in command_line
    assert "--key" not in command_line
    running_demo.send_signal(signal.SIGTERM)
    assert running_demo.wait(15) == 0
    assert not is_running(simulator)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "is_removed"),
    [
        (f"codat-demo-{UNUSED_PID}-x", True),
        ("codat-demo-OURS-x", False),
        ("codat-demo-1-x", False),
        ("codat-demo-99999999999999999999999-x", False),
        ("codat-demo-mine", False),
        ("codat-demo-", False),
    ],
)
def test_only_folders_of_demos_that_ended_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_removed: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / name.replace("OURS", str(os.getpid()))
    folder.mkdir()
    with demo.demo_folder():
        assert folder.exists() is not is_removed


def test_a_link_in_place_of_a_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    target = tmp_path / "precious"
    target.mkdir()
    (tmp_path / f"codat-demo-{UNUSED_PID}-x").symlink_to(target)
    with demo.demo_folder():
        assert target.exists()


def test_the_image_has_no_demo_and_says_so(
    run_verb: RunVerb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    result = run_verb("demo")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: The demo needs a checkout of the repository")
    assert "simulator" not in (ROOT / "Dockerfile").read_text()
