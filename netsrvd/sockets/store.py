"""Live connections in systemd's descriptor store, on their way to the next process.

The store is that of FDSTORE=1 in sd_notify(3): what is put into it by a service that is being
restarted comes back to its next process among the sockets of sd_listen_fds(3), with a name.
"""

import os
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from netsrvd.linux import memfd
from netsrvd.sockets.activation import STORED, Stored
from netsrvd.sockets.states import ConnectionState, GuestState, Handover, State, decode, encode

STATE, CONNECTION = f"{STORED}state", f"{STORED}connection"

SO_COOKIE = 57
"""<asm-generic/socket.h>: a number that no other socket of this boot has. Python has no name."""

COOKIE_BYTES = 8


class Estate(NamedTuple):
    """What came out of the store. Whoever takes a connection closes its socket."""

    connections: list[tuple[socket.socket, ConnectionState]]
    guests: list[tuple[socket.socket, GuestState]]
    lost: list[ConnectionState]
    """Connections whose sockets did not come along."""
    at: float
    """When it was put in, by CLOCK_MONOTONIC."""
    problems: list[str]


def cookie(sock: socket.socket) -> int:
    """Return the number by which a socket is the same one in every process."""
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, COOKIE_BYTES)
    return int.from_bytes(raw, sys.byteorder)


def pack(
    connections: Iterable[tuple[socket.socket, ConnectionState]],
    guests: Iterable[tuple[socket.socket, GuestState]],
    at: float,
) -> int:
    """Return the descriptor of a sealed file with the states; the caller closes it."""
    handover = Handover(at, _by_cookie(connections), _by_cookie(guests))
    return memfd.sealed(STATE, encode(handover))


def unpack(stored: Iterable[Stored]) -> Estate:
    """Match the descriptors of the store, each with its name, to their states.

    It takes all descriptors: closes what it cannot use, and says why in `problems`.
    """
    sockets: dict[int, socket.socket] = {}
    states: dict[int, ConnectionState] = {}
    waiting: dict[int, GuestState] = {}
    at, problems = 0.0, []
    for descriptor, name in stored:
        if name == CONNECTION:
            with suppress(OSError):  # no socket: then it is none of ours
                sock = socket.socket(fileno=descriptor)
                sockets[cookie(sock)] = sock
                continue
        elif name == STATE:
            try:
                handover = decode(memfd.content(descriptor))
            except ValueError as error:
                problems.append(str(error))
            else:
                at = max(at, handover.at)
                states |= handover.connections
                waiting |= handover.guests
        os.close(descriptor)
    unknown = sockets.keys() - states.keys() - waiting.keys()
    for number in unknown:
        sockets.pop(number).close()
    if unknown:
        problems.append(f"{len(unknown)} connections came without their states")
    lost = [state for number, state in states.items() if number not in sockets]
    return Estate(_matched(sockets, states), _matched(sockets, waiting), lost, at, problems)


def _by_cookie(found: Iterable[tuple[socket.socket, State]]) -> dict[int, State]:
    return {cookie(sock): state for sock, state in found}


def _matched(
    sockets: Mapping[int, socket.socket], states: Mapping[int, State]
) -> list[tuple[socket.socket, State]]:
    return [(sock, states[number]) for number, sock in sockets.items() if number in states]
