"""Adopts the sockets that systemd passed (sd_listen_fds(3))."""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from netsrvd.addresses import host_and_port, shown
from netsrvd.errors import ActivationError, failing_import
from netsrvd.settings import TIMED_SERVICES, ListenerSettings
from netsrvd.sockets import options
from netsrvd.sockets.bind import ListeningSocket, answer_from_routed_addresses, set_options
from netsrvd.sockets.interfaces import bound_name
from netsrvd.sockets.matching import NO_ADDRESS, Facts, Listeners, Match, Named

SO_TIMESTAMP, SO_TIMESTAMPNS = 29, 35
"""Which Timestamping= of a socket unit sets (socket(7))."""

PROTOCOLS = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}
NUMBERS = {"tcp": (socket.IPPROTO_TCP, socket.IPPROTO_MPTCP), "udp": (socket.IPPROTO_UDP,)}
"""What SO_PROTOCOL may be; SocketProtocol=mptcp of a socket unit takes clients of TCP as well."""

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START in sd_listen_fds(3)."""

STORED = "handover/"
"""Begins the names of what is ours in systemd's descriptor store. No listener has such a name."""

STORED_SOCKET = f"{STORED}socket/"
"""Begins the names of listening sockets among them: see `kept.py`."""

Stored = tuple[int, str]
"""A descriptor from the store, and its name."""


class ActivatedSocket(NamedTuple):
    """A descriptor as systemd passed it, with its FileDescriptorName=."""

    sock: socket.socket
    name: str


def passed() -> tuple[list[ActivatedSocket], list[Stored]]:
    """Return what systemd passed to this very process; none is not an error.

    First the sockets to listen on, then what the process before put into the descriptor store.
    LISTEN_PID must be our own PID. The descriptors are set close-on-exec, and the variables are
    taken out of the environment, so that no child can take them for its own. Raises
    ActivationError for a descriptor that is no socket.
    """
    if "LISTEN_FDS" not in os.environ:
        return [], []
    try:
        from systemd.daemon import listen_fds_with_names  # noqa: PLC0415 - 20 ms that others save
    except Exception as error:
        turn_away_unnamed()
        raise failing_import(error) from error
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
        # systemd lets no name have control characters, but the caller may have set the environment.
        name = given if given.isprintable() else ascii(given)
        try:
            found.append(ActivatedSocket(socket.socket(fileno=descriptor), name))
        except OSError:
            problems.append(f"systemd passed descriptor {descriptor} ({name}), which is no socket")
    if problems:
        drain_and_close(found)
        raise ActivationError("\n".join(problems))
    return found, stored


CONTROL = "netsrvd-control"
"""The FileDescriptorName= of the control socket, which is no listener's."""


def take_control(sockets: list[ActivatedSocket]) -> socket.socket | None:
    """Take the control socket out of what systemd passed, and return it; None if there is none."""
    for one in sockets:
        sock = one.sock
        if one.name == CONTROL and (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_STREAM):
            sockets.remove(one)
            return sock
    return None


def adopt(
    sockets: list[ActivatedSocket], listeners: tuple[ListenerSettings, ...], named: Named
) -> list[ListeningSocket]:
    """Match each passed socket to the listener that it is for, and prepare it.

    `named` are the keys that the files have for each listener. A socket that they contradict is
    prepared as well: it serves no address. Raises ActivationError with a line for each socket that
    is of the wrong kind.
    """
    opened, problems = [], []
    known = Listeners(listeners, named)
    for one in sockets:
        if fault := _wrong_kind(one.sock):
            what = f"{one.name or 'an unnamed socket'} (descriptor {one.sock.fileno()})"
            problems.append(f"systemd passed {what}, which {fault}")
        else:
            matched = known.match(facts(one.sock, one.name))
            opened.append(bind_to_interface(_prepared(one, matched)))
    if problems:
        raise ActivationError("\n".join(problems))
    return opened


def facts(sock: socket.socket, name: str) -> Facts:
    """Return what a passed socket is."""
    host, port = host_and_port(sock.getsockname())
    is_dual = sock.family == socket.AF_INET6 and not _is_ipv6_only(sock)
    interface = bound_name(sock)
    if interface is None:  # it was deleted after systemd had bound the socket to it
        interface = "(gone)"
    return Facts(name, PROTOCOLS[sock.type], host, port, interface, is_dual)


def _is_ipv6_only(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    except OSError:  # MPTCP lacks it in older kernels
        return False


def bind_to_interface(one: ListeningSocket) -> ListeningSocket:
    """Bind a passed socket to its listener's interface, if it has any.

    A socket that is bound to another one serves nothing then: only a privilege could change that.
    """
    interface = one.listener.interface
    found = facts(one.sock, one.name)
    if not one.serves or interface in ("", found.interface):
        return one
    try:
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    except OSError as error:
        problem = f"{found.where} cannot be bound to interface {interface}: {error.strerror}"
        return one._replace(addresses=NO_ADDRESS, problem=problem)
    return one


def shares_ports(passed: Iterable[ListeningSocket]) -> bool:
    """Return whether systemd opened these sockets for one of several instances (ReusePort=)."""
    return any(one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for one in passed)


def drain_and_close(sockets: list[ActivatedSocket]) -> None:
    """Take from the queues what waits there, and close everything.

    For a start that failed: systemd would otherwise start the service again for the same waiting
    connection or datagram, until its start limit closes the socket for all clients.
    """
    for one in sockets:
        with one.sock as sock, suppress(OSError):
            sock.setblocking(False)
            for _ in range(1000):
                if sock.type == socket.SOCK_STREAM:
                    sock.accept()[0].close()
                else:
                    sock.recv(1)


def turn_away_unnamed() -> None:
    """Do as `drain_and_close` does, for a start that cannot ask python3-systemd for them."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")[: int(count)]
    found = []
    for descriptor, name in enumerate(names, FIRST_DESCRIPTOR):
        if not name.startswith(STORED):  # systemd keeps those while it tries again
            with suppress(OSError):
                found.append(ActivatedSocket(socket.socket(fileno=descriptor), name))
    drain_and_close(found)


def _wrong_kind(sock: socket.socket) -> str:
    """Return what is wrong with a socket, or an empty text."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return "is neither IPv4 nor IPv6"
    protocol = PROTOCOLS.get(sock.type, "")
    if not protocol or sock.proto not in NUMBERS[protocol]:
        return "is neither TCP nor UDP"
    if protocol == "tcp" and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "is a TCP socket that does not listen; the socket unit needs Accept=no"
    return ""


def _prepared(one: ActivatedSocket, matched: Match) -> ListeningSocket:
    sock, listener, protocol = one.sock, matched.listener, PROTOCOLS[one.sock.type]
    # systemd passes blocking sockets. The flag is part of the open file that systemd shares.
    sock.setblocking(False)
    if protocol == "udp":
        # systemd sets it on its UDP sockets, too; while it stands, any user may bind the same
        # port and take the datagrams. Cleared, later binds by others fail.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        # Each datagram has room for one control message, the one with its destination address,
        # unless its service needs the time: then that of the unit is the one of those that wait.
        for number in (SO_TIMESTAMP, SO_TIMESTAMPNS):
            if listener.service not in TIMED_SERVICES:
                sock.setsockopt(socket.SOL_SOCKET, number, 0)
    listener = listener._replace(interface="", options=listener.options if matched.serves else {})
    problem = matched.problem
    if not problem and (left := options.left_over(sock, protocol, listener.options)):
        problem = f"{facts(sock, one.name).where} keeps {left}, which the files do not name"
    before = options.values(sock, protocol, listener.options)
    try:
        adjustments = set_options(sock, protocol, listener)
    except OSError as error:
        where = shown(*sock.getsockname()[:2])
        raise ActivationError(
            f"listener {listener.name}: an option cannot be set on {protocol} {where}, which "
            f"systemd passed: {error.strerror}; set it in the socket unit or leave it out"
        ) from error
    if protocol == "udp":
        answer_from_routed_addresses(sock, listener)
    return ListeningSocket(
        sock,
        protocol,
        matched.listener,
        "systemd",
        tuple(adjustments),
        one.name,
        matched.addresses,
        problem,
        options.originals(sock, protocol, before),
    )
