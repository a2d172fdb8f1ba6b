"""The sockets of one address, for the processes that serve it together.

Each process has one of its own. Of a socket that several share, the one that happens to wake first
takes a whole burst of connections, and the others watch. The kernel deals connections out evenly
among sockets that share a port (socket(7), SO_REUSEPORT), and what waits in the socket of a process
that died waits for the one that takes its place, because the parent keeps it open.
"""

import errno
import os
import socket
import sys
from contextlib import ExitStack
from typing import Any

BACKLOG = 2048
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
Sockets = list[socket.socket]


def listen(host: str, port: int, processes: int) -> list[Sockets]:
    """For each process its sockets, which listen already: one for each address of the host.

    An address that this machine does not have is left out: `localhost` is named for IPv6 too where
    there is none. Raises OSError when none is left, or one is taken, by us or by anybody else.
    """
    shares: list[Sockets] = [[] for _ in range(processes)]
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with ExitStack() as undo:
        undo.callback(close, shares)
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            for mine, part in zip(shares, _divided(family, address, processes), strict=False):
                mine.append(part)
        if not all(shares):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        undo.pop_all()
    return shares


def close(shares: list[Sockets]) -> None:
    """Listen no more."""
    for mine in shares:
        for each in mine:
            each.close()


def _divided(family: int, address: Any, parts: int) -> Sockets:
    """So many sockets of one address; none where this machine does not have it.

    It is claimed as a whole first: a second service that is started on the same port by mistake
    must not get a part of it.
    """
    try:
        whole = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise
    with whole:
        if sys.platform != "linux":  # elsewhere one socket would get all connections
            return [whole.dup() for _ in range(parts)]
        whole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        name = whole.getsockname()
        return [
            socket.create_server(name, family=family, backlog=BACKLOG, reuse_port=True)
            for _ in range(parts)
        ]
