"""Sockets that are bound to a network interface, which may be deleted and made anew.

The kernel binds a socket to the number of an interface. One of the same name that is made later has
another number, and the socket receives nothing from it.
"""

import errno
import socket
from enum import Enum

from netsrvd.settings import Endpoint
from netsrvd.sockets.bind import ListeningSocket

IFNAMSIZ = 16
"""Bytes of the name of an interface, a final NUL included (netdevice(7))."""


class Binding(Enum):
    """How a socket and its interface are to each other."""

    HELD = "bound to it"
    LOST = "bound to nothing"
    """`ss -K` does that to a UDP socket, which then receives from every interface."""
    REPLACED = "bound to one that is gone; there is another one of that name"
    GONE = "bound to one that is gone"


def needed(endpoint: Endpoint, opened: ListeningSocket) -> str:
    """Return the name of the interface that a socket is to be bound to, empty for none."""
    interface = endpoint.interface or endpoint.host.partition("%")[2] or opened.listener.interface
    if not interface and opened.origin != "bound" and bound_name(opened.sock) is None:
        return "of its socket unit"
    return interface


def bound_name(sock: socket.socket) -> str | None:
    """Return the name of the interface that a socket is bound to; None if that is gone."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, IFNAMSIZ)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    return data.partition(b"\0")[0].decode(errors="replace")


def state(sock: socket.socket, interface: str) -> Binding:
    """Return how a socket is bound to an interface, which may be named by a number or alias."""
    bound, wanted = bound_name(sock), _index(interface)
    if bound == "":
        return Binding.LOST
    if bound is not None and wanted is not None and _index(bound) == wanted:
        return Binding.HELD
    return Binding.GONE if wanted is None else Binding.REPLACED


def bind_again(sock: socket.socket, interface: str) -> None:
    """Bind a socket that is bound to no interface. Raises OSError."""
    name = socket.if_indextoname(int(interface)) if interface.isdecimal() else interface
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())


def _index(interface: str) -> int | None:
    try:
        return int(interface) if interface.isdecimal() else socket.if_nametoindex(interface)
    except OSError:
        return None
