"""Who else has a port, by the tables of proc(5)."""

import os
import socket

import pytest

from netsrvd.sockets.matching import Facts
from netsrvd.systemd.port_owners import Own, Owned, foreign, holders, interfaces, rows, sockets

OWN = Own(daemons={1}, systemd={2}, addresses={("udp", "::", 7)})

UDP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  1: 0100007F:0007 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4711 2 0
  2: 0100007F:0009 0100007F:1234 01 00000000:00000000 00:00000000 00000000  1000        0 4712 2 0
"""


def test_a_table_is_read() -> None:
    """Sockets that take clients, not those that are connected."""
    assert [*rows("udp", UDP)] == [Owned("udp", "127.0.0.1", 7, 4711, 1000)]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_the_interface_of_a_socket_is_told(kind: int) -> None:
    """By the kernel, for TCP and UDP."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        address = (protocol, *sock.getsockname())
        assert interfaces()[address] == {socket.if_nametoindex("lo")}


def test_own_sockets_are_found_on_this_host() -> None:
    """With their process."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        sock.listen()
        inode = os.fstat(sock.fileno()).st_ino
        port = sock.getsockname()[1]
        assert Owned("tcp", "::1", port, inode, os.geteuid()) in sockets()
        assert any(f"({os.getpid()})" in each for each in holders(inode))


@pytest.mark.parametrize(
    ("one", "is_foreign"),
    [
        (Owned("udp", "127.0.0.1", 7, 9), True),
        (Owned("udp", "::", 7, 9), True),
        (Owned("udp", "::", 7, 2), False),
        (Owned("udp", "::1", 7, 2), True),
        (Owned("udp", "127.0.0.1", 7, 1), False),
        (Owned("tcp", "127.0.0.1", 7, 9), False),
        (Owned("udp", "127.0.0.1", 8, 9), False),
    ],
)
def test_only_others_are_foreign(one: Owned, *, is_foreign: bool) -> None:
    """systemd has sockets of others as well: ours are known by their addresses."""
    wanted = [Facts("echo", "udp", "::", 7, is_dual=True)]
    assert bool(foreign(wanted, [one], OWN)) is is_foreign


def test_ipv6_alone_leaves_ipv4_to_others() -> None:
    """And what is bound to an interface cannot be judged."""
    other = Owned("udp", "127.0.0.1", 7, 9)
    assert foreign([Facts("echo", "udp", "::", 7)], [other], OWN) == []
    assert foreign([Facts("echo", "udp", "127.0.0.1", 7, "eth0")], [other], OWN) == []
