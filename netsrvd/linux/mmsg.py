"""recvmmsg(2) and sendmmsg(2): many datagrams in one system call, with their control messages.

All buffers are made once. A batch is received into them and sent back from them, without a copy:
the send headers point to the same payload, name and control buffers as the receive headers, and
only the lengths are carried over. Lengths are moved with strided memory views, one operation for
the whole batch; the views for each number of datagrams are made once, too.

What the control messages say is parsed, in whatever order they come. An answer that is to leave as
its datagram came needs no more than the received block, in which the interface is cleared.
"""

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Any, NamedTuple

from netsrvd.addresses import UNKNOWN, host_and_port, unmapped
from netsrvd.linux.memory import untouched_memory

BATCH = 64
"""Datagrams in one call. More gains nothing measurable and makes other sockets wait longer."""

PAYLOAD_BYTES = 65_536
"""Room for one datagram: more than the 65,507 bytes that fit IPv4 and the 65,527 that fit IPv6."""

# <netinet/in.h>, <linux/in.h>, <linux/in6.h>: names that Python 3.11 does not have.
IP_PKTINFO = 8


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
    """Where the parts of a name stand, and how long a packet-info message is (ip(7), ipv6(7))."""

    family: int
    level: int
    option: int
    name_length: int
    host: slice
    """The address within the sockaddr; its port is always at bytes 2 and 3, big-endian."""
    scope: slice
    """The interface of a link-local address; nothing in IPv4."""
    control_length: int
    """CMSG_SPACE() of a packet-info message: the only one, unless a service asks for more."""
    interface_at: int
    """Where the interface stands in it, from the start of its struct cmsghdr."""

    @property
    def control_at(self) -> int:
        """Return where the control messages begin in a message header: behind the name, aligned."""
        return (self.name_length + 7) & ~7


IPV4 = Layout(
    family=socket.AF_INET,
    level=socket.IPPROTO_IP,
    option=IP_PKTINFO,
    name_length=16,
    host=slice(4, 8),
    scope=slice(0, 0),
    control_length=32,
    interface_at=16,
)
IPV6 = Layout(
    family=socket.AF_INET6,
    level=socket.IPPROTO_IPV6,
    option=socket.IPV6_RECVPKTINFO,
    name_length=28,
    host=slice(8, 24),
    scope=slice(24, 28),
    control_length=40,
    interface_at=32,
)
LAYOUTS = {layout.family: layout for layout in (IPV4, IPV6)}

# struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; };
_HEADER = struct.Struct("@Nii")
_ALIGNMENT = struct.calcsize("@N")
# struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst; struct in_addr ipi_addr; };
_IPV4_INFO = struct.Struct("@i4s4s")
# struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; };
_IPV6_INFO = struct.Struct("@16sI")
_INT = struct.Struct("@i")
# struct timespec { long tv_sec; long tv_nsec; };
_TIMESPEC = struct.Struct("@ll")

# <asm-generic/socket.h>, which Python 3.13 does not have either; SCM_TIMESTAMPING comes with three
# of struct timespec, of which the first is the time that the kernel took.
SO_TIMESTAMPNS, SO_TIMESTAMPING = 35, 37

IPV6_BYTES = 16
MAPPED = bytes(10) + b"\xff\xff"
"""Begins an IPv4 address that a dual-stack socket shows (RFC 4291, 2.5.5.2)."""


class Arrival:
    """What the control messages of a datagram say. Addresses are packed, four or sixteen bytes."""

    __slots__ = ("destination", "interface", "local", "packet_info", "received_ns", "tos", "ttl")

    def __init__(self) -> None:
        self.destination = self.local = b""
        """The address that it was sent to, and the one of this host that received it: they differ
        for multicast and broadcast. Empty if no message tells it."""
        self.interface = 0
        self.packet_info = b""
        """The messages that told all this, one behind the other: a mapped peer has two of them."""
        self.received_ns = 0
        """When the kernel received it, in nanoseconds since 1970; 0 if it took no time."""
        self.ttl: int | None = None
        """Time to live, or hop limit, with which it came."""
        self.tos = 0
        """The type of service, or traffic class: six bits of DSCP, two of ECN."""

    @property
    def is_ipv4(self) -> bool:
        """Whether it came by IPv4, also to a dual-stack socket (ipv6(7))."""
        return len(self.destination) < IPV6_BYTES or self.destination.startswith(MAPPED)


def parse(control: bytes, at: int = 0, end: int | None = None) -> Arrival:
    """Return what control messages say, in any order, from byte `at` to `end`; see cmsg(3).

    A message that is cut, or unknown, says nothing.
    """
    found = Arrival()
    end = len(control) if end is None else end
    while at + _HEADER.size <= end:
        length, level, kind = _HEADER.unpack_from(control, at)
        if not _HEADER.size <= length <= end - at:
            break
        data, length = at + _HEADER.size, length - _HEADER.size
        next_at = data + (length + _ALIGNMENT - 1 & -_ALIGNMENT)
        if length < _LENGTHS.get((level, kind), sys.maxsize):
            pass
        elif level == socket.SOL_SOCKET:
            seconds, nanoseconds = _TIMESPEC.unpack_from(control, data)
            found.received_ns = seconds * 1_000_000_000 + nanoseconds or found.received_ns
        elif kind in _INFO:
            _read_packet_info(found, level, control[at:next_at])
        elif kind in _TTL:
            (found.ttl,) = _INT.unpack_from(control, data)
        else:
            found.tos = control[data] if length < _INT.size else _INT.unpack_from(control, data)[0]
        at = next_at
    return found


_INFO, _TTL = (IP_PKTINFO, socket.IPV6_PKTINFO), (socket.IP_TTL, socket.IPV6_HOPLIMIT)

_LENGTHS = {
    (socket.SOL_SOCKET, SO_TIMESTAMPNS): _TIMESPEC.size,
    (socket.SOL_SOCKET, SO_TIMESTAMPING): _TIMESPEC.size,
    (socket.IPPROTO_IP, IP_PKTINFO): _IPV4_INFO.size,
    (socket.IPPROTO_IP, socket.IP_TTL): _INT.size,
    (socket.IPPROTO_IP, socket.IP_TOS): 1,
    (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO): _IPV6_INFO.size,
    (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT): _INT.size,
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS): _INT.size,
}
"""The messages that are read, with the least length of their data."""


def _read_packet_info(found: Arrival, level: int, message: bytes) -> None:
    """Take the addresses from a packet-info message.

    For a mapped peer, that of IPv6 names the destination, and that of IPv4 tells the local address.
    """
    found.packet_info += message
    if level == socket.IPPROTO_IPV6:
        found.destination, found.interface = _IPV6_INFO.unpack_from(message, _HEADER.size)
        found.local = MAPPED + found.local if found.local else found.destination
        return
    interface, local, destination = _IPV4_INFO.unpack_from(message, _HEADER.size)
    if found.destination:
        found.local = MAPPED + local
    else:
        found.destination, found.local, found.interface = destination, local, interface


class Message(NamedTuple):
    """A control message to be sent, as socket.sendmsg takes it."""

    level: int
    kind: int
    data: bytes

    def packed(self) -> bytes:
        """Return it as sendmsg(2) takes it, padded so that another one may follow."""
        made = _HEADER.pack(_HEADER.size + len(self.data), self.level, self.kind) + self.data
        return made + bytes(-len(made) % _ALIGNMENT)


def packet_info(arrival: Arrival, *, keep_interface: bool) -> Message:
    """Return the control message by which an answer leaves from the address that was asked.

    The routing table chooses the interface, or it is kept: the answer leaves by the one where its
    datagram came in (link-local addresses). Where the kernel kept no local address, which IPv4 does
    for datagrams that came before packet information was on, the address that was asked is taken.
    """
    interface, source = arrival.interface if keep_interface else 0, arrival.local
    if not any(source[-4:]) and source[:-4] in (b"", MAPPED):
        source = arrival.destination
    if len(source) == IPV6_BYTES:
        return Message(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IPV6_INFO.pack(source, interface))
    data = _IPV4_INFO.pack(interface, source, arrival.destination)
    return Message(socket.IPPROTO_IP, IP_PKTINFO, data)


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


def has_times(sock: socket.socket) -> bool:
    """Return whether datagrams of a socket come with times, and so with more control messages."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING))


class Batch:
    """Up to `BATCH` datagrams that came together, and the way to send them back.

    A message header, here, is the name of the peer (`msg_name`) and the control messages
    (`msg_control`) of a datagram, as bytes.

    Owned by the udp event loop. The methods that take `index` mean the datagrams of the last
    `receive`, which overwrites them all.
    """

    __slots__ = (
        *("_buffers", "_control_at", "_control_bytes", "_cuts", "_headers", "_few", "_flags"),
        *("_interfaces", "_layout", "_no_interfaces", "_payloads", "_receive_at", "_received"),
        *("_rows", "_send_at", "_send_lengths", "_stride", "payload_bytes"),
    )

    def __init__(
        self, layout: Layout, payload_bytes: int = PAYLOAD_BYTES, control_bytes: int = 0
    ) -> None:
        """Make the buffers; `control_bytes` is the room for control messages if there are more
        than packet information.
        """
        name_space = layout.control_at
        control_bytes = control_bytes or layout.control_length
        stride = name_space + control_bytes
        iovecs = (Iovec * BATCH)(), (Iovec * BATCH)()
        messages = (Mmsghdr * BATCH)(), (Mmsghdr * BATCH)()
        headers = (ctypes.c_char * (BATCH * stride))()
        payloads = untouched_memory(BATCH * payload_bytes)
        payloads_at = ctypes.addressof(ctypes.c_char.from_buffer(payloads))
        for message_row, iovec_row in zip(messages, iovecs, strict=True):
            for index in range(BATCH):
                iovec_row[index].base = payloads_at + index * payload_bytes
                iovec_row[index].length = payload_bytes
                at = ctypes.addressof(headers) + index * stride
                message = message_row[index].header
                message.name, message.name_length = at, layout.name_length
                message.iov = ctypes.addressof(iovec_row) + index * ctypes.sizeof(Iovec)
                message.iov_count = 1
                message.control = at + name_space
                message.control_length = control_bytes
        self.payload_bytes = payload_bytes
        self._few = True
        """Whether the last call received few datagrams."""
        self._layout = layout
        self._buffers = (iovecs, messages)
        self._headers = headers
        self._payloads = memoryview(payloads)
        self._stride = stride
        self._cuts = [struct.Struct(f"{stride}s" * count) for count in range(BATCH + 1)]
        self._receive_at = ctypes.c_void_p(ctypes.addressof(messages[0]))
        self._send_at = [ctypes.c_void_p(ctypes.addressof(each)) for each in messages[1]]
        self._received = _column(messages[0], Mmsghdr.length.offset)
        self._flags = _column(messages[0], Msghdr.flags.offset)
        low_half = ctypes.sizeof(ctypes.c_size_t) - 4 if sys.byteorder == "big" else 0
        self._send_lengths = _column(iovecs[1], Iovec.length.offset + low_half)
        self._rows = memoryview(headers).cast("B")
        rows = self._rows.cast("B", (BATCH, stride))
        self._interfaces = _column(rows, name_space + layout.interface_at)
        self._no_interfaces = _column((ctypes.c_uint32 * BATCH)(), 0)
        self._control_at = name_space
        self._control_bytes = control_bytes

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
        """Return the header and the length of the only datagram, and whether it was truncated."""
        (header,) = self._cuts[1].unpack_from(self._headers)
        return header, self._received[1][0], bool(self._flags[1][0] & socket.MSG_TRUNC)

    def send_first(self, descriptor: int) -> bool:
        """Send the only datagram back, from the address it was sent to.

        Return False, with its header as it was, if the kernel does not take it.
        """
        interfaces = self._interfaces[1]
        interface, interfaces[0] = interfaces[0], 0
        self._send_lengths[1][0] = self._received[1][0]
        if _sendmmsg_short(descriptor, self._send_at[0], 1, DONTWAIT) == 1:
            return True
        interfaces[0] = interface
        return False

    def headers(self, count: int) -> tuple[bytes, ...]:
        """Return the message header of each datagram.

        Equal ones mean the same peer asking the same address through the same interface.
        """
        return self._cuts[count].unpack_from(self._headers)

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

    def trim_front(self, index: int, count: int) -> None:
        """Take the first `count` bytes off one datagram, before anything else is done with it."""
        rest, start = self.payload(index)[count:], index * self.payload_bytes
        self._payloads[start : start + len(rest)] = rest
        self._received[BATCH][index] = len(rest)

    def peer(self, header: bytes) -> tuple[str, int]:
        """Return the address and port in the name of a message header."""
        host = socket.inet_ntop(self._layout.family, header[self._layout.host])
        scope = int.from_bytes(header[self._layout.scope], sys.byteorder)
        return host_and_port((host, int.from_bytes(header[2:4], "big"), 0, scope))

    def arrival(self, header: bytes) -> Arrival:
        """Return what the control messages in a message header say."""
        return parse(header, self._control_at)

    def destination(self, header: bytes) -> str:
        """Return the address that the datagram was sent to."""
        return self._shown(self.arrival(header).destination)

    def local(self, header: bytes) -> str:
        """Return this host's own address that it came in on, "0.0.0.0" where the kernel kept none.

        IPv4 keeps it only if packet information was on when the datagram arrived.
        """
        return self._shown(self.arrival(header).local)

    def _shown(self, packed: bytes) -> str:
        if len(packed) == IPV6_BYTES:
            return unmapped(socket.inet_ntop(socket.AF_INET6, packed))
        return socket.inet_ntop(socket.AF_INET, packed) if packed else UNKNOWN

    def control_lengths(self, count: int) -> list[int]:
        """Return how long the control messages of each datagram are, once after `receive`."""
        found = []
        for row in range(count):
            header = self._buffers[1][0][row].header
            found.append(header.control_length)
            header.control_length = self._control_bytes
        return found

    def reply_as_received(self, count: int) -> None:
        """Make the answers of a batch: every payload as it came, from the address it was sent to.

        The outgoing interface is left to the routing table, as TCP does it. `set_control` says
        more where the address does not say enough.
        """
        self._send_lengths[count][:] = self._received[count]
        self._interfaces[count][:] = self._no_interfaces[count]

    def reply(self, index: int, answer: bytes, floor_bytes: int) -> int:
        """Make an answer of its own to one datagram; return how long it became.

        It is cut to the datagram's length, or to `floor_bytes` for a shorter one.
        """
        received = self._received[BATCH][index]
        length = min(len(answer), max(received, floor_bytes), self.payload_bytes)
        start = index * self.payload_bytes
        self._payloads[start : start + length] = answer[:length]
        self._send_lengths[BATCH][index] = length
        return length

    def set_control(self, index: int, control: bytes) -> None:
        """Give one answer control messages of its own, instead of those of its datagram."""
        start = index * self._stride + self._control_at
        self._rows[start : start + len(control)] = control
        self._buffers[1][1][index].header.control_length = len(control)

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


def _column(rows: ctypes.Array[Any] | memoryview, offset: int) -> list[memoryview]:
    """Return the 32-bit words at `offset` of each row, for each number of rows: the first of them,
    the first two, and so on.
    """
    table = memoryview(rows)
    words = table.cast("B").cast("I")[offset // 4 :: table.nbytes // len(table) // 4]
    return [words[:count] for count in range(len(table) + 1)]
