"""`demo`: the service on SQLite, with a simulated Codat beside it.

It creates what it needs: a database, keys, a signing secret, free ports. The simulator is a
subprocess and is spoken to over HTTP only.
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
from typing import Annotated

import typer

from app import logging as log
from app.cli.serve import run_server
from app.cli.terminal import one_line_errors, open_database
from app.errors import ServiceError
from app.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
PORTS_TRIED = 50
FOLDER_PREFIX = "codat-demo-"
SIMULATOR_STARTS_WITHIN_S = 30


def demo(port: Annotated[int, typer.Option(help="First port to try.")] = 8000) -> None:
    """Run the whole service on SQLite with a simulated Codat; no other setup needed."""
    from app.db import migrations

    with one_line_errors():
        if not (ROOT / "simulator").is_dir():
            raise ServiceError(
                "The demo needs a checkout of the repository: the simulated Codat is not part of "
                "the image. Use `send` to try out an endpoint."
            )
        with demo_folder() as folder:
            settings = demo_settings(folder, free_port(port))
            log.configure(settings.log_level, "console")
            with open_database(settings) as database:
                migrations.migrate(database)
            with simulated_codat(settings):
                run_server(settings, on_ready=lambda: typer.echo(greeting(settings)))


def free_port(first: int) -> int:
    """The first port from `first` on that is free. Raises ServiceError when none is."""
    for port in range(first, first + PORTS_TRIED):
        if not _is_listening(port):
            return port
    raise ServiceError(f"No port from {first} to {first + PORTS_TRIED - 1} is free.")


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def demo_settings(folder: Path, port: int) -> Settings:
    """Settings for a service in `folder` whose Codat is the simulator."""
    return load_settings(
        database_url=f"sqlite:///{folder / 'demo.db'}",
        codat_webhook_secrets="whsec_" + b64encode(secrets.token_bytes(32)).decode(),
        codat_api_key=secrets.token_hex(24),
        codat_base_url=f"http://{HOST}:{free_port(port + 1)}",
        api_keys="demo:demo-" + secrets.token_hex(12),
        host=HOST,
        port=port,
        worker_in_web=True,
        notify_webhook_urls=(),  # a `.env` may have real receivers
        retry_webhook_url=None,
        notify_urls=(),
        log_level="warning",
        log_format="console",
    )


@contextmanager
def simulated_codat(settings: Settings) -> Iterator[None]:
    """Run a simulated Codat that sends a morning of sample syncs, until the block ends."""
    key = settings.codat_api_key.get_secret_value() if settings.codat_api_key else ""
    secret = settings.codat_webhook_secrets[0].get_secret_value()
    port = settings.codat_base_url.rpartition(":")[2]
    endpoint = f"http://{HOST}:{settings.port}/webhooks/codat"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "simulator", "--port", port, "--until-eof"),
            *("--to", endpoint, "--scenario", "morning"),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # closed when this process ends, which stops the simulator
        stdout=subprocess.DEVNULL,
        # not as options: every user of the machine can read a command line
        env={**os.environ, "SIMULATOR_KEY": key, "SIMULATOR_SECRETS": secret},
    )
    try:
        end = time.monotonic() + SIMULATOR_STARTS_WITHIN_S
        while not _is_listening(int(port)):
            if time.monotonic() > end or process.poll() is not None:
                raise ServiceError("The simulated Codat did not start.")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def demo_folder() -> Iterator[Path]:
    """A temporary folder. Also removes those of demos that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        if _is_orphaned(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-") as created:
        yield Path(created)


def _is_orphaned(folder: Path) -> bool:
    """True for our own folder when the process whose id is in its name no longer exists."""
    pid = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
    if folder.is_symlink() or not pid.isdigit() or folder.stat().st_uid != os.getuid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def greeting(settings: Settings) -> str:
    """What to open, how to sign in, what to try."""
    address = f"http://{settings.host}:{settings.port}"
    key = settings.api_keys[0].key.get_secret_value()
    return f"""
  The service is running, and a simulated Codat sends it a busy morning of sample syncs.

  Open      {address}/
  Sign in   {key}

  Latest syncs:
    curl -s -H "Authorization: Bearer {key}" "{address}/api/v1/syncs?limit=5"
  Failed items and their errors:
    curl -s -H "Authorization: Bearer {key}" "{address}/api/v1/push-errors?limit=5"
  A forged webhook is rejected with 401:
    curl -i -X POST {address}/webhooks/codat -d '{{}}'

  Stop with Ctrl-C. All data is deleted.
"""
