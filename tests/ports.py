"""Free ports for the servers that the suite starts.

They are below those that a system uses for outgoing connections, so that none is taken between the
moment it is found and the moment it is used. Each process begins at a random one.
"""

import itertools
import random
import socket

LOWEST, HIGHEST = 10_240, 29_999

_ports = itertools.cycle(range(LOWEST, HIGHEST + 1))
for _ in range(random.SystemRandom().randrange(HIGHEST - LOWEST)):
    next(_ports)


def free_port() -> int:
    """A port on which nothing listens, another one each time."""
    for _ in range(LOWEST, HIGHEST + 1):
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
