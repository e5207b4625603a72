"""netsrvd.linux.reply: what it hands to sendmsg(2); tests/integration sends it"""

import socket
import struct
from typing import Any

import pytest

from netsrvd.linux import reply

INTERFACE = struct.pack("=i", 3)
PEER4, LOCAL4, ASKED4 = (socket.inet_aton(f"192.0.2.{last}") for last in (1, 9, 8))
PEER6, LOCAL6 = (socket.inet_pton(socket.AF_INET6, f"fe80::{last}") for last in (1, 9))


class Sock:
    """A socket that keeps what is sent."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.sent: tuple[Any, ...] = ()

    def sendmsg(self, *arguments: Any) -> None:
        self.sent = arguments


def ipv4(local: bytes) -> bytes:
    """Return a message header of the kernel: a struct sockaddr_in, a cmsghdr, an in_pktinfo."""
    name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 40_000) + PEER4 + bytes(8)
    return (
        name + struct.pack("=Qii", 28, socket.IPPROTO_IP, 8) + INTERFACE + local + ASKED4 + bytes(4)
    )


def ipv6() -> bytes:
    """Return a message header: a struct sockaddr_in6, a cmsghdr, an in6_pktinfo."""
    port = struct.pack("!H", 40_000)
    name = struct.pack("=H", socket.AF_INET6) + port + bytes(4) + PEER6 + INTERFACE + bytes(4)
    return name + struct.pack("=Qii", 36, socket.IPPROTO_IPV6, 50) + LOCAL6 + INTERFACE + bytes(4)


@pytest.mark.parametrize("keep_interface", [False, True])
@pytest.mark.parametrize(("header", "source"), [(ipv4(LOCAL4), LOCAL4), (ipv4(bytes(4)), ASKED4)])
def test_an_ipv4_answer(header: bytes, source: bytes, keep_interface: bool) -> None:  # noqa: FBT001
    """It leaves from the address that received, or that was asked where the kernel kept only that;
    by the interface where it came in only if that is to be kept.
    """
    sock: Any = Sock(socket.AF_INET)
    reply.send(sock, header, b"x", keep_interface=keep_interface)
    [payload], [(level, option, data)], flags, address = sock.sent
    assert (payload, flags, address) == (b"x", socket.MSG_DONTWAIT, ("192.0.2.1", 40_000))
    assert (level, option) == (socket.IPPROTO_IP, 8)
    assert data == (INTERFACE if keep_interface else bytes(4)) + source + ASKED4


@pytest.mark.parametrize("keep_interface", [False, True])
def test_an_ipv6_answer(keep_interface: bool) -> None:  # noqa: FBT001
    """The same, with the scope of a link-local peer."""
    sock: Any = Sock(socket.AF_INET6)
    reply.send(sock, ipv6(), b"x", keep_interface=keep_interface)
    _, [(level, option, data)], _, address = sock.sent
    assert address == ("fe80::1", 40_000, 0, 3)
    assert (level, option) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
    assert data == LOCAL6 + (INTERFACE if keep_interface else bytes(4))
