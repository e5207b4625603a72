"""Clients of a daemon in another process; they wait for everything, but not for ever."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.peers import connect, datagrams, echoed, exchange
from tests.support.run import LOOPBACK

HELLO = b"hello"


@contextmanager
def talking(port: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Give a TCP connection that is being served: it has already got an answer."""
    with connect((host, port)) as sock:
        assert echoed(sock, HELLO)
        yield sock


def is_served(sock: socket.socket) -> bool:
    """Return whether a connection is answered, and was not ended."""
    try:
        return echoed(sock)
    except (OSError, AssertionError):
        return False


def ended(sock: socket.socket) -> bool:
    """Return True when the server has closed, in order or not, without sending anything more."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def leaves_in_order(sock: socket.socket) -> bool:
    """Shut down our side; return whether the server answers with its end and nothing else."""
    sock.shutdown(socket.SHUT_WR)
    return sock.recv(1) == b""


def answer(port: int, data: bytes = HELLO, host: str = "127.0.0.1") -> bytes:
    """Send a datagram and return the answer."""
    with datagrams(host) as sock:
        sock.connect((host, port))
        sock.send(data)
        return sock.recv(65536)


def serves(port: int, hosts: list[str] = LOOPBACK) -> bool:
    """Return whether all that echo promises on these addresses works: TCP to the end, and UDP."""
    for host in hosts:
        with connect((host, port)) as sock:
            assert exchange(sock, [HELLO, HELLO]) == HELLO + HELLO
        assert answer(port, host=host) == HELLO
    return True


def refused(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether nobody listens for TCP there."""
    try:
        connect((host, port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was just being closed
        return False
    return False
