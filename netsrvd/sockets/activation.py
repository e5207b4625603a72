"""Adopts the sockets that systemd passed (sd_listen_fds(3))."""

import os
import socket
from contextlib import suppress
from typing import NamedTuple

from netsrvd.addresses import shown, unmapped
from netsrvd.errors import ActivationError
from netsrvd.settings import ListenerSettings
from netsrvd.sockets.bind import Opened, set_options

SO_TIMESTAMP, SO_TIMESTAMPNS = 29, 35
"""Which Timestamping= of a socket unit sets (socket(7))."""

PROTOCOLS = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}
NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


STORED = "handover/"
"""Begins the names of what is ours in systemd's descriptor store. No listener has such a name."""

Stored = tuple[int, str]
"""A descriptor from the store, and its name."""


class Passed(NamedTuple):
    """A descriptor as systemd passed it, with its FileDescriptorName=."""

    sock: socket.socket
    name: str


def passed() -> tuple[list[Passed], list[Stored]]:
    """Return what systemd passed to this very process; none is not an error.

    First the sockets to listen on, then what the process before put into the descriptor store.
    LISTEN_PID must be our own PID. The descriptors are set close-on-exec, and the variables are
    taken out of the environment, so that no child can take them for its own. Raises
    ActivationError for a descriptor that is no socket.
    """
    if "LISTEN_FDS" not in os.environ:
        return [], []
    from systemd.daemon import listen_fds_with_names  # noqa: PLC0415 - 20 ms that others save

    try:
        names = listen_fds_with_names(unset_environment=True)
    except (OSError, SystemError) as error:  # SystemError: a name that is not UTF-8
        raise ActivationError(
            f"LISTEN_FDS cannot be used: {error}; see sd_listen_fds(3)"
        ) from error
    found, stored, problems = [], [], []
    for descriptor, given in sorted(names.items()):
        if given.startswith(STORED):
            stored.append((descriptor, given))
            continue
        # systemd lets no name have control characters, but the environment may be anybody's.
        name = given if given.isprintable() else ascii(given)
        try:
            found.append(Passed(socket.socket(fileno=descriptor), name))
        except OSError:
            problems.append(f"systemd passed descriptor {descriptor} ({name}), which is no socket")
    if problems:
        turn_away(found)
        raise ActivationError("\n".join(problems))
    return found, stored


def adopt(sockets: list[Passed], listeners: tuple[ListenerSettings, ...]) -> list[Opened]:
    """Match each passed socket to the listener that it is for, and prepare it.

    A listener's name counts before its address. Raises ActivationError with a line for each socket
    that is of the wrong kind or that no listener wants.
    """
    opened, problems = [], []
    for one in sockets:
        fault = _wrong_kind(one.sock)
        listener = None if fault else _wanted_by(one, listeners)
        if listener is None:
            problems.append(_refusal(one, fault, listeners))
        else:
            opened.append(_prepared(one.sock, listener))
    if problems:
        raise ActivationError("\n".join(problems))
    return opened


def turn_away(sockets: list[Passed]) -> None:
    """Take from the queues what waits there, and close everything.

    For a start that failed: systemd would otherwise start the service again for the same waiting
    connection or datagram, until its start limit closes the socket for everybody.
    """
    for one in sockets:
        with one.sock as sock, suppress(OSError):
            sock.setblocking(False)
            for _ in range(1000):
                if sock.type == socket.SOCK_STREAM:
                    sock.accept()[0].close()
                else:
                    sock.recv(1)


def _wrong_kind(sock: socket.socket) -> str:
    """Return what is wrong with a socket, or an empty text."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "is neither IPv4 nor IPv6"
    protocol = PROTOCOLS.get(sock.type, "")
    if not protocol or sock.proto != NUMBERS[protocol]:
        return "is neither TCP nor UDP"
    if protocol == "tcp" and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "is a TCP socket that does not listen; the socket unit needs Accept=no"
    return ""


def _wanted_by(one: Passed, listeners: tuple[ListenerSettings, ...]) -> ListenerSettings | None:
    protocol = PROTOCOLS[one.sock.type]
    candidates = [each for each in listeners if protocol in each.protocols]
    for listener in candidates:
        if listener.name == one.name:
            return listener
    host, port = one.sock.getsockname()[:2]
    for listener in candidates:
        if listener.port == port and (not listener.hosts or unmapped(host) in listener.hosts):
            return listener
    return None


def _prepared(sock: socket.socket, listener: ListenerSettings) -> Opened:
    protocol = PROTOCOLS[sock.type]
    # systemd passes blocking sockets. The flag is part of the open file that systemd shares.
    sock.setblocking(False)
    if protocol == "udp":
        # systemd sets it on its UDP sockets, too; while it stands, any user may bind the same
        # port and take the datagrams. Cleared, later binds by others fail.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        # With each datagram there is room for one control message: that which says whom it asked.
        for number in (SO_TIMESTAMP, SO_TIMESTAMPNS):
            sock.setsockopt(socket.SOL_SOCKET, number, 0)
    try:
        adjustments = set_options(sock, protocol, listener)
    except OSError as error:
        where = shown(*sock.getsockname()[:2])
        raise ActivationError(
            f"listener {listener.name}: an option cannot be set on {protocol} {where}, which "
            f"systemd passed: {error.strerror}; set it in the socket unit or leave it out"
        ) from error
    return Opened(sock, protocol, listener, "systemd", tuple(adjustments))


def _refusal(one: Passed, fault: str, listeners: tuple[ListenerSettings, ...]) -> str:
    what = f"systemd passed {one.name or 'an unnamed socket'} (descriptor {one.sock.fileno()})"
    if fault:
        return f"{what}, which {fault}"
    host, port = one.sock.getsockname()[:2]
    names, protocol = [listener.name for listener in listeners], PROTOCOLS[one.sock.type]
    what += f", {protocol} {shown(host, port)}"
    if one.name in names:
        return (
            f"{what}, which listener {one.name} does not serve; add {protocol} to its protocols, "
            "or take the socket out of the socket unit (systemctl cat netsrvd.socket)"
        )
    return (
        f"{what}, which no listener is for; give it a listener's name with FileDescriptorName= "
        f"({', '.join(names)}), configure a listener for it, or take it out of the socket unit"
    )
