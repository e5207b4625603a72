"""Addresses that need care: local by a route alone, reserved, of proxies; and urgent data."""

import socket
import subprocess
from contextlib import ExitStack

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.clients import HELLO, talking
from tests.support.patience import SECONDS
from tests.support.peers import datagrams, read_exactly
from tests.support.proxied import addresses, v2
from tests.support.run import echo

ROUTED = {
    "IPv6": ("-6", "2001:db8:1::/64", "2001:db8:1::5"),
    "IPv4": ("-4", "198.51.100.0/24", "198.51.100.5"),
}


def ip(*arguments: str) -> None:
    """Change this test's own network (ip(8))."""
    subprocess.run(["ip", *arguments], check=True)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("origin", ["own", "passed", "dual"])
@pytest.mark.parametrize(("family", "network", "host"), ROUTED.values(), ids=list(ROUTED))
def test_an_address_that_is_local_by_a_route_is_served(
    start: Start, port: int, family: str, network: str, host: str, origin: str
) -> None:
    """No interface has it (AnyIP): datagrams are answered from it, and connections served."""
    ip(family, "route", "add", "local", network, "dev", "lo")
    with ExitStack() as stack:
        kinds = ["tcpdual", "udpdual"] if origin == "dual" else []
        given = passing(opened(stack, port, *kinds), ":".join(["echo"] * len(kinds)))
        if origin == "passed":
            sockets = [stack.enter_context(everywhere(*each)) for each in EVERYWHERE]
            for each, (_, kind) in zip(sockets, EVERYWHERE, strict=True):
                each.bind(("::" if each.family == socket.AF_INET6 else "0.0.0.0", port))
                if kind == socket.SOCK_STREAM:
                    each.listen()
            given = passing(sockets, ":".join(["echo"] * len(sockets)))
        configuration = {"listener": {"echo": {"port": port, "allow": "any"}}}
        run = start(configuration, **(given if origin != "own" else {}))
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            assert answered(host, port, kind) == HELLO
        run.end()
    run.wait_line(", 0 unsent")


def answered(host: str, port: int, kind: int) -> bytes:
    """Return the answer to a client that has no address of its own choice."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as client:
        client.settimeout(SECONDS)
        client.connect((host, port))
        client.sendall(HELLO)
        return client.recv(100)


EVERYWHERE = [
    (family, kind)
    for family in (socket.AF_INET, socket.AF_INET6)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
]


def everywhere(family: int, kind: int) -> socket.socket:
    """Return a socket of one family that is to be bound to all addresses."""
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


@pytest.mark.usefixtures("alone")
def test_an_address_of_no_host_is_still_a_fault(start: Start, port: int) -> None:
    """A listener on an address that this host does not have does not start."""
    run = start(echo(port, host=["2001:db8:9::9"]), ready=False)
    run.wait_failure(69)
    assert run.lines_with("udp 2001:db8:9::9") or run.lines_with("is not an address of this host")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("240.0.0.1", "sender: 240.0.0.1 is a reserved address (240.0.0.0/4)"),
        ("255.1.2.3", "sender: 255.1.2.3 is a reserved address (240.0.0.0/4)"),
    ],
)
def test_reserved_addresses_have_their_own_word(
    start: Start, port: int, host: str, words: str
) -> None:
    """They are no multicast addresses."""
    ip("address", "add", f"{host}/32", "dev", "lo")
    run = start({"listener": {"echo": {"port": port, "allow": "any"}}})
    with datagrams(host) as asker:
        asker.sendto(HELLO, ("127.0.0.1", port))
        run.wait_line(f"refused: {words}")


@pytest.mark.parametrize("is_inline", [True, False])
def test_urgent_data_is_part_of_the_stream(start: Start, port: int, is_inline: bool) -> None:  # noqa: FBT001
    """Every byte comes back in its order; with `SO_OOBINLINE = false` the urgent one is missing."""
    keys = {} if is_inline else {"options": {"SO_OOBINLINE": False}}
    start(echo(port, **keys))
    with talking(port) as sock:
        sock.sendall(b"before")
        sock.send(b"urgent!", socket.MSG_OOB)
        sock.sendall(b"after")
        expected = b"beforeurgent!after" if is_inline else b"beforeurgentafter"
        assert read_exactly(sock, len(expected)) == expected


@pytest.mark.usefixtures("alone")
def test_the_port_of_a_proxy_is_judged(start: Start, port: int) -> None:
    """A datagram whose header names a harmless client, but that itself comes from a port of
    `refused_ports`: the answer would go there, so there is none.
    """
    run = start(echo(port, proxies=["127.0.0.1"], allow="any"))
    client, local = ("192.0.2.7", 40_000), ("127.0.0.1", port)
    question = v2(0x21, 0x12, addresses(client)) + HELLO  # of UDP over IPv4
    with datagrams("127.0.0.1", 19) as chargen, datagrams("127.0.0.1") as proxy:
        chargen.sendto(question, local)
        run.wait_line("refused: port: ")
        proxy.sendto(question, local)
        assert proxy.recv(100) == HELLO
        chargen.setblocking(False)
        with pytest.raises(BlockingIOError):
            chargen.recv(100)
