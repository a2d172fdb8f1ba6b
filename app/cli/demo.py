"""The demo: the service on SQLite and a simulated Codat beside it, from nothing.

Everything it needs it makes: a fresh database, keys, a signing secret, free ports.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ServiceError
from app.settings import Settings, load_settings

FIRST_PORT = 8000
PORTS_TRIED = 50
HOST = "127.0.0.1"
PREFIX = "codat-demo-"


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on. Raises OSError when none is free."""
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex((HOST, port)) != 0:
                return port
    raise OSError(f"no free port from {first} to {first + PORTS_TRIED - 1}")


def demo_settings(folder: Path, port: int, codat_port: int) -> Settings:
    """Settings for a throwaway service in `folder` that takes the simulator for Codat."""
    return load_settings(
        database_url=f"sqlite:///{folder / 'demo.db'}",
        codat_webhook_secrets="whsec_" + b64encode(secrets.token_bytes(32)).decode(),
        codat_api_key=secrets.token_hex(24),  # never begins with a dash: it becomes an argument
        codat_base_url=f"http://{HOST}:{codat_port}",
        api_keys="demo-" + secrets.token_hex(12),
        host=HOST,
        port=port,
        worker_in_web=True,
        log_level="warning",
        log_format="console",
    )


@contextmanager
def simulated_codat(settings: Settings) -> Iterator[None]:
    """A simulated Codat that plays a lively morning to the service, until the block ends."""
    key = settings.codat_api_key.get_secret_value() if settings.codat_api_key else ""
    port = settings.codat_base_url.rsplit(":", 1)[1]
    secret = settings.codat_webhook_secrets[0].get_secret_value()
    command = [
        *(sys.executable, "-m", "simulator", "--port", port, "--until-eof"),
        *("--to", f"http://{HOST}:{settings.port}/webhooks/codat", "--scenario", "morning"),
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end says that we are gone, however we went
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SIMULATOR_KEY": key, "SIMULATOR_SECRETS": secret},
    )
    try:
        _wait_until_it_listens(process, int(port))
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Raises ServiceError when it ends, or does not listen within half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.05)
    raise ServiceError("the simulated Codat did not start")


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A folder that is gone when the demo ends; those of demos that were killed go now."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_left_behind(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def _is_left_behind(folder: Path) -> bool:
    """True for a folder of ours whose name tells a process that is no more."""
    number = folder.name.removeprefix(PREFIX).partition("-")[0]
    if folder.is_symlink() or not number.isdigit() or folder.stat().st_uid != os.getuid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def greeting(settings: Settings) -> str:
    """What the terminal says: what to open, how to sign in, what to type."""
    address = f"http://{settings.host}:{settings.port}"
    key = settings.api_keys[0].get_secret_value()
    return f"""
  The receiver is running, and a simulated Codat is playing a lively morning of syncs to it.

  Open      {address}/
  Sign in   {key}

  Every sync:
    curl -s -H "Authorization: Bearer {key}" "{address}/api/v1/syncs?limit=5"
  Every failed item, with its error:
    curl -s -H "Authorization: Bearer {key}" "{address}/api/v1/push-errors?limit=5"
  A forged delivery is turned away:
    curl -i -X POST {address}/webhooks/codat -d '{{}}'

  Everything is thrown away when you stop it with Ctrl-C.
"""
