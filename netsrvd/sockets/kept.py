"""Listening sockets of the daemon's own, kept in systemd's descriptor store over a restart.

So no other process can bind their ports between two of the daemon's, and what comes meanwhile
waits in their queues. The name of each in the store says with what it was opened, so that a socket
goes on only if the next process would open the same one.
"""

import binascii
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress

from netsrvd.settings import Endpoint, ListenerSettings, OptionValue
from netsrvd.sockets import bind
from netsrvd.sockets.activation import STORED_SOCKET, Stored
from netsrvd.sockets.bind import ListeningSocket
from netsrvd.sockets.interfaces import Binding, bound_name, state


def name_of(endpoint: Endpoint, opened: ListeningSocket) -> str:
    """Return the name in the store of a socket that was bound for an endpoint."""
    shared = opened.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    return _name(endpoint, opened.listener.options, is_shared=bool(shared))


def match(
    stored: Iterable[Stored], wanted: Mapping[Endpoint, ListenerSettings], *, share: bool
) -> tuple[dict[Endpoint, ListeningSocket], list[Stored]]:
    """Return the sockets of the store that are to go on, and the other descriptors.

    One goes on if it has the address, the interface and the options that the configuration wants;
    its `name` is that in the store. The caller closes all of them. `share` is that of
    `bind.open_endpoint`.
    """
    left: dict[str, int] = {}
    others: list[Stored] = []
    for descriptor, name in stored:
        if name in left:
            others.append((descriptor, name))
        left.setdefault(name, descriptor)
    taken: dict[Endpoint, ListeningSocket] = {}
    for endpoint, listener in wanted.items():
        is_shared = share or bool(listener.options.get("SO_REUSEPORT"))
        name = _name(endpoint, listener.options, is_shared=is_shared)
        if name in left and (opened := _reopened(left[name], endpoint, listener)):
            taken[endpoint] = opened._replace(name=name)
            del left[name]
    return taken, others + [(descriptor, name) for name, descriptor in left.items()]


def _name(endpoint: Endpoint, options: Mapping[str, OptionValue], *, is_shared: bool) -> str:
    """Return a name of printable ASCII without a colon, as the store wants it.

    Options cannot be read from a socket: the kernel changes their values. So the name has a
    checksum of them. It need only differ from that of the same listener before a restart.
    """
    what = (*endpoint[1:], sorted(options.items()), is_shared)
    return f"{STORED_SOCKET}{binascii.crc32(repr(what).encode()):08x}"


def _reopened(
    descriptor: int, endpoint: Endpoint, listener: ListenerSettings
) -> ListeningSocket | None:
    """Return a socket of the store as `bind.open_endpoint` would; None if it is not like that.

    An interface may have been deleted since, and made anew: then a socket that was bound to it
    hears nothing any more.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:  # it is no socket
        return None
    try:
        sock.setblocking(False)
        if _is_for(sock, endpoint):
            adjustments = bind.set_options(sock, endpoint.protocol, listener, binds=False)
            if endpoint.protocol == "tcp":
                bind.listen(sock, listener.backlog)
            return ListeningSocket(sock, endpoint.protocol, listener, "bound", tuple(adjustments))
    except OSError:
        pass  # then another one is opened, which may fail with a reason
    sock.detach()
    return None


def _is_for(sock: socket.socket, endpoint: Endpoint) -> bool:
    if sock.type != bind.TYPES[endpoint.protocol]:
        return False
    if interface := endpoint.interface or endpoint.host.partition("%")[2]:
        is_bound = state(sock, interface) is Binding.HELD
    else:
        is_bound = bound_name(sock) == ""
    return is_bound and sock.getsockname() == bind.resolved(endpoint)


def close(descriptors: Iterable[Stored]) -> None:
    """Close descriptors of the store in this process."""
    for descriptor, _ in descriptors:
        with suppress(OSError):
            os.close(descriptor)
