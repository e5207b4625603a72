"""netsrvd.addresses"""

import socket

import pytest

from netsrvd import addresses

LOOPBACK = socket.if_indextoname(1)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.1", 7), ("192.0.2.1", 7)),
        (("2001:db8::1", 7, 0, 0), ("2001:db8::1", 7)),
        (("::ffff:192.0.2.1", 7, 0, 0), ("192.0.2.1", 7)),
        (("fe80::1", 7, 0, 1), (f"fe80::1%{LOOPBACK}", 7)),
        (("fe80::1", 7, 0, 2**31 - 1), (f"fe80::1%{2**31 - 1}", 7)),
        (("::1", 7), ("::1", 7)),
    ],
)
def test_host_and_port(address: tuple[str, int], expected: tuple[str, int]) -> None:
    """Mapped hosts become IPv4; link-local ones are told their interface, by number if gone."""
    assert addresses.host_and_port(address) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:0:1", "::ffff:0:1"),
        ("::ffff:1:192.0.2.1", "::ffff:1:192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("::", "::"),
    ],
)
def test_unmapped(host: str, expected: str) -> None:
    """Only the form in which the kernel shows an IPv4 peer of an IPv6 socket is changed."""
    assert addresses.unmapped(host) == expected


@pytest.mark.parametrize(
    ("host", "expected"), [("192.0.2.1", "192.0.2.1:7"), ("fe80::1%lo", "[fe80::1%lo]:7")]
)
def test_shown(host: str, expected: str) -> None:
    """An IPv6 address stands in brackets, so that its port can be told from it."""
    assert addresses.shown(host, 7) == expected
