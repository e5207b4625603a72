"""recvmmsg(2) and sendmmsg(2): many datagrams in one system call, with their local addresses.

All buffers are made once. A batch is received into them and sent back from them, without a copy:
the send headers point to the same payload, name and control buffers as the receive headers, and
only the lengths are carried over. Lengths are moved with strided memory views, one operation for
the whole batch; the views for each number of datagrams are made once, too.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Any, NamedTuple

from netsrvd.addresses import host_and_port, unmapped
from netsrvd.linux.memory import untouched_memory

BATCH = 64
"""Datagrams in one call. More gains nothing measurable and makes other sockets wait longer."""

PAYLOAD_BYTES = 65_536
"""Room for one datagram: more than the 65,507 bytes that fit IPv4 and the 65,527 that fit IPv6."""

# <netinet/in.h>, <linux/in.h>, <linux/in6.h>: names that Python 3.11 does not have.
IP_PKTINFO = 8

NAME_BYTES = 32
"""Room for a struct sockaddr_in (16 bytes) or sockaddr_in6 (28)."""


class Iovec(ctypes.Structure):
    """struct iovec { void *iov_base; size_t iov_len; };"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    """struct msghdr {
    void *msg_name; socklen_t msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
    void *msg_control; size_t msg_controllen; int msg_flags; };
    """

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    """struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };"""

    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint))


class Layout(NamedTuple):
    """Where the parts of a name and of a packet-info control message stand (ip(7), ipv6(7)).

    Offsets count from the start of the struct cmsghdr, whose 16 bytes come first.
    """

    family: int
    level: int
    option: int
    name_length: int
    host: slice
    """The address within the sockaddr; its port is always at bytes 2 and 3, big-endian."""
    scope: slice
    """The interface of a link-local address; nothing in IPv4."""
    control_length: int
    """CMSG_SPACE() of the one control message that is switched on."""
    asked: slice
    """The address that the datagram was sent to."""
    local: slice
    """The address of this host that it was received on; differs for multicast and broadcast."""
    interface: slice

    @property
    def control_at(self) -> int:
        """Return where the control message begins in an envelope: behind the name, aligned."""
        return (self.name_length + 7) & ~7


IPV4 = Layout(
    family=socket.AF_INET,
    level=socket.IPPROTO_IP,
    option=IP_PKTINFO,
    name_length=16,
    host=slice(4, 8),
    scope=slice(0, 0),
    # struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst; struct in_addr ipi_addr; };
    control_length=32,
    interface=slice(16, 20),
    local=slice(20, 24),
    asked=slice(24, 28),
)
IPV6 = Layout(
    family=socket.AF_INET6,
    level=socket.IPPROTO_IPV6,
    option=socket.IPV6_RECVPKTINFO,
    name_length=28,
    host=slice(8, 24),
    scope=slice(24, 28),
    # struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; };
    control_length=40,
    asked=slice(16, 32),
    local=slice(16, 32),
    interface=slice(32, 36),
)
LAYOUTS = {layout.family: layout for layout in (IPV4, IPV6)}

DONTWAIT = int(socket.MSG_DONTWAIT)

_NOTHING_YET = frozenset({errno.EAGAIN, errno.EINTR})

# A call without declared argtypes takes 0.4 µs less. A number goes as a C int then, so each pointer
# must be a c_void_p.
_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg

# Calls through PyDLL keep the interpreter lock. Where few datagrams come at a time, to give it away
# and to wait for it again costs more than the call.
_holding = ctypes.PyDLL(None, use_errno=True)
_recvmmsg_short, _sendmmsg_short = _holding.recvmmsg, _holding.sendmmsg
FEW = 8


class Batch:
    """Up to `BATCH` datagrams that came together, and the way to send them back.

    Owned by the udp event loop. The methods that take `index` mean the datagrams of the last
    `receive`, which overwrites them all.
    """

    __slots__ = (
        *("_buffers", "_control_at", "_cuts", "_envelopes", "_flags", "_interfaces", "_layout"),
        *("_no_interfaces", "_payloads", "_receive_at", "_received", "_send_at", "_send_lengths"),
        *("_few", "_stride", "payload_bytes"),
    )

    def __init__(self, layout: Layout, payload_bytes: int = PAYLOAD_BYTES) -> None:
        name_space = layout.control_at
        stride = name_space + layout.control_length
        iovecs = (Iovec * BATCH)(), (Iovec * BATCH)()
        headers = (Mmsghdr * BATCH)(), (Mmsghdr * BATCH)()
        envelopes = (ctypes.c_char * (BATCH * stride))()
        payloads = untouched_memory(BATCH * payload_bytes)
        payloads_at = ctypes.addressof(ctypes.c_char.from_buffer(payloads))
        for header_row, iovec_row in zip(headers, iovecs, strict=True):
            for index in range(BATCH):
                iovec_row[index].base = payloads_at + index * payload_bytes
                iovec_row[index].length = payload_bytes
                envelope = ctypes.addressof(envelopes) + index * stride
                header = header_row[index].header
                header.name, header.name_length = envelope, layout.name_length
                header.iov = ctypes.addressof(iovec_row) + index * ctypes.sizeof(Iovec)
                header.iov_count = 1
                header.control = envelope + name_space
                header.control_length = layout.control_length
        self.payload_bytes = payload_bytes
        self._few = True
        """Whether the last call received few datagrams."""
        self._layout = layout
        self._buffers = (iovecs, headers)
        self._envelopes = envelopes
        self._payloads = memoryview(payloads)
        self._stride = stride
        self._cuts = [struct.Struct(f"{stride}s" * count) for count in range(BATCH + 1)]
        self._receive_at = ctypes.c_void_p(ctypes.addressof(headers[0]))
        self._send_at = [ctypes.c_void_p(ctypes.addressof(each)) for each in headers[1]]
        self._received = _column(headers[0], Mmsghdr.length.offset)
        self._flags = _column(headers[0], Msghdr.flags.offset)
        low_half = ctypes.sizeof(ctypes.c_size_t) - 4 if sys.byteorder == "big" else 0
        self._send_lengths = _column(iovecs[1], Iovec.length.offset + low_half)
        rows = memoryview(envelopes).cast("B", (BATCH, stride))
        self._interfaces = _column(rows, name_space + layout.interface.start)
        self._no_interfaces = _column((ctypes.c_uint32 * BATCH)(), 0)
        self._control_at = name_space

    def receive(self, descriptor: int) -> int:
        """Receive what has arrived, without waiting; return how many datagrams, 0 for none.

        Raises OSError for anything but EAGAIN and EINTR: see recvmmsg(2) and recv(2).
        """
        call = _recvmmsg_short if self._few else _recvmmsg
        count = call(descriptor, self._receive_at, BATCH, DONTWAIT, None)
        if count >= 0:
            self._few = count < FEW
            return int(count)
        number = ctypes.get_errno()
        if number in _NOTHING_YET:
            return 0
        raise OSError(number, os.strerror(number))

    def first(self) -> tuple[bytes, int, bool]:
        """Return the envelope and length of the only datagram, and whether it was truncated."""
        (envelope,) = self._cuts[1].unpack_from(self._envelopes)
        return envelope, self._received[1][0], bool(self._flags[1][0] & socket.MSG_TRUNC)

    def send_first(self, descriptor: int) -> bool:
        """Send the only datagram back, from the address it was sent to.

        Return False, with its envelope as it was, if the kernel does not take it.
        """
        interfaces = self._interfaces[1]
        interface, interfaces[0] = interfaces[0], 0
        self._send_lengths[1][0] = self._received[1][0]
        if _sendmmsg_short(descriptor, self._send_at[0], 1, DONTWAIT) == 1:
            return True
        interfaces[0] = interface
        return False

    def envelopes(self, count: int) -> tuple[bytes, ...]:
        """Return, for each datagram, the bytes of its peer's name and of its local address.

        Equal bytes mean the same peer asking the same address through the same interface.
        """
        return self._cuts[count].unpack_from(self._envelopes)

    def lengths(self, count: int) -> list[int]:
        """Return the length of each datagram's payload as far as it fitted."""
        return self._received[count].tolist()

    def truncated(self, count: int) -> list[int]:
        """Return the indexes of the datagrams that did not fit their buffer."""
        flags = self._flags[count].tolist()
        if not any(flags):
            return []
        return [index for index in range(count) if flags[index] & socket.MSG_TRUNC]

    def payload(self, index: int) -> memoryview:
        """Return the payload of one datagram, valid until the next `receive`."""
        start = index * self.payload_bytes
        return self._payloads[start : start + self._received[BATCH][index]]

    def strip(self, index: int, count: int) -> None:
        """Take the first `count` bytes off one datagram, before anything else is done with it."""
        rest, start = self.payload(index)[count:], index * self.payload_bytes
        self._payloads[start : start + len(rest)] = rest
        self._received[BATCH][index] = len(rest)

    def peer(self, envelope: bytes) -> tuple[str, int]:
        """Return the address and port that stand in an envelope's name."""
        host = socket.inet_ntop(self._layout.family, envelope[self._layout.host])
        scope = int.from_bytes(envelope[self._layout.scope], sys.byteorder)
        return host_and_port((host, int.from_bytes(envelope[2:4], "big"), 0, scope))

    def asked(self, envelope: bytes) -> str:
        """Return the address that the datagram was sent to."""
        part = self._part(envelope, self._layout.asked)
        return unmapped(socket.inet_ntop(self._layout.family, part))

    def local(self, envelope: bytes) -> str:
        """Return this host's own address that it came in on, "0.0.0.0" where the kernel kept none.

        IPv4 keeps it only if packet information was on when the datagram arrived.
        """
        part = self._part(envelope, self._layout.local)
        return unmapped(socket.inet_ntop(self._layout.family, part))

    def reply_as_received(self, count: int) -> None:
        """Make the answers of a batch: every payload as it came, from the address it was sent to.

        The outgoing interface is left to the routing table, as TCP does it; `pin` names it where
        the address alone does not say enough.
        """
        self._send_lengths[count][:] = self._received[count]
        self._interfaces[count][:] = self._no_interfaces[count]

    def reply(self, index: int, answer: bytes, floor_bytes: int) -> int:
        """Make an answer of its own to one datagram; return how long it became.

        It is cut to the datagram's length, or to `floor_bytes` for a shorter one.
        """
        asked = self._received[BATCH][index]
        length = min(len(answer), max(asked, floor_bytes), self.payload_bytes)
        start = index * self.payload_bytes
        self._payloads[start : start + length] = answer[:length]
        self._send_lengths[BATCH][index] = length
        return length

    def pin(self, index: int, envelope: bytes) -> None:
        """Answer one datagram through the interface that it came from (link-local addresses)."""
        interface = self._part(envelope, self._layout.interface)
        self._interfaces[BATCH][index] = int.from_bytes(interface, sys.byteorder)

    def answer_from_asked(self, index: int, envelope: bytes) -> None:
        """Answer one datagram from the address it was sent to where `local` does not know it."""
        start = index * self._stride + self._control_at
        local, asked = self._layout.local, self._part(envelope, self._layout.asked)
        memoryview(self._envelopes).cast("B")[start + local.start : start + local.stop] = asked

    def send(self, descriptor: int, start: int, stop: int) -> int:
        """Send the answers `start` to `stop`, without waiting; return how many the kernel took.

        Raises OSError if the very first of them cannot be sent: see sendmmsg(2) and send(2).
        """
        call = _sendmmsg_short if self._few else _sendmmsg
        count = call(descriptor, self._send_at[start], stop - start, DONTWAIT)
        if count >= 0:
            return int(count)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

    def _part(self, envelope: bytes, part: slice) -> bytes:
        return envelope[self._control_at + part.start : self._control_at + part.stop]


def _column(rows: ctypes.Array[Any] | memoryview, offset: int) -> list[memoryview]:
    """Return the 32-bit words at `offset` of each row, for each number of rows: the first of them,
    the first two, and so on.
    """
    table = memoryview(rows)
    words = table.cast("B").cast("I")[offset // 4 :: table.nbytes // len(table) // 4]
    return [words[:count] for count in range(len(table) + 1)]
