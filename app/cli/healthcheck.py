"""The container's health check: `python -m app.cli.healthcheck`, exit code 0 if healthy.

It asks the server where it really listens, whatever the settings and the proxies of the
environment. A server that only its own container can reach is not healthy. A worker is healthy
while its process runs. Imports little, because it runs every few seconds.
"""

import http.client
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from app.domain.checks import is_loopback

TIMEOUT_S = 2.0
COMMAND = Path("/proc/1/cmdline")
LISTENING = "0A"
_SAME_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


def main() -> int:
    """Print why the container is unhealthy; the exit code."""
    problem = check(COMMAND.read_bytes().split(b"\0"), list(listeners()))
    if problem:
        sys.stdout.write(f"{problem}\n")
    return 1 if problem else 0


def listeners() -> Iterator[tuple[str, int]]:
    """The addresses and ports on which processes of this user accept connections (proc(5))."""
    for family, file in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        lines = Path(file).read_text().splitlines()[1:] if Path(file).exists() else ()
        for _, local, _, state, _, _, _, user, *_ in map(str.split, lines):
            if state == LISTENING and int(user) == os.getuid():
                address, _, port = local.partition(":")
                words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
                yield socket.inet_ntop(family, packed), int(port, 16)


def check(command: list[bytes], listening: list[tuple[str, int]]) -> str | None:
    """What is wrong with a container that runs this command and listens there."""
    if b"worker" in command:
        return None
    reachable = [(host, port) for host, port in listening if not is_loopback(host)]
    if not reachable:
        hosts = ", ".join(host for host, _ in listening)
        return f"listens on {hosts} only; set HOST=0.0.0.0" if hosts else "nothing listens"
    host, port = reachable[0]
    connection = http.client.HTTPConnection(_SAME_MACHINE.get(host, host), port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer at {host}, port {port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.HTTPStatus.OK else f"/livez answers {status}"


if __name__ == "__main__":
    sys.exit(main())
