"""Finds other programs of this host that have a port, in /proc/net (proc(5))."""

import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netsrvd.addresses import unmapped
from netsrvd.events.sockets import PortShared
from netsrvd.settings import EVERYWHERE
from netsrvd.sockets import activation
from netsrvd.sockets.bind import ListeningSocket
from netsrvd.sockets.matching import Facts

NETWORK = Path("/proc/self/net")
"""That of this process. /proc/net is a link to it, which a service with ProcSubset=pid lacks."""

TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
LISTENING = {"tcp": "0A", "udp": "07"}
"""The state of a socket that takes clients. A connected UDP socket has another one."""


DIAG_SECONDS = 5.0
"""How long the kernel may take for an answer."""


class Owned(NamedTuple):
    """A socket that takes clients."""

    protocol: str
    host: str
    port: int
    inode: int
    user: int = 0


def sockets() -> list[Owned]:
    """Return the sockets of this host that take clients; those that cannot be read are left out."""
    found: list[Owned] = []
    for protocol, names in TABLES.items():
        for name in names:
            try:
                text = (NETWORK / name).read_text()
            except OSError:  # a kernel without IPv6
                continue
            found += rows(protocol, text)
    return found


def rows(protocol: str, text: str) -> Iterator[Owned]:
    """Yield the sockets in a table of /proc/net that take clients."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        local, state, user, inode = fields[1], fields[3], int(fields[7]), int(fields[9])
        if state == LISTENING[protocol]:
            host, _, port = local.partition(":")
            yield Owned(protocol, _host(host), int(port, 16), inode, user)


def _host(digits: str) -> str:
    """Return an address that the kernel has written word by word in the host's byte order."""
    words = [int(digits[place : place + 8], 16) for place in range(0, len(digits), 8)]
    data = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)  # noqa: PLR2004 - bytes of IPv4


class Own(NamedTuple):
    """Which sockets are ours."""

    daemons: Collection[int]
    """The inodes of the sockets that daemons of ours have open."""
    systemd: Collection[int]
    """The same of systemd, which has sockets of others as well."""
    addresses: Collection[tuple[str, str, int]]
    """Protocol, host and port of our socket units."""

    def has(self, one: Owned) -> bool:
        """Return whether a socket is ours."""
        address = (one.protocol, one.host, one.port)
        return one.inode in self.daemons or (
            one.inode in self.systemd and address in self.addresses
        )


def foreign(
    wanted: Iterable[Facts], present: Iterable[Owned], own: Own
) -> list[tuple[Facts, Owned]]:
    """Return our sockets whose address, or a part of it, other programs have, with theirs.

    systemd sets SO_REUSEADDR on UDP sockets: until the daemon has taken one, any user can bind the
    same port beside it and receive its datagrams. Those on one interface are left out, as proc(5)
    does not tell the interface of a socket.
    """
    others = [one for one in present if not own.has(one)]
    return [
        (facts, one)
        for facts in wanted
        for one in others
        if (one.protocol, one.port) == (facts.protocol, facts.port)
        and not facts.interface
        and _overlap(facts, unmapped(one.host))
    ]


def shared(opened: Iterable[ListeningSocket]) -> list[PortShared]:
    """Return what is to be reported about other programs that have the UDP port of a passed socket.

    `opened` are all sockets of this daemon. Instances share their ports, and are not looked at.
    """
    every = list(opened)
    own = Own({os.fstat(one.sock.fileno()).st_ino for one in every}, (), ())
    wanted = [
        (one.listener.name, activation.facts(one.sock, one.name))
        for one in every
        if one.origin != "bound" and one.protocol == "udp"
        if not one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    ]
    present = sockets() if wanted else []
    return [
        PortShared(name, facts.host, facts.port, other.host)
        for name, facts in wanted
        for _, other in foreign([facts], present, own)
    ]


def _overlap(facts: Facts, host: str) -> bool:
    """Return whether two sockets cannot be bound at the same time.

    An IPv6 socket of others may be for IPv6 alone: proc(5) does not tell.
    """
    if (":" in facts.host) != (":" in host):
        return facts.is_dual
    return facts.host == host or bool({facts.host, host} & {*EVERYWHERE})


def inodes(pid: int) -> set[int]:
    """Return the sockets that a process has open, by their inodes."""
    found: set[int] = set()
    folder = Path(f"/proc/{pid}/fd")
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return found
    for name in names:
        try:
            target = os.readlink(folder / name)  # noqa: PTH115 - no file of this name
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def holders(inode: int) -> list[str]:
    """Return the processes that have a socket open, as `nginx (812)`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if inode in inodes(int(folder.name)):
            try:
                name = (folder / "comm").read_text().strip()
            except OSError:
                continue
            found.append(f"{name} ({folder.name})")
    return found


_DIAG = 4
"""NETLINK_SOCK_DIAG, and of its messages SOCK_DIAG_BY_FAMILY (sock_diag(7))."""
_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_ROOT_REQUEST = 0x301
"""NLM_F_REQUEST | NLM_F_DUMP (netlink(7))."""
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2
_ANSWER = struct.Struct("=4x2s2x16s16xI")  # struct inet_diag_msg, up to idiag_if
_STATES = {"tcp": 1 << 10, "udp": 1 << 7}
"""TCP_LISTEN and TCP_CLOSE, as masks: those of sockets that take clients."""
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


def interfaces() -> dict[tuple[str, str, int], set[int]]:
    """Return the interfaces that sockets are bound to, by protocol, address and port.

    An interface is its index, 0 for none. What the kernel does not tell is left out: it may lack
    the modules for sock_diag(7).
    """
    found: dict[tuple[str, str, int], set[int]] = {}
    for protocol in TABLES:
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                for host, port, index in _diag(protocol, family):
                    found.setdefault((protocol, host, port), set()).add(index)
    return found


def _diag(protocol: str, family: int) -> Iterator[tuple[str, int, int]]:
    body = _REQUEST.pack(family, _NUMBERS[protocol], 0, _STATES[protocol])
    header = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _ROOT_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _DIAG) as sock:
        sock.settimeout(DIAG_SECONDS)
        sock.send(header + body)
        while True:
            data = sock.recv(1 << 16)
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind in (_DONE, _ERROR):
                    return
                number, address, index = _ANSWER.unpack_from(data, _HEADER.size)
                size = 4 if family == socket.AF_INET else 16
                host = socket.inet_ntop(family, address[:size])
                yield host, int.from_bytes(number, "big"), index
                data = data[(length + 3) & ~3 :]
