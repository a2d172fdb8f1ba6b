"""PgBouncer in front of a PostgreSQL server of the tests."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests import databases
from tests.ports import free_port
from tests.processes import wait_for

FOLDERS = ("/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")


def _binary() -> str:
    found = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), *FOLDERS)))
    if found is None:
        reason = "no PgBouncer found: install pgbouncer"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def pooler(url: str, mode: str, **options: str) -> Iterator[str]:
    """PgBouncer with one or two server connections; yields the address through it."""
    binary = _binary()
    address, port = make_url(url), free_port()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/tmp"))
    user = databases.ordinary_user(folder)  # it refuses to run as root
    settings = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "any",
        "pool_mode": mode, "default_pool_size": 2, "max_client_conn": 200, **options,
    }  # fmt: skip
    lines = [f"{name} = {value}" for name, value in settings.items()]
    target = f"* = host={address.host} port={address.port} user={address.username}"
    file = folder / "pgbouncer.ini"
    file.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]))
    file.chmod(0o644)
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, file], stdout=log, stderr=log, **identity)  # type: ignore[call-overload]  # as in `databases.run`
    try:
        wait_for(lambda: process.poll() is None and _listens(port), 10)
        yield address.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
