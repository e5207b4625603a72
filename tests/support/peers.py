"""What a client does: connect, exchange bytes or datagrams, leave in good order or in bad."""

import select
import socket
import struct
from collections.abc import Iterable

from tests.support.patience import SECONDS

Address = tuple[str, int] | tuple[str, int, int, int]
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


def connect(address: Address, source: str = "", **options: int) -> socket.socket:
    """Return a TCP connection, from the address `source` if one is given, whose calls fail after
    `SECONDS`; `options` are of SOL_SOCKET.
    """
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(SECONDS)
        for name, value in options.items():
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        if source:
            sock.bind((source, 0))
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def datagrams(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a UDP socket on an address of this host; receiving fails after `SECONDS`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    sock.settimeout(SECONDS)
    return sock


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """Return the next `count` bytes."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the end after {len(data)} of {count} bytes"
        data += piece
    return data


def echoed(sock: socket.socket, data: bytes = b"hello") -> bool:
    """Tell whether a few bytes come back."""
    sock.sendall(data)
    return read_exactly(sock, len(data)) == data


def exchange(sock: socket.socket, pieces: Iterable[bytes]) -> bytes:
    """Send all pieces while reading, then shut down that side; return all that came to the end."""
    received, waiting = bytearray(), list(reversed(list(pieces)))
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    while ready := poll.poll(SECONDS * 1000):
        [(_, events)] = ready
        if events & select.POLLIN:
            data = sock.recv(1 << 20)
            if not data:
                return bytes(received)
            received += data
        elif waiting:
            piece = waiting.pop()
            sent = sock.send(piece)
            if sent < len(piece):
                waiting.append(piece[sent:])
        else:
            sock.shutdown(socket.SHUT_WR)
            poll.modify(sock, select.POLLIN)
    raise AssertionError(f"no end after {len(received)} bytes")


def reset(sock: socket.socket) -> None:
    """Break the connection off."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    sock.close()


def nothing_more(sock: socket.socket) -> bool:
    """Tell whether nothing has come that was not read yet."""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False
