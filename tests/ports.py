"""Ports for what the suite starts.

Below those that a system hands out for outgoing connections, so that none of these is taken between
the moment it is found free and the moment it is used; and each process begins elsewhere.
"""

import itertools
import random
import socket

LOWEST, HIGHEST = 10_240, 29_999

_ports = itertools.cycle(range(LOWEST, HIGHEST + 1))
for _ in range(random.SystemRandom().randrange(HIGHEST - LOWEST)):
    next(_ports)


def free_port() -> int:
    """A port nobody listens on, another one each time."""
    for _ in range(LOWEST, HIGHEST + 1):
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
