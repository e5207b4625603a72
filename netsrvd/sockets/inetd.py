"""Takes the one connection that inetd has accepted: standard input."""

import os
import socket
import stat
from contextlib import suppress

from netsrvd.errors import UsageError
from netsrvd.sockets.activation import NUMBERS, PROTOCOLS

STANDARD_INPUT = 0
STANDARD_STREAMS = (0, 1, 2)

WHO = "inetd, xinetd, tcpserver and systemd's Accept=yes"


def take() -> socket.socket | None:
    """Return the connection that is standard input, which is /dev/null from then on.

    The caller closes it. None for one whose client has gone already. Raises UsageError for
    anything but a connected TCP socket.
    """
    if not stat.S_ISSOCK(os.fstat(STANDARD_INPUT).st_mode):
        raise UsageError(f"standard input is no socket; --inetd is for {WHO}")
    sock = socket.socket(fileno=os.dup(STANDARD_INPUT))
    fault = _fault(sock)
    if fault or _is_gone(sock):
        sock.close()
    if fault:
        raise UsageError(f"standard input {fault}")
    if sock.fileno() < 0:
        return None
    sock.setblocking(False)
    _replace(STANDARD_INPUT)
    return sock


def hide_from_client() -> bool:
    """Replace standard output and standard error by /dev/null where they are the client's socket.

    Return whether standard error was one.
    """
    hidden = [number for number in STANDARD_STREAMS[1:] if is_client(number)]
    for number in hidden:
        _replace(number)
    return STANDARD_STREAMS[2] in hidden


def is_client(descriptor: int) -> bool:
    """Return whether a descriptor is a socket of the network."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                return sock.family in (socket.AF_INET, socket.AF_INET6)
    return False


def _fault(sock: socket.socket) -> str:
    """Return what is wrong with a socket, or an empty text."""
    protocol = PROTOCOLS.get(sock.type, "")
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto not in NUMBERS.get(
        protocol, ()
    ):
        return f"is neither TCP nor UDP; --inetd is for {WHO} (socat: EXEC:...,nofork)"
    if protocol == "udp":
        return "is a UDP socket; serve datagrams by a daemon of their own, `netsrvd run`"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return (
            "is a listening socket; --inetd takes one connection: `nowait`, wait = no, Accept=yes"
        )
    return ""


def _is_gone(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:  # ENOTCONN, after a reset
        return True
    return False


def _replace(descriptor: int) -> None:
    """Make a descriptor /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
