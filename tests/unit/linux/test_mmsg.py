"""netsrvd.linux.mmsg"""

import ctypes
import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from netsrvd.linux import mmsg
from netsrvd.linux.mmsg import BATCH, IPV4, IPV6, Batch, Iovec, Layout, Mmsghdr, Msghdr

PAYLOAD_BYTES = 512

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two:
        yield one, two


@pytest.fixture
def batch() -> Batch:
    return Batch(IPV4, PAYLOAD_BYTES)


def header(layout: Layout, peer: bytes, control: bytes) -> bytes:
    """Return what the kernel would leave in the name and control buffers of a datagram."""
    space = (layout.name_length + 7) & ~7
    return peer.ljust(space, b"\0") + control.ljust(layout.control_length, b"\0")


def ipv4(host: str, port: int, interface: int, local: str, asked: str) -> bytes:
    """Return the message header of an IPv4 datagram, built from the C declarations."""
    name = struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host)
    info = struct.pack("=i", interface) + socket.inet_aton(local) + socket.inet_aton(asked)
    return header(IPV4, name, struct.pack("=Qii", 28, socket.IPPROTO_IP, 8) + info)


def ipv6(host: str, port: int, scope: int, asked: str, interface: int) -> bytes:
    """Return the message header of an IPv6 datagram, built from the C declarations."""
    packed = [socket.inet_pton(socket.AF_INET6, each) for each in (host, asked)]
    name = struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0) + packed[0]
    info = packed[1] + struct.pack("=I", interface)
    control = struct.pack("=Qii", 36, socket.IPPROTO_IPV6, 50) + info
    return header(IPV6, name + struct.pack("=I", scope), control)


@pytest.mark.parametrize(
    ("kind", "size", "offsets"),
    [
        (Iovec, 16, {"base": 0, "length": 8}),
        (Msghdr, 56, {"name": 0, "iov": 16, "iov_count": 24, "control": 32, "flags": 48}),
        (Mmsghdr, 64, {"header": 0, "length": 56}),
    ],
)
@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the figures of 64 bits")
def test_structures_are_laid_out_as_in_c(
    kind: type[ctypes.Structure], size: int, offsets: dict[str, int]
) -> None:
    """Sizes and offsets are those that a C compiler gives the declarations."""
    assert ctypes.sizeof(kind) == size
    assert {name: getattr(kind, name).offset for name in offsets} == offsets


@pytest.mark.parametrize("layout", [IPV4, IPV6])
def test_control_messages_have_the_room_that_they_need(layout: Layout) -> None:
    """One packet-info message fits exactly, as CMSG_SPACE() counts it."""
    size = {socket.AF_INET: 12, socket.AF_INET6: 20}[layout.family]
    assert layout.control_length == socket.CMSG_SPACE(size)
    address = bytes({socket.AF_INET: 4, socket.AF_INET6: 16}[layout.family])
    arrival = mmsg.Arrival()
    arrival.destination = arrival.local = address
    assert len(mmsg.packet_info(arrival, keep_interface=False).packed()) == layout.control_length


def test_an_ipv4_header_is_read() -> None:
    """Peer, the address that was asked, the address it came in on: each from its place."""
    batch = Batch(IPV4, PAYLOAD_BYTES)
    made = ipv4("192.0.2.1", 7007, 3, "192.0.2.9", "192.0.2.255")
    assert batch.peer(made) == ("192.0.2.1", 7007)
    assert (batch.destination(made), batch.local(made)) == ("192.0.2.255", "192.0.2.9")


@pytest.mark.parametrize(
    ("host", "scope", "asked", "peer", "shown"),
    [
        ("2001:db8::1", 0, "2001:db8::9", "2001:db8::1", "2001:db8::9"),
        ("::ffff:192.0.2.1", 0, "::ffff:192.0.2.9", "192.0.2.1", "192.0.2.9"),
        ("fe80::1", 1, "fe80::9", f"fe80::1%{socket.if_indextoname(1)}", "fe80::9"),
    ],
)
def test_an_ipv6_header_is_read(host: str, scope: int, asked: str, peer: str, shown: str) -> None:
    """Mapped addresses are IPv4, link-local ones are told their interface."""
    batch = Batch(IPV6, PAYLOAD_BYTES)
    made = ipv6(host, 7007, scope, asked, 5)
    assert batch.peer(made) == (peer, 7007)
    assert (batch.destination(made), batch.local(made)) == (shown, shown)


def test_a_batch_is_received(pair: Pair, batch: Batch) -> None:
    """What has arrived comes in one call, each datagram by itself, empty ones too."""
    texts = [b"one", b"", b"three", b"x" * PAYLOAD_BYTES]
    for text in texts:
        pair[0].send(text)
    assert batch.receive(pair[1].fileno()) == len(texts)
    assert batch.lengths(4) == [3, 0, 5, PAYLOAD_BYTES]
    assert [bytes(batch.payload(index)) for index in range(4)] == texts
    assert batch.truncated(4) == []
    assert len({*batch.headers(4)}) == 1


def test_no_more_than_a_batch_comes_at_once(pair: Pair, batch: Batch) -> None:
    """Datagrams beyond the batch wait for the next call."""
    descriptor, sent = pair[1].fileno(), 0
    pair[0].setblocking(False)
    while sent <= BATCH:
        try:
            pair[0].send(b"x")
        except BlockingIOError:
            break
        sent += 1
    first = batch.receive(descriptor)
    assert first == min(sent, BATCH)
    assert batch.receive(descriptor) == sent - first


def test_a_datagram_that_does_not_fit_is_told(pair: Pair, batch: Batch) -> None:
    """A truncated datagram is known by its flag; the others of the batch are whole."""
    for size in (PAYLOAD_BYTES + 1, 1, PAYLOAD_BYTES + 9):
        pair[0].send(b"x" * size)
    assert batch.receive(pair[1].fileno()) == 3
    assert batch.truncated(3) == [0, 2]
    assert batch.lengths(3) == [PAYLOAD_BYTES, 1, PAYLOAD_BYTES]


def test_nothing_there_is_no_error(pair: Pair, batch: Batch) -> None:
    """Where nothing waits, nothing is received, and nobody waits for it."""
    assert batch.receive(pair[1].fileno()) == 0


def test_an_error_of_receiving_is_raised(batch: Batch) -> None:
    """What is neither EAGAIN nor EINTR is an OSError with its errno."""
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
        batch.receive(-1)
    assert caught.value.errno == errno.EBADF


def test_an_error_of_sending_is_raised(batch: Batch) -> None:
    """An answer that cannot be sent is an OSError with its errno."""
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        batch.send(-1, 0, 1)


@pytest.fixture
def loopback() -> Iterator[Pair]:
    """Two UDP sockets; the second tells where a datagram came in."""
    one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with one, two:
        two.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(5)
        yield one, two


def test_a_single_datagram_has_the_same_header_as_one_of_many(loopback: Pair, batch: Batch) -> None:
    """By either way it is the same flow: nothing is changed before the answer is made."""
    one, two = loopback
    for _ in range(2):
        one.sendto(b"hello", two.getsockname())
    assert batch.receive(two.fileno()) == 2
    [header] = {*batch.headers(2)}
    one.sendto(b"again!", two.getsockname())
    assert batch.receive(two.fileno()) == 1
    assert batch.first() == (header, 6, False)
    assert batch.headers(1) == (header,)
    assert batch.send_first(two.fileno())
    assert one.recv(100) == b"again!"


def test_a_single_datagram_that_cannot_be_sent_is_as_it_was(loopback: Pair, batch: Batch) -> None:
    """What the kernel does not take is answered, or counted, as one of many."""
    one, two = loopback
    one.sendto(b"hello", two.getsockname())
    assert batch.receive(two.fileno()) == 1
    header, _, _ = batch.first()
    assert not batch.send_first(-1)
    assert batch.headers(1) == (header,)


def test_a_single_datagram_that_does_not_fit_is_told(loopback: Pair, batch: Batch) -> None:
    """It is not echoed."""
    one, two = loopback
    one.sendto(b"x" * (PAYLOAD_BYTES + 1), two.getsockname())
    assert batch.receive(two.fileno()) == 1
    assert batch.first()[1:] == (PAYLOAD_BYTES, True)


def test_answers_are_the_payloads_as_they_came(pair: Pair, batch: Batch) -> None:
    """Only the lengths and the interfaces are set for the answers; the rest is shared."""
    for text in (b"one", b"", b"three"):
        pair[0].send(text)
    batch.receive(pair[1].fileno())
    batch._interfaces[3][1] = 9
    batch.reply_as_received(3)
    assert batch._send_lengths[3].tolist() == [3, 0, 5]
    assert batch._interfaces[3].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("asked", "answer", "floor", "sent"),
    [
        (b"four", b"a longer answer", 0, b"a lo"),
        (b"four", b"a longer answer", 8, b"a longer"),
        (b"", b"time", 4, b"time"),
        (b"a longer one", b"short", 0, b"short"),
        (b"x", b"y" * 1000, 1000, b"y" * PAYLOAD_BYTES),
    ],
)
def test_an_answer_of_its_own_is_cut(
    pair: Pair, batch: Batch, asked: bytes, answer: bytes, floor: int, sent: bytes
) -> None:
    """It is as long as what was asked, or as the floor, or as the buffer, and never longer."""
    for text in (b"before", asked, b"after"):
        pair[0].send(text)
    batch.receive(pair[1].fileno())
    batch.reply_as_received(3)
    assert batch.reply(1, answer, floor) == len(sent)
    assert batch._send_lengths[3].tolist() == [6, len(sent), 5]
    answered = [
        batch._payloads[at * PAYLOAD_BYTES :][:size] for at, size in enumerate((6, len(sent), 5))
    ]
    assert [bytes(each) for each in answered] == [b"before", sent, b"after"]


@pytest.mark.parametrize("count", [0, 1, 100, 300])
def test_the_beginning_of_a_datagram_can_be_taken_off(pair: Pair, batch: Batch, count: int) -> None:
    """The rest is the datagram then: its length, its payload, its answer and the limit of that."""
    whole = os.urandom(300)
    for text in (b"before", whole, b"after"):
        pair[0].send(text)
    batch.receive(pair[1].fileno())
    batch.trim_front(1, count)
    assert batch.lengths(3) == [6, 300 - count, 5]
    assert bytes(batch.payload(1)) == whole[count:]
    batch.reply_as_received(3)
    assert batch._send_lengths[3].tolist() == [6, 300 - count, 5]
    assert batch.reply(1, bytes(400), 0) == 300 - count
    assert bytes(batch.payload(2)) == b"after"


@pytest.mark.parametrize(("keep_interface", "interface"), [(False, 0), (True, 3)])
def test_an_answer_can_be_pinned_to_its_interface(
    batch: Batch,
    keep_interface: bool,  # noqa: FBT001
    interface: int,
) -> None:
    """A link-local answer goes out where its request came in; no other answer is touched."""
    made = ipv4("169.254.1.1", 7, 3, "169.254.1.9", "169.254.1.9")
    batch.set_control(
        2, mmsg.packet_info(batch.arrival(made), keep_interface=keep_interface).packed()
    )
    assert batch._interfaces[4].tolist() == [0, 0, interface, 0]


def test_an_answer_can_be_sent_from_where_it_was_asked(batch: Batch) -> None:
    """Where the kernel kept no local address, the one that was asked takes its place."""
    made = ipv4("192.0.2.1", 7, 3, "0.0.0.0", "192.0.2.9")
    assert batch.local(made) == "0.0.0.0"
    batch.set_control(2, mmsg.packet_info(batch.arrival(made), keep_interface=False).packed())
    found = batch.headers(4)
    assert [batch.local(each) for each in found] == ["0.0.0.0", "0.0.0.0", "192.0.2.9", "0.0.0.0"]


TIME = (1_700_000_000, 250_000_000)
MESSAGES = {
    "time": (1, 35, struct.pack("=qq", *TIME)),
    "times": (1, 37, struct.pack("=qq", *TIME) + bytes(32)),
    "info": (0, 8, struct.pack("=i", 3) + socket.inet_aton("192.0.2.9") * 2),
    "ttl": (0, 2, struct.pack("=i", 61)),
    "tos": (0, 1, b"\xb9"),
    "info6": (41, 50, socket.inet_pton(socket.AF_INET6, "2001:db8::9") + struct.pack("=I", 4)),
    "mapped": (
        *(41, 50),
        socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.9") + struct.pack("=I", 3),
    ),
    "hops": (41, 52, struct.pack("=i", 62)),
    "class": (41, 67, struct.pack("=i", 0xB9)),
    "unknown": (1, 99, b"abcde"),
}


def control(*names: str) -> bytes:
    """Return control messages of these names, one behind the other."""
    return b"".join(mmsg.Message(*MESSAGES[name]).packed() for name in names)


@pytest.mark.parametrize(
    ("names", "asked", "local", "interface"),
    [
        (("time", "info", "ttl", "tos"), "192.0.2.9", "192.0.2.9", 3),
        (("times", "info6", "hops", "class"), "2001:db8::9", "2001:db8::9", 4),
        (("times", "mapped", "info", "ttl", "tos"), "::ffff:192.0.2.9", "::ffff:192.0.2.9", 3),
    ],
)
def test_control_messages_are_read_in_any_order(
    names: tuple[str, ...], asked: str, local: str, interface: int
) -> None:
    """Each says the same wherever it stands, and with one that is not known between them."""
    for order in itertools.permutations((*names, "unknown")):
        found = mmsg.parse(control(*order))
        packed = [text(each) for each in (found.destination, found.local)]
        assert (packed, found.interface) == ([asked, local], interface)
        assert found.received_ns == TIME[0] * 10**9 + TIME[1]
        assert (found.ttl, found.tos) == (62 if "hops" in names else 61, 0xB9)


def text(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def test_what_is_missing_is_not_known() -> None:
    """Without a message there is no address, no time and no TTL; a cut one says nothing."""
    whole = control("info", "ttl")
    for found in (mmsg.parse(b""), mmsg.parse(whole, end=20), mmsg.parse(control("unknown"))):
        assert (found.destination, found.local, found.received_ns, found.ttl) == (b"", b"", 0, None)
    assert mmsg.parse(whole, end=40).destination == socket.inet_aton("192.0.2.9")
    assert mmsg.parse(whole, end=40).ttl is None


def test_no_time_is_known_if_the_kernel_took_none() -> None:
    """The times of SO_TIMESTAMPING may be zero: then a time from elsewhere stays."""
    none = mmsg.Message(1, 37, bytes(48)).packed()
    assert mmsg.parse(none).received_ns == 0
    assert mmsg.parse(control("time") + none).received_ns == TIME[0] * 10**9 + TIME[1]


def test_a_broadcast_to_a_mapped_address_is_told() -> None:
    """The local address of a mapped peer's datagram is that of the IPv4 message."""
    info = (*MESSAGES["info"][:2], struct.pack("=i", 3) + bytes([192, 0, 2, 1, 192, 0, 2, 9]))
    found = mmsg.parse(control("mapped") + mmsg.Message(*info).packed())
    assert (text(found.destination), text(found.local)) == ("::ffff:192.0.2.9", "::ffff:192.0.2.1")


def test_control_messages_beyond_the_packet_information_are_received_and_sent(
    loopback: Pair,
) -> None:
    """With room for them all messages come, each time; the answer has those that it was given."""
    one, two = loopback
    batch = Batch(IPV4, PAYLOAD_BYTES, control_bytes=256)
    for number in (12, 13):  # IP_RECVTTL, IP_RECVTOS
        two.setsockopt(socket.IPPROTO_IP, number, 1)
    one.setsockopt(socket.IPPROTO_IP, 12, 1)
    for ttl in (61, 62):
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        one.sendto(b"hello", two.getsockname())
        assert batch.receive(two.fileno()) == 1
        [length], [header] = batch.control_lengths(1), batch.headers(1)
        arrival = mmsg.parse(header, IPV4.control_at, IPV4.control_at + length)
        assert (text(arrival.destination), arrival.ttl, arrival.tos) == ("127.0.0.1", ttl, 0)
        batch.reply_as_received(1)
        ours = mmsg.Message(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", 200))
        source = mmsg.packet_info(arrival, keep_interface=False)
        batch.set_control(0, source.packed() + ours.packed())
        assert batch.send(two.fileno(), 0, 1) == 1
        data, ancillary, _, _ = one.recvmsg(100, 100)
        assert data == b"hello"
        assert ancillary == [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("=i", 200))]


def test_layouts_are_found_by_family() -> None:
    """Each family of a UDP socket has its layout."""
    assert {socket.AF_INET: IPV4, socket.AF_INET6: IPV6} == mmsg.LAYOUTS
