"""The relay that impairs packets does what it records, and nothing else."""

import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

import pytest

from tests.support.impairment.path import (
    BALANCED,
    FAR,
    FAR6,
    NEAR,
    NEAR6,
    Network,
    Way,
    impaired,
    network,
    two_cables,
)
from tests.support.impairment.truth import Packet
from tests.support.patience import SECONDS

PORT = 4000
SO_TIMESTAMPNS = 35
MS = 1_000_000


@pytest.fixture(scope="module")
def between() -> Iterator[Network]:
    with network() as made:
        yield made


@dataclass(frozen=True)
class Ends:
    """A UDP socket at each end, the far one with its own stamps."""

    near: socket.socket
    far: socket.socket

    def send(self, count: int, payload_bytes: int = 8) -> list[int]:
        """Send numbered datagrams there; return the time before each, CLOCK_REALTIME."""
        began = []
        for number in range(count):
            began.append(time_ns())
            payload = struct.pack("!Q", number).ljust(payload_bytes, b".")
            self.near.sendto(payload, self.far.getsockname()[:2])
        return began

    def receive(self, count: int) -> list[tuple[int, int]]:
        """Receive `count` datagrams; return the number and the kernel's stamp of each, in order."""
        came = []
        for _ in range(count):
            data, [(_, _, stamp)], *_ = self.far.recvmsg(2000, 100)
            seconds, nanoseconds = struct.unpack("@qq", stamp)
            came.append((struct.unpack_from("!Q", data)[0], seconds * 10**9 + nanoseconds))
        return came


@pytest.fixture(params=[(NEAR, FAR), (NEAR6, FAR6)], ids=["IPv4", "IPv6"])
def ends(between: Network, request: pytest.FixtureRequest) -> Iterator[Ends]:
    with ExitStack() as stack:
        made = []
        for space, host in zip((between.prober, between.responder), request.param, strict=True):
            with space.entered():
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                sock.settimeout(SECONDS)
                sock.bind((host, PORT))
                made.append(sock)
        made[1].setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        yield Ends(*made)


def number_of(packet: Packet) -> int:
    """Return which of the datagrams of a test this was."""
    return struct.unpack_from("!Q", packet.payload)[0]


def test_each_packet_has_the_fate_that_was_planned(
    between: Network, ends: Ends, tmp_path: Path
) -> None:
    """Of eight packets the second is lost, the third comes twice and the fifth last; the record
    says the same, and so do a sequence of planned delays and the stamps of the receiving socket.
    """
    plan = [MS, None, (MS, 2 * MS), MS, 400 * MS, MS, MS, MS]
    with impaired(between, tmp_path, Way(plan)) as relay:
        began = ends.send(len(plan))
        came = ends.receive(len(plan))
        truth = relay.stop()
    assert Counter(number for number, _ in came) == Counter([0, 2, 2, 3, 4, 5, 6, 7])
    assert came[-1][0] == 4
    packets = truth.way("there")
    assert [each.fate for each in packets] == ["sent", "lost"] + ["sent"] * 6
    assert [each.wanted_ns for each in packets] == [
        (MS,), (), (MS, 2 * MS), (MS,), (400 * MS,), (MS,), (MS,), (MS,)
    ]  # fmt: skip
    for number, stamp_ns in came:
        [packet] = [each for each in packets if number_of(each) == number]
        assert began[number] <= packet.arrived_ns
        assert [sent for sent in packet.sent_ns if sent <= stamp_ns]
    assert min(truth.errors_ns()) >= 0


def test_departures_are_those_of_the_wire(between: Network, ends: Ends, tmp_path: Path) -> None:
    """In half of the packets at least the record of a departure and the stamp with which the
    packet comes to the other end are less than 50 us apart, whatever the delay was.
    """
    chance = random.Random(1)
    plan = [chance.randrange(5 * MS) for _ in range(50)]
    with impaired(between, tmp_path, Way(plan)) as relay:
        ends.send(len(plan))
        came = dict(ends.receive(len(plan)))
        truth = relay.stop()
    apart = [came[number_of(each)] - each.sent_ns[0] for each in truth.way("there")]
    assert min(apart) >= 0
    assert sorted(apart)[len(apart) // 2] < 50_000


def test_a_packet_is_rewritten(between: Network, ends: Ends, tmp_path: Path) -> None:
    """Hops, DSCP and a shortened payload arrive as planned, with sums that the receiver accepts."""
    is_v6 = ends.far.family == socket.AF_INET6
    level, ttl, tos = (41, 52, 67) if is_v6 else (0, 2, 1)
    asked = [(51, 52), (66, 67)] if is_v6 else [(12, 2), (13, 1)]
    for option, _ in asked:  # IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IP_RECVTTL, IP_RECVTOS
        ends.far.setsockopt(level, option, 1)
    ends.near.setsockopt(level, tos, 0xB8)
    with impaired(between, tmp_path, Way(hops=5, tos=0x28, cut=30)) as relay:
        ends.send(1, payload_bytes=99)
        data, control, *_ = ends.far.recvmsg(2000, 200)
        truth = relay.stop()
    told = {kind: int.from_bytes(value[:1], "little") for at, kind, value in control if at == level}
    assert len(data) == 30
    assert (told[ttl], told[tos]) == (64 - 5, 0x28)
    [packet] = truth.way("there")
    assert (packet.ttl, packet.tos, packet.length) == (64, 0xB8, (40 if is_v6 else 20) + 8 + 99)


def test_long_packets_fall_into_a_hole(between: Network, ends: Ends, tmp_path: Path) -> None:
    """A packet of the hole's size comes through, one of a byte more does not; the other direction
    has no hole.
    """
    headers = (40 if ends.far.family == socket.AF_INET6 else 20) + 8
    with impaired(between, tmp_path, Way(mtu=1000)) as relay:
        ends.send(1, 1001 - headers)
        ends.send(1, 1000 - headers)
        data = ends.far.recv(2000)
        ends.far.sendto(b"-" * 1200, ends.near.getsockname()[:2])
        assert len(ends.near.recv(2000)) == 1200
        truth = relay.stop()
    assert len(data) == 1000 - headers
    assert [each.fate for each in truth.way("there")] == ["mtu", "sent"]


def test_a_source_port_chooses_the_path(between: Network, ends: Ends, tmp_path: Path) -> None:
    """Of sixteen ports those come through whose path, as `path_of` says, is not the bad one."""
    way = Way(paths=16, plans={3: [None]})
    family = ends.far.family
    with impaired(between, tmp_path, way) as relay, between.prober.entered():
        for port in range(PORT, PORT + 64):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port + 1))
                sock.sendto(struct.pack("!Q", port + 1), ends.far.getsockname()[:2])
        good = [port for port in range(PORT + 1, PORT + 65) if way.path_of(port) != 3]
        assert 48 < len(good) < 64
        came = [number for number, _ in ends.receive(len(good))]
        assert came == good
        truth = relay.stop()
    paths = {each.source_port: each.path for each in truth.way("there")}
    assert paths == {port: way.path_of(port) for port in range(PORT + 1, PORT + 65)}


def test_the_error_of_the_relay_is_known(between: Network, ends: Ends, tmp_path: Path) -> None:
    """It lets no packet go early, and half of the packets leave less than a millisecond late."""
    with impaired(between, tmp_path, Way([2 * MS])) as relay:
        for _ in range(50):
            ends.send(1)
            ends.receive(1)
        truth = relay.stop()
    error = truth.error()
    assert error.count >= 50
    assert 0 <= error.least <= error.median < MS


def test_the_kernel_chooses_between_two_cables(tmp_path: Path) -> None:
    """With two routes of equal cost the packets of sixteen source ports are on both cables, those
    of one port on one, and what a relay loses does not arrive.
    """
    with (
        two_cables() as between,
        impaired(between, tmp_path) as good,
        impaired(between, tmp_path, Way([None]), cable=1) as bad,
        between.responder.entered(),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        far.settimeout(SECONDS)
        far.bind((BALANCED, PORT))
        for port in range(PORT, PORT + 16):
            with between.prober.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
                near.bind(("", port))
                for _ in range(2):
                    near.sendto(b"-", (BALANCED, PORT))
        sent = [
            Counter(each.source_port for each in one.stop().way("there")) for one in (good, bad)
        ]
        assert all(sent)
        assert sent[0] + sent[1] == Counter(dict.fromkeys(range(PORT, PORT + 16), 2))
        assert not sent[0].keys() & sent[1].keys()
        came = Counter(far.recvfrom(10)[1][1] for _ in range(sent[0].total()))
        assert came == sent[0]
