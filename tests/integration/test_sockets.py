"""netsrvd.sockets.bind with the real kernel; through startup where several sockets go together."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netsrvd import startup
from netsrvd.errors import SocketError
from netsrvd.events.sockets import FamilyMissing, Listening, OptionAdjusted
from netsrvd.settings import EVERYWHERE, Endpoint, Settings
from netsrvd.sockets import bind
from tests.integration.conftest import Network, open_descriptors
from tests.support.namespaces import namespace
from tests.support.patience import eventually
from tests.support.peers import connect, echoed
from tests.support.planned import configuration
from tests.support.run import free_port
from tests.support.serving import Serving, listener, opened
from tests.support.strangers import TAKE_UDP_PORT, as_nobody

FAMILIES = pytest.mark.parametrize("host", EVERYWHERE, ids=("IPv4", "IPv6"))
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}

OPEN_ONE = """
    import sys
    from netsrvd.errors import NetsrvdError
    from netsrvd.settings import Endpoint, ListenerSettings
    from netsrvd.sockets import bind
    protocol, host, port, options = sys.argv[1:]
    settings = ListenerSettings("echo", options=eval(options))
    try:
        opened = bind.open_endpoint(Endpoint("echo", protocol, host, int(port)), settings)
    except NetsrvdError as error:
        print(type(error).__name__, error.exit_status, error)
    else:
        opened.sock.close()
        print("opened")
"""


@pytest.fixture
def taken() -> Iterator[dict[str, int]]:
    """A port of each protocol that somebody else has."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("127.0.0.1", 0))
        yield {"tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1]}


def settings_of(**changes: Any) -> Settings:
    """Return the settings of one listener, on ports that the kernel chooses."""
    return Settings(listeners=(listener(**changes),))


def close_all(sockets: startup.Sockets) -> None:
    for all_of in sockets.values():
        for one in all_of:
            one.sock.close()


def test_four_steps_make_a_listening_socket() -> None:
    """Make, set options, bind, listen: after each step the socket is one step nearer to serving."""
    endpoint, settings = Endpoint("echo", "tcp", "127.0.0.1"), listener(backlog=7)
    with bind.make(endpoint) as sock:
        assert not sock.getblocking()
        assert not os.get_inheritable(sock.fileno())
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert bind.set_options(sock, "tcp", settings) == []
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        bind.bind(sock, endpoint)
        assert sock.getsockname()[1] > 0
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        bind.listen(sock, settings.backlog)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


@FAMILIES
def test_a_restart_binds_at_once_with_connections_in_time_wait(host: str) -> None:
    """With a connection in TIME_WAIT a new socket has the port at once, which needs
    SO_REUSEADDR: one without cannot have it.
    """
    first = opened("tcp", listener(), host)
    address = (host, first.getsockname()[1])
    first.setblocking(True)
    with connect((LOOPBACK[host], address[1])):
        accepted, _ = first.accept()
        accepted.close()  # who closes first has TIME_WAIT
    first.close()
    eventually(lambda: address[1] in time_wait_ports(), "TIME_WAIT")
    with socket.socket(first.family) as plain, pytest.raises(OSError, match="in use"):
        plain.bind(address)
    opened("tcp", listener(port=address[1]), host).close()


def time_wait_ports() -> list[int]:
    """Return the local ports of connections in TIME_WAIT (state 06 in /proc/net/tcp)."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]
    ]
    return [int(fields[1].rpartition(":")[2], 16) for fields in lines if fields[3] == "06"]


@FAMILIES
def test_nobody_else_can_take_a_udp_port(host: str) -> None:
    """An own UDP socket is without SO_REUSEADDR, so that another user cannot bind its port, be it
    on all addresses or on one.
    """
    with opened("udp", listener(), host) as sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        for address in (host, LOOPBACK[host]):
            asked = (TAKE_UDP_PORT, address, sock.getsockname()[1])
            assert as_nobody(*asked) == "EADDRINUSE"


def test_both_families_have_the_same_port() -> None:
    """A listener without a host is four sockets, IPv4 and IPv6, TCP and UDP, on one port."""
    port = free_port()
    sockets, notes = startup.open_sockets(configuration(settings_of(port=port)), [])
    try:
        found = {(end.protocol, one.address()) for end, [one] in sockets.items()}
        assert found == {(name, (host, port)) for name in ("tcp", "udp") for host in EVERYWHERE}
        assert [type(note) for note in notes] == [Listening] * 4
    finally:
        close_all(sockets)


def without_ipv6(endpoint: Endpoint) -> socket.socket:
    """Stand in for `bind.make` on a kernel that was started with ipv6.disable=1."""
    if ":" in endpoint.host:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    return MAKE(endpoint)


MAKE = bind.make


def test_a_kernel_without_ipv6_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPv6 sockets cannot be made, all addresses are the IPv4 ones, and a record says so."""
    monkeypatch.setattr(bind, "make", without_ipv6)
    sockets, notes = startup.open_sockets(configuration(settings_of()), [])
    try:
        assert {end.host for end in sockets} == {"0.0.0.0"}
        missing = [note for note in notes if isinstance(note, FamilyMissing)]
        assert [(note.protocol, note.family) for note in missing] == [
            ("tcp", "IPv6"),
            ("udp", "IPv6"),
        ]
    finally:
        close_all(sockets)


def test_an_ipv6_address_without_ipv6_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one IPv6 address on a kernel without IPv6 cannot have it."""
    monkeypatch.setattr(bind, "make", without_ipv6)
    for host in ("::1", "::"):
        with pytest.raises(SocketError, match=f"{host} port 0 cannot be had: this kernel lacks"):
            startup.open_sockets(configuration(settings_of(hosts=("127.0.0.1", host))), [])


def test_ipv6_switched_off_does_no_harm(serving: Serving) -> None:
    """Where IPv6 is switched off by sysctl all sockets open, and IPv4 is served."""
    with namespace() as space:
        space.sysctl("net/ipv6/conf/all/disable_ipv6", 1)
        with space.entered():
            sockets, notes = startup.open_sockets(configuration(settings_of()), [])
            assert {type(note) for note in notes} == {Listening}
            address = ("127.0.0.1", sockets[Endpoint("echo", "tcp", "0.0.0.0")][0].address()[1])
            tcp = sockets.pop(Endpoint("echo", "tcp", "0.0.0.0"))[0].sock
            close_all(sockets)
            serving.tcp(tcp)
            with connect(address) as client:
                assert echoed(client)


def test_an_option_that_the_kernel_changes_is_told() -> None:
    """What was asked and what the kernel gave stand in a record; a value it took needs none."""
    largest = Path("/proc/sys/net/core/rmem_max").read_text(encoding="ascii").strip()
    asked = {"SO_RCVBUF": 1 << 30, "SO_KEEPALIVE": True, "TCP_KEEPIDLE": 77}
    settings = settings_of(options=asked, hosts=("127.0.0.1",))
    sockets, notes = startup.open_sockets(configuration(settings), [])
    close_all(sockets)
    assert [note for note in notes if isinstance(note, OptionAdjusted)] == [
        OptionAdjusted("echo", protocol, "SO_RCVBUF", str(1 << 30), largest)
        for protocol in ("tcp", "udp")
    ]


def test_connections_inherit_the_options(serving: Serving) -> None:
    """An option of the listener is an option of every connection that it accepts."""
    tcp = serving.tcp(options={"SO_KEEPALIVE": True, "TCP_KEEPIDLE": 77})
    with connect(tcp.local) as client:
        assert echoed(client)
        [live] = serving.connections()
        assert live.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert live.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "in use": ({}, "127.0.0.1 port {port} is already in use; `ss -anp` shows by whom"),
    "not available": ({"hosts": ("192.0.2.1",)}, "192.0.2.1 port {port} is not an address of this"),
    "interface": ({"interface": "none0"}, "on interface none0 cannot be bound: there is no such"),
    "scope": (
        {"hosts": ("fe80::1%none0",)},
        "%none0 port {port} cannot be bound: there is no such",
    ),
    "option": ({"options": {"IP_TTL": 300}}, "cannot be opened: IP_TTL = 300: Invalid argument"),
}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing_open(
    protocol: str, fault: str, taken: dict[str, int]
) -> None:
    """Whatever keeps one socket from opening is told in one line with the place and the reason,
    ends with status 69, and closes those that were open already.
    """
    changes, words = FAULTS[fault]
    port = taken[protocol]
    faulty = listener(**{"hosts": ("127.0.0.1",), "port": port, "protocols": (protocol,)} | changes)
    good = listener(name="good", hosts=("127.0.0.1",))
    before = open_descriptors()
    with pytest.raises(SocketError) as caught:
        startup.open_sockets(configuration(Settings(listeners=(good, faulty))), [])
    assert words.format(port=port) in str(caught.value)
    assert str(caught.value).startswith(f"listener echo: {protocol} ")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_status == os.EX_UNAVAILABLE
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("options", "host", "port", "words"),
    [
        ({}, "127.0.0.1", 7, "needs a privilege: `netsrvd apply` has systemd bind it; or set a"),
        ({}, "::1", 7, "needs a privilege: `netsrvd apply` has systemd bind it; or set a port"),
        ({"SO_MARK": 3}, "127.0.0.1", 5000, "(SO_MARK = 3: Operation not permitted)"),
    ],
    ids=["low IPv4 port", "low IPv6 port", "option"],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_missing_privilege_is_one_line(
    protocol: str, options: dict[str, object], host: str, port: int, words: str
) -> None:
    """Without privileges a low port, or an option that needs one, is one line and status 77."""
    with namespace() as space, space.entered():
        said = as_nobody(OPEN_ONE, protocol, host, port, options)
    assert said.startswith(f"PrivilegeError {os.EX_NOPERM} listener echo: {protocol} {host} port")
    assert words in said
    assert len(said.splitlines()) == 1


def test_an_interface_is_the_only_way_in(network: Network, serving: Serving) -> None:
    """A listener with an interface is reached through that one, and refused through others."""
    with network.server.entered():
        tcp = serving.tcp(host="0.0.0.0", interface="s0")
        udp = serving.udp(host="0.0.0.0", interface="s0")
    with network.client.entered(), connect(("10.9.0.1", tcp.local[1])) as client:
        assert echoed(client)
        with pytest.raises(ConnectionRefusedError):
            connect(("10.9.1.1", tcp.local[1]))
    for number, reached in ((0, True), (1, False)):
        with network.asker(f"10.9.{number}.9") as asker:
            asker.connect((f"10.9.{number}.1", udp.local[1]))
            asker.send(b"who is there?")
            if reached:
                assert asker.recv(100) == b"who is there?"
            else:
                with pytest.raises(ConnectionRefusedError):
                    asker.recv(100)


def test_an_interface_needs_no_privilege() -> None:
    """Linux lets anybody bind a fresh socket to an interface (since 5.7)."""
    script = OPEN_ONE.replace('"echo", options', '"echo", interface="lo", options')
    with namespace() as space, space.entered():
        assert as_nobody(script, "tcp", "127.0.0.1", 5000, {}) == "opened"
