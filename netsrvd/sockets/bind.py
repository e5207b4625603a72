"""Opens the sockets that systemd did not pass: make, set options, bind, listen."""

import _socket
import errno
import socket
import sys
from contextlib import suppress
from typing import Any, NamedTuple

from netsrvd.errors import PrivilegeError, SocketError
from netsrvd.linux.mmsg import LAYOUTS
from netsrvd.settings import (
    DEFAULT_OPTIONS,
    EVERYWHERE,
    Endpoint,
    ListenerSettings,
    OptionValue,
)
from netsrvd.sockets import options

Socket = socket.socket

TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}

Adjustment = tuple[str, str, str]
"""The name of an option, the value that was asked, the value that the kernel gave."""


Original = tuple[str, bytes]
"""The name of an option, and the value that it had before, as getsockopt(2) gave it."""


class ListeningSocket(NamedTuple):
    """A socket that serves: bound, and listening if it is TCP. The caller closes it."""

    sock: socket.socket
    protocol: str
    listener: ListenerSettings
    origin: str
    """`bound` by the daemon itself, or passed by `systemd`."""
    adjustments: tuple[Adjustment, ...] = ()
    name: str = ""
    """The FileDescriptorName= of one that systemd passed, or the name in the descriptor store of
    one that the process before bound.
    """
    addresses: frozenset[str] | None = None
    """The local addresses that are served, as in `sockets/matching.py`; None for every one."""
    problem: str = ""
    """The settings of the files that this socket does not put into force."""
    originals: tuple[Original, ...] = ()
    """The values to put back when the daemon gives it up."""

    @property
    def serves(self) -> bool:
        """Whether any of its addresses is served."""
        return self.addresses is None or bool(self.addresses)

    def address(self) -> tuple[str, int]:
        """Return the local address and port."""
        host, port = self.sock.getsockname()[:2]
        return host, port


SO_COOKIE = 57
"""<asm-generic/socket.h>; Python has no name for it."""

COOKIE_BYTES = 8


def cookie(sock: "socket.socket | _socket.socket") -> int:
    """Return the number by which a socket is the same one in every process."""
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, COOKIE_BYTES)
    return int.from_bytes(raw, sys.byteorder)


class FamilyMissingError(Exception):
    """The kernel does not have the address family of an endpoint that stands for all addresses."""


def open_endpoint(
    endpoint: Endpoint, listener: ListenerSettings, *, share: bool = False
) -> ListeningSocket:
    """Open the socket of one endpoint, by the four steps.

    With `share` sockets of the same user may have the same address (SO_REUSEPORT).

    Raises SocketError or PrivilegeError with one line that names the endpoint and the remedy, or
    FamilyMissingError where all addresses were meant and the kernel lacks one family. Nothing is
    left open then.
    """
    try:
        sock = make(endpoint)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT and endpoint.host in EVERYWHERE and not listener.hosts:
            raise FamilyMissingError("IPv6" if ":" in endpoint.host else "IPv4") from error
        raise _explained(error, endpoint) from error
    try:
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        adjustments = set_options(sock, endpoint.protocol, listener)
        bind(sock, endpoint)
        if endpoint.protocol == "tcp":
            listen(sock, listener.backlog)
        else:
            answer_from_routed_addresses(sock, listener)
    except OSError as error:
        sock.close()
        raise _explained(error, endpoint) from error
    except BaseException:
        sock.close()
        raise
    return ListeningSocket(sock, endpoint.protocol, listener, "bound", tuple(adjustments))


def make(endpoint: Endpoint) -> socket.socket:
    """Step one: make a socket that never blocks and is for its own family alone.

    With IPV6_V6ONLY the IPv4 and the IPv6 socket of a listener can have the same port.
    """
    family = _family(endpoint)
    sock = socket.socket(family, TYPES[endpoint.protocol] | socket.SOCK_NONBLOCK)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if endpoint.protocol == "tcp":
        # A restart can bind while old connections are in TIME_WAIT. Never for UDP, where it would
        # let another user bind the same port and take the datagrams (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def set_options(
    sock: socket.socket, protocol: str, listener: ListenerSettings, *, binds: bool = True
) -> list[Adjustment]:
    """Step two: set the options of the listener's configuration that fit this socket.

    Returns those for which the kernel gave another value. Accepted connections inherit them all.
    A UDP socket also learns to tell which of its addresses a datagram was sent to. Without `binds`
    the socket is bound to its interface already: to bind it once more would take a privilege.
    """
    adjustments = []
    for name, value in listener.options.items():
        option = options.OPTIONS[name]
        if options.applies(option, protocol, sock.family):
            given = _applied(sock, name, value)
            if given is not None:
                adjustments.append((name, options.text(value), given))
    if listener.interface and binds:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, listener.interface.encode())
    if protocol == "udp":
        layout = LAYOUTS[sock.family]
        sock.setsockopt(layout.level, layout.option, 1)
    return adjustments


def _applied(sock: socket.socket, name: str, value: OptionValue) -> str | None:
    """Set an option; return the value that the kernel gave if it is another one.

    MPTCP lacks some options of TCP: they are not applicable.
    """
    try:
        return options.apply(sock, name, value)
    except OSError as error:
        lacking = error.errno in (errno.EOPNOTSUPP, errno.ENOPROTOOPT)
        if not lacking or sock.proto != socket.IPPROTO_MPTCP:
            raise
        return None if name in DEFAULT_OPTIONS else options.NOT_APPLICABLE


def bind(sock: socket.socket, endpoint: Endpoint) -> None:
    """Step three: give the socket its address. A link-local one may carry its %interface."""
    sock.bind(resolved(endpoint))


def resolved(endpoint: Endpoint) -> tuple[Any, ...]:
    """Return the address of an endpoint as `socket.bind` takes it and `getsockname` gives it.

    Raises OSError with ENODEV if the %interface of a link-local address is missing.
    """
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    kind = TYPES[endpoint.protocol]
    try:
        [found, *_] = socket.getaddrinfo(
            endpoint.host.encode(), endpoint.port, _family(endpoint), kind, flags=flags
        )
    except socket.gaierror as error:  # the address was checked before: its interface is missing
        raise OSError(errno.ENODEV, "no such interface") from error
    return found[4]


def _family(endpoint: Endpoint) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET


def answer_from_routed_addresses(sock: socket.socket, listener: ListenerSettings) -> None:
    """Let a bound UDP socket of IPv6 answer from addresses that are local by a route alone.

    `ip -6 route add local 2001:db8:1::/64 dev lo` makes a whole network local. IPv4 answers from
    it, IPv6 only with this option, which must not be set before bind(2): that would then take
    addresses that the host does not have.
    """
    if sock.family == socket.AF_INET6 and "IPV6_FREEBIND" not in listener.options:
        with suppress(OSError):  # Linux before 4.15
            number = options.OPTIONS["IPV6_FREEBIND"].number
            sock.setsockopt(socket.IPPROTO_IPV6, number, 1)


def listen(sock: socket.socket, backlog: int) -> None:
    """Step four: make the kernel accept connections, and keep up to `backlog` of them waiting."""
    sock.listen(backlog)


_REMEDIES = {
    errno.EADDRINUSE: (
        "is already in use; `ss -anp` shows by whom: stop that or set another port; for a socket "
        "of systemd's run `netsrvd apply`"
    ),
    errno.EADDRNOTAVAIL: "is not an address of this host; `ip address` shows those it has",
    errno.ENODEV: "cannot be bound: there is no such interface; `ip link` shows those there are",
    errno.EAFNOSUPPORT: "cannot be had: this kernel lacks that address family",
    errno.EACCES: "needs a privilege: `netsrvd apply` has systemd bind it; or set a port from 1024",
    errno.EPERM: "needs a privilege ({}): run as root or leave it out",
    errno.EMFILE: "cannot be opened: too many descriptors; raise LimitNOFILE= or `ulimit -n`",
}


def _explained(error: OSError, endpoint: Endpoint) -> Exception:
    number = error.errno or 0
    interface = f" on interface {endpoint.interface}" if endpoint.interface else ""
    where = f"{endpoint.protocol} {endpoint.host} port {endpoint.port}{interface}"
    remedy = _REMEDIES.get(number, "cannot be opened: {}").format(error.strerror or error)
    kind = PrivilegeError if number in (errno.EACCES, errno.EPERM) else SocketError
    return kind(f"listener {endpoint.listener}: {where} {remedy}")
