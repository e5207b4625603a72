"""Opens the sockets that probes are sent from."""

import errno
import os
import socket
from contextlib import suppress

from netsrvd.addresses import is_address
from netsrvd.errors import PrivilegeError, SocketError, UsageError, shortage
from netsrvd.probe import stamps
from netsrvd.probe.settings import Settings
from netsrvd.probe.targets import HIGHEST_PORT, Target

REMEDIES = {
    errno.EADDRNOTAVAIL: "--source must be an address of this host, and of the target's family",
    errno.EADDRINUSE: "choose another --source-port",
    errno.ENODEV: "there is no such --interface",
    errno.EACCES: "a --source-port below 1024 needs root",
    errno.EPERM: "--interface needs root here",
    errno.EAFNOSUPPORT: "this kernel lacks the address family",
}


def make(target: Target, kind: socket.SocketKind, settings: Settings, port: int) -> socket.socket:
    """Return a socket for probes to a target, bound as the settings say, that never blocks.

    `port` is the source port, 0 for one that the kernel chooses. Raises SocketError or
    PrivilegeError with the remedy, ResourceError for a lack of descriptors, UsageError for a source
    that is no address, or of the wrong family.
    """
    if settings.source and is_address(settings.source):
        of_target = ":" in target.host
        if (":" in settings.source) != of_target:
            wanted = "IPv6" if of_target else "IPv4"
            raise UsageError(f"--source {settings.source}: {target} needs an {wanted} address")
    try:
        sock = socket.socket(target.family, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise shortage(error) or _explained(error, target) from error
    try:
        _set_options(sock, settings)
        _bind(sock, settings, port)
    except (socket.gaierror, UnicodeError) as error:
        sock.close()
        text = f"--source {settings.source}: expected an IP address of this host"
        raise UsageError(text) from error
    except OSError as error:
        sock.close()
        raise _explained(error, target) from error
    return sock


def _explained(error: OSError, target: Target) -> SocketError:
    kind = PrivilegeError if error.errno in (errno.EACCES, errno.EPERM) else SocketError
    reason = os.strerror(error.errno or 0)
    remedy = REMEDIES.get(error.errno or 0, "")
    return kind(f"{target}: {reason}" + (f": {remedy}" if remedy else ""))


def _set_options(sock: socket.socket, settings: Settings) -> None:
    version_6 = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if version_6 else socket.IPPROTO_IP
    if settings.interface:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(settings.interface))
    if settings.dscp is not None:
        name = socket.IPV6_TCLASS if version_6 else socket.IP_TOS
        sock.setsockopt(level, name, settings.dscp << 2)
    if settings.ttl is not None:
        name = socket.IPV6_UNICAST_HOPS if version_6 else socket.IP_TTL
        sock.setsockopt(level, name, settings.ttl)
    if settings.dont_fragment:
        # PROBE sets the bit and ignores what is known of the path's MTU, as ip(7) has it.
        name = stamps.IPV6_MTU_DISCOVER if version_6 else stamps.IP_MTU_DISCOVER
        sock.setsockopt(level, name, stamps.IP_PMTUDISC_PROBE)
        if version_6:
            sock.setsockopt(level, stamps.IPV6_DONTFRAG, 1)
    elif sock.type == socket.SOCK_DGRAM and not version_6:
        # Linux would set the bit by itself, and lose the first long datagrams of a path.
        with suppress(OSError):
            sock.setsockopt(level, stamps.IP_MTU_DISCOVER, stamps.IP_PMTUDISC_DONT)
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _bind(sock: socket.socket, settings: Settings, port: int) -> None:
    host = settings.source or ("::" if sock.family == socket.AF_INET6 else "0.0.0.0")  # noqa: S104
    if sock.type == socket.SOCK_STREAM and not (settings.source or port):
        return  # connect(2) chooses a port
    [(_, _, _, _, address), *_] = socket.getaddrinfo(
        host, port, sock.family, sock.type, flags=socket.AI_NUMERICHOST
    )
    sock.bind(address)


def source_ports(settings: Settings, targets: int) -> list[list[int]]:
    """Return the source ports of each target, 0 for those that the kernel chooses.

    The ports of further targets follow. Raises UsageError if there are not as many.
    """
    first, each = settings.source_port, settings.streams
    if not first:
        return [[0] * each for _ in range(targets)]
    if first + targets * each - 1 > HIGHEST_PORT:
        raise UsageError(
            f"--source-port {first}: {targets * each} ports from there exceed {HIGHEST_PORT}; "
            "choose a lower one"
        )
    return [[first + each * index + number for number in range(each)] for index in range(targets)]
