"""netsrvd.probe.stamps: control messages and the error queue, as the kernel lays them out."""

import socket
import struct
from itertools import permutations

import pytest

from netsrvd.probe import stamps
from netsrvd.probe.stamps import Control, Reported, Sent

STAMP = struct.pack("@ll", 1_700_000_000, 250_000_000) + bytes(32)
STAMP_NS = 1_700_000_000_250_000_000

IPV4 = [
    (socket.SOL_SOCKET, stamps.SO_TIMESTAMPING, STAMP),
    (socket.IPPROTO_IP, socket.IP_TTL, struct.pack("@i", 57)),
    (socket.IPPROTO_IP, socket.IP_TOS, b"\xb9"),
    (socket.SOL_SOCKET, stamps.SO_RXQ_OVFL, struct.pack("@i", 3)),
]
IPV6 = [
    (socket.SOL_SOCKET, stamps.SO_TIMESTAMPING, STAMP),
    (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("@i", 57)),
    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("@i", 0xB9)),
    (socket.SOL_SOCKET, stamps.SO_RXQ_OVFL, struct.pack("@i", 3)),
]


@pytest.mark.parametrize("messages", [*permutations(IPV4), *permutations(IPV6)])
def test_control_messages_in_any_order(messages: list[tuple[int, int, bytes]]) -> None:
    """Stamp, TTL, TOS and drops are found in whatever order the kernel puts them."""
    assert stamps.control(messages) == Control(STAMP_NS, 57, 0xB9, 3)


def test_no_control_messages() -> None:
    """What is not there is unknown, and others are passed over."""
    other = (socket.IPPROTO_IP, socket.IP_OPTIONS, b"")
    assert stamps.control([other]) == Control(0, None, None)


def extended(number: int, origin: int, kind: int, code: int, info: int, data: int) -> bytes:
    """Return a struct sock_extended_err."""
    return struct.pack("=IBBBBII", number, origin, kind, code, 0, info, data)


OFFENDER = struct.pack("=HH4s8x", socket.AF_INET, 0, bytes([192, 0, 2, 9]))
OFFENDER_6 = struct.pack(
    "=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(socket.AF_INET6, "2001:db8::9"), 0
)


def test_a_stamp_of_sending() -> None:
    """A stamp of sending has the number of the datagram; one of scheduling is none."""
    for kind, expected in ((0, Sent(41, STAMP_NS)), (1, None)):
        messages = [
            (socket.SOL_SOCKET, stamps.SO_TIMESTAMPING, STAMP),
            (socket.IPPROTO_IP, stamps.IP_RECVERR, extended(42, 4, 0, 0, kind, 41)),
        ]
        assert stamps.error(socket.AF_INET, b"", messages) == expected


@pytest.mark.parametrize(
    ("family", "level", "option", "error", "text"),
    [
        (2, 0, 11, extended(111, 2, 3, 3, 0, 0), "port unreachable, says 192.0.2.9"),
        (2, 0, 11, extended(113, 2, 11, 0, 0, 0), "TTL exceeded, says 192.0.2.9"),
        (
            *(2, 0, 11, extended(90, 2, 3, 4, 1280, 0)),
            "too big to pass unfragmented, MTU 1280, says 192.0.2.9",
        ),
        (2, 0, 11, extended(113, 2, 3, 77, 0, 0), "ICMP type 3 code 77, says 192.0.2.9"),
        (10, 41, 25, extended(111, 3, 1, 4, 0, 0), "port unreachable, says 2001:db8::9"),
        (10, 41, 25, extended(90, 3, 2, 0, 1400, 0), "too big to pass, MTU 1400, says 2001:db8::9"),
    ],
)
def test_an_error_of_icmp(family: int, level: int, option: int, error: bytes, text: str) -> None:
    """An error says what it means, and which host has reported it."""
    offender = OFFENDER if family == socket.AF_INET else OFFENDER_6
    messages = [(level, option, error + offender)]
    assert stamps.error(family, b"quoted", messages) == Reported(b"quoted", text)


def test_an_error_of_the_kernel() -> None:
    """An error of this host is passed over: the system call has returned it as well."""
    messages = [(socket.IPPROTO_IP, stamps.IP_RECVERR, extended(90, 1, 0, 0, 1500, 0))]
    assert stamps.error(socket.AF_INET, b"", messages) is None


def test_a_short_message_is_passed_over() -> None:
    """What is too short for its structure says nothing."""
    messages = [(socket.IPPROTO_IP, stamps.IP_RECVERR, b"\0" * 15)]
    assert stamps.error(socket.AF_INET, b"", messages) is None
    assert stamps.error(socket.AF_INET, b"", []) is None
    cut = [(socket.IPPROTO_IP, stamps.IP_RECVERR, extended(111, 2, 3, 3, 0, 0) + b"\2")]
    found = stamps.error(socket.AF_INET, b"", cut)
    assert found == Reported(b"", "port unreachable, says a host on the way")
