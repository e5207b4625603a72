"""Clients that run by themselves inside a machine: `journal_load.py STEP...`, in this order.

`tcp ADDRESS BYTES`: one connection from this address, which has BYTES bytes echoed and closes.
`refused ADDRESS TIMES`: as many connections, one after the other, which the daemon closes.
`reset ADDRESS`: one connection that the client resets. `udp ADDRESS TIMES`: as many datagrams from
one port, each answered. `within ADDRESS ADDRESS`: a connection of the second address begins and
ends while one of the first is open. `hold ADDRESS`: one connection that stays, and `held` is
printed; `wait`: reads a line of standard input; `leave`: those that stay close.
"""

import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

PORT = 51423
PATIENCE_SECONDS = 60
RESET = struct.pack("ii", 1, 0)


def connected(address: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that is connected to the daemon from an address."""
    sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(PATIENCE_SECONDS)
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", PORT))
    return sock


def echo(sock: socket.socket, size: int) -> None:
    """Have bytes echoed."""
    sock.sendall(bytes(size))
    while size:
        received = sock.recv(65536)
        assert received
        size -= len(received)


def close(sock: socket.socket) -> None:
    """Close and wait until the daemon has done so, too."""
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    sock.close()


def tcp(address: str, size: str) -> None:
    """Have bytes echoed over one connection."""
    with connected(address) as sock:
        echo(sock, int(size))
        close(sock)


def refused(address: str, times: str) -> None:
    """Connect and see the daemon close, again and again."""
    for _ in range(int(times)):
        with connected(address) as sock, suppress(ConnectionResetError):
            assert sock.recv(1) == b""


def reset(address: str) -> None:
    """Reset a connection."""
    with connected(address) as sock:
        echo(sock, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def udp(address: str, times: str) -> None:
    """Have datagrams echoed."""
    with connected(address, socket.SOCK_DGRAM) as sock:
        for _ in range(int(times)):
            sock.send(b"datagram")
            assert sock.recv(100) == b"datagram"


def within(outer_address: str, inner_address: str) -> None:
    """Open and close a connection while another one is open."""
    with connected(outer_address) as outer:
        echo(outer, 1)
        tcp(inner_address, "1")
        close(outer)


HELD: list[socket.socket] = []


def hold(address: str) -> None:
    """Open a connection that stays."""
    HELD.append(connected(address))
    echo(HELD[-1], 4)


def wait() -> None:
    """Wait for a line."""
    print("held", flush=True)
    sys.stdin.readline()


def leave() -> None:
    """Close what stayed open; the daemon may have been stopped meanwhile."""
    for sock in HELD:
        sock.close()


STEPS: dict[str, Callable[..., None]] = {
    step.__name__: step for step in (tcp, refused, reset, udp, within, hold, wait, leave)
}

if __name__ == "__main__":
    words = sys.argv[1:]
    while words:
        step = STEPS[words.pop(0)]
        step(*(words.pop(0) for _ in range(step.__code__.co_argcount)))
