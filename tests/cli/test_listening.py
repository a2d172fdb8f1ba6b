"""The sockets of one address: evenly dealt out, and nobody else's."""

import socket
import sys
from contextlib import ExitStack, closing

import pytest

from app.web import listening
from tests.processes import free_port, refuses

HERE, THERE = BOTH = ("127.0.0.1", "127.0.0.2")
NOWHERE = "192.0.2.1"  # for documentation (RFC 5737): no machine has it


def accepted(share: listening.Sockets) -> int:
    """How many connections wait in these sockets; they are accepted and closed."""
    count = 0
    for each in share:
        each.setblocking(False)
        while True:
            try:
                each.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
    return count


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all accept from one socket")
def test_each_process_has_its_part_of_a_burst() -> None:
    """Fewer than ten of eighty would come once in a hundred billion times."""
    port = free_port()
    shares = listening.listen(HERE, port, 2)
    with ExitStack() as stack:
        stack.callback(listening.close, shares)
        for _ in range(80):
            stack.enter_context(closing(socket.create_connection((HERE, port))))
        counts = [accepted(share) for share in shares]
    assert sum(counts) == 80
    assert min(counts) >= 10


def test_what_waits_for_one_that_died_waits_for_its_heir() -> None:
    """A process's sockets stay open as long as its parent has them."""
    port = free_port()
    shares = listening.listen(HERE, port, 2)
    dying = [[each.dup() for each in share] for share in shares]
    with ExitStack() as stack:
        stack.callback(listening.close, shares)
        for _ in range(20):
            stack.enter_context(closing(socket.create_connection((HERE, port))))
        listening.close(dying)
        assert sum(map(accepted, shares)) == 20


@pytest.mark.parametrize("processes", [1, 2])
def test_an_address_that_is_taken_is_refused(processes: int) -> None:
    """To whom would share it, too: half of what comes would be lost to each."""
    port = free_port()
    shares = listening.listen(HERE, port, 2)
    try:
        with pytest.raises(OSError, match="in use"):
            listening.listen(HERE, port, processes)
    finally:
        listening.close(shares)
    assert refuses(HERE, port)


@pytest.mark.allow_hosts(list(BOTH))
def test_every_address_of_a_host_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` may have two; for each process a socket of each."""
    _name(monkeypatch, *BOTH)
    port = free_port()
    shares = listening.listen("localhost", port, 3)
    try:
        assert [len(share) for share in shares] == [2, 2, 2]
        assert not any(refuses(host, port) for host in BOTH)
    finally:
        listening.close(shares)
    assert all(refuses(host, port) for host in BOTH)


@pytest.mark.allow_hosts(list(BOTH))
def test_when_one_address_is_taken_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a service that did not start would be in the way of the next one."""
    port = free_port()
    _name(monkeypatch, THERE, HERE)
    with socket.create_server((HERE, port)), pytest.raises(OSError, match="in use"):
        listening.listen("localhost", port, 2)
    assert refuses(THERE, port)


@pytest.mark.allow_hosts([HERE, NOWHERE])
def test_an_address_that_this_machine_does_not_have_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where IPv6 is switched off `localhost` may be named for it all the same."""
    port = free_port()
    _name(monkeypatch, NOWHERE, HERE)
    shares = listening.listen("localhost", port, 2)
    listening.close(shares)
    assert [[each.family for each in share] for share in shares] == [[socket.AF_INET]] * 2
    _name(monkeypatch, NOWHERE)
    with pytest.raises(OSError, match="assign"):
        listening.listen("localhost", port, 2)


def test_a_host_without_an_address_is_an_error_like_the_others() -> None:
    """As the operator sees it: it cannot be listened on."""
    with pytest.raises(OSError, match=r"."):
        listening.listen("no such host.invalid", free_port(), 2)


def _name(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Let `localhost` have these addresses, each said twice as some systems do."""

    def told(name: str, port: int, *_: int, **__: int) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = hosts if name == "localhost" else (name,)
        return [(*kind, (host, port)) for host in found for _ in range(2)]

    monkeypatch.setattr(socket, "getaddrinfo", told)
