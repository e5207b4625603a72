"""Kernel time stamps and other control messages: SO_TIMESTAMPING, MSG_ERRQUEUE, TTL, TOS.

The kernel stamps a datagram when it gives it to the network device, behind the queueing discipline,
and when it takes one from a device (Documentation/networking/timestamping.rst). The stamp of
sending comes back on the socket's error queue. Both are of CLOCK_REALTIME.
"""

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import sleep
from typing import NamedTuple

# asm-generic/socket.h, linux/in.h, linux/in6.h; Python 3.11 has no names for them
SO_TIMESTAMPING = 37
SO_RXQ_OVFL = 40
IP_RECVTOS = 13
IP_RECVTTL = 12
IP_RECVERR = 11
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0
IP_PMTUDISC_PROBE = 3
IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
IPV6_DONTFRAG = 62

# linux/net_tstamp.h
TX_SOFTWARE = 1 << 1
RX_SOFTWARE = 1 << 3
SOFTWARE = 1 << 4
OPT_ID = 1 << 7
OPT_TSONLY = 1 << 11

# linux/errqueue.h
ORIGIN_LOCAL = 1
ORIGIN_TIMESTAMPING = 4
STAMP_OF_SENDING = 0

CONTROL_BYTES = 512
"""Room for the control messages of one datagram."""

QUOTED_BYTES = 128
"""What is read of the datagram that an ICMP error quotes."""

# struct scm_timestamping: three struct timespec, of which the first is the software stamp
_TIMESPEC = struct.Struct("@ll")
_INT = struct.Struct("@i")

# struct sock_extended_err { u32 ee_errno; u8 ee_origin, ee_type, ee_code, ee_pad;
#                            u32 ee_info, ee_data; } and then a struct sockaddr
_EXTENDED_ERROR = struct.Struct("=iBBBBII")

SECOND_NS = 1_000_000_000

TRIES = 50
TRY_SECONDS = 0.002
"""How often, and after which pause, `switched_on` looks."""

Ancillary = Sequence[tuple[int, int, bytes]]

ICMP_TEXTS: dict[tuple[int, int, int], str] = {
    (socket.AF_INET, 3, 0): "network unreachable",
    (socket.AF_INET, 3, 1): "host unreachable",
    (socket.AF_INET, 3, 2): "protocol unreachable",
    (socket.AF_INET, 3, 3): "port unreachable",
    (socket.AF_INET, 3, 4): "too big to pass unfragmented",
    (socket.AF_INET, 3, 9): "network prohibited",
    (socket.AF_INET, 3, 10): "host prohibited",
    (socket.AF_INET, 3, 13): "prohibited by a filter",
    (socket.AF_INET, 11, 0): "TTL exceeded",
    (socket.AF_INET6, 1, 0): "no route",
    (socket.AF_INET6, 1, 1): "prohibited by a filter",
    (socket.AF_INET6, 1, 3): "address unreachable",
    (socket.AF_INET6, 1, 4): "port unreachable",
    (socket.AF_INET6, 2, 0): "too big to pass",
    (socket.AF_INET6, 3, 0): "hop limit exceeded",
}
"""What types and codes of ICMP (RFC 792, RFC 1812) and ICMPv6 (RFC 4443) mean."""


class Control(NamedTuple):
    """The control messages of one datagram."""

    stamp_ns: int = 0
    """When the kernel took it from the device, of CLOCK_REALTIME; 0 if unknown."""
    ttl: int | None = None
    tos: int | None = None
    dropped: int = 0
    """Datagrams that the socket's full receive buffer has cost until then (SO_RXQ_OVFL)."""


class Sent(NamedTuple):
    """A stamp of sending."""

    number: int
    """The datagrams that the socket sent before, or by TCP the bytes before the last one."""
    stamp_ns: int


class Reported(NamedTuple):
    """An error that a host reported by ICMP."""

    quoted: bytes
    """The payload of the datagram, as far as it is quoted."""
    text: str


def enable(sock: socket.socket) -> bool:
    """Turn time stamps on; return whether the kernel has them.

    By TCP only a connected socket can have them (sock_set_timestamping in net/core/sock.c).
    """
    try:
        sock.setsockopt(
            socket.SOL_SOCKET,
            SO_TIMESTAMPING,
            TX_SOFTWARE | RX_SOFTWARE | SOFTWARE | OPT_ID | OPT_TSONLY,
        )
    except OSError:
        return False
    return True


def enable_control(sock: socket.socket) -> None:
    """Turn on TTL, TOS and drops of what is received, and errors that hosts report by ICMP."""
    if sock.family == socket.AF_INET6:
        level = socket.IPPROTO_IPV6
        names = (socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS, IPV6_RECVERR)
    else:
        level = socket.IPPROTO_IP
        names = (IP_RECVTTL, IP_RECVTOS, IP_RECVERR)
    for place, name in ((socket.SOL_SOCKET, SO_RXQ_OVFL), *((level, each) for each in names)):
        with suppress(OSError):  # what a kernel lacks is not told
            sock.setsockopt(place, name, 1)


def switched_on() -> socket.socket | None:
    """Return a socket that keeps the kernel stamping what it receives, which the caller closes.

    Return None where the kernel does not stamp. The first socket on a host that asks for stamps
    switches them on a little later, by a work queue, and the last one switches them off
    (net_enable_timestamp in net/core/dev.c): without this the first answers would have none.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(TRY_SECONDS)
        for _ in range(TRIES if enable(sock) else 0):
            sock.sendto(b"", sock.getsockname())
            with suppress(TimeoutError):
                _, ancillary, _, _ = sock.recvmsg(1, CONTROL_BYTES)
                if control(ancillary).stamp_ns:
                    return sock
                sleep(TRY_SECONDS)
    except OSError:  # loopback may be down
        pass
    sock.close()
    return None


def control(ancillary: Ancillary) -> Control:
    """Return what control messages say, in whatever order they come."""
    stamp_ns, ttl, tos, dropped = 0, None, None, 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING:
            stamp_ns = _stamp(data)
        elif level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
            [dropped] = _INT.unpack_from(data)
        elif (level, kind) in {
            (socket.IPPROTO_IP, socket.IP_TTL),
            (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT),
        }:
            [ttl] = _INT.unpack_from(data)
        elif (level, kind) in {
            (socket.IPPROTO_IP, socket.IP_TOS),
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        }:
            tos = data[0] if len(data) == 1 else _INT.unpack_from(data)[0]
    return Control(stamp_ns, ttl, tos, dropped)


def _stamp(data: bytes) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack_from(data)
    return int(seconds * SECOND_NS + nanoseconds)


def take_errors(sock: socket.socket) -> Iterator[Sent | Reported]:
    """Yield what is on the error queue: stamps of sending, and errors that hosts reported.

    It does not wait. Reading the queue also clears the error that the next system call on this
    socket would return (ip_recv_error in net/ipv4/ip_sockglue.c).
    """
    while True:
        try:
            quoted, ancillary, _, _ = sock.recvmsg(
                QUOTED_BYTES, CONTROL_BYTES, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
            )
        except OSError:  # nothing is left
            return
        item = error(sock.family, quoted, ancillary)
        if item is not None:
            yield item


def error(family: int, quoted: bytes, ancillary: Ancillary) -> Sent | Reported | None:
    """Return what one entry of the error queue says; None for what is not known here."""
    stamp_ns, extended = 0, b""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPING:
            stamp_ns = _stamp(data)
        elif (level, kind) in {
            (socket.IPPROTO_IP, IP_RECVERR),
            (socket.IPPROTO_IPV6, IPV6_RECVERR),
        }:
            extended = data
    if len(extended) < _EXTENDED_ERROR.size:
        return None
    _, origin, kind, code, _, info, data_ = _EXTENDED_ERROR.unpack_from(extended)
    if origin == ORIGIN_TIMESTAMPING:
        return Sent(data_, stamp_ns) if info == STAMP_OF_SENDING else None
    if origin == ORIGIN_LOCAL:  # a datagram above the MTU, for which sendto(2) failed as well
        return None
    text = ICMP_TEXTS.get((family, kind, code), f"ICMP type {kind} code {code}")
    if "too big" in text and info:
        text = f"{text}, MTU {info}"
    return Reported(quoted, f"{text}, says {_offender(extended[_EXTENDED_ERROR.size :])}")


def _offender(address: bytes) -> str:
    """Return the host of a struct sockaddr_in or sockaddr_in6."""
    family = int.from_bytes(address[:2], "little" if _IS_LITTLE else "big")
    if family == socket.AF_INET and len(address) >= 8:  # noqa: PLR2004
        return socket.inet_ntop(socket.AF_INET, address[4:8])
    if family == socket.AF_INET6 and len(address) >= 24:  # noqa: PLR2004
        return socket.inet_ntop(socket.AF_INET6, address[8:24])
    return "a host on the way"


_IS_LITTLE = struct.pack("@H", 1) == struct.pack("<H", 1)
