"""netsrvd.sockets.activation with real sockets, made as systemd makes them."""

import itertools
import os
import socket
from contextlib import ExitStack

import pytest

from netsrvd import startup
from netsrvd.errors import ActivationError
from netsrvd.settings import Endpoint, Settings
from netsrvd.sockets import activation
from netsrvd.sockets.activation import ActivatedSocket
from tests.support.inherited import as_systemd, by_descriptor
from tests.support.namespaces import namespace
from tests.support.patience import wait_readable
from tests.support.peers import connect, datagrams, echoed, nothing_more
from tests.support.planned import configuration
from tests.support.serving import Serving, listener
from tests.support.strangers import TAKE_UDP_PORT, as_nobody

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

KINDS = {
    "tcp4": (STREAM, "127.0.0.1"),
    "tcp6": (STREAM, "::1"),
    "tcp dual": (STREAM, "::"),
    "udp4": (DATAGRAM, "127.0.0.1"),
    "udp6": (DATAGRAM, "::1"),
    "udp dual": (DATAGRAM, "::"),
}


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_every_order_is_matched_by_name(stack: ExitStack) -> None:
    """TCP and UDP, IPv4, IPv6 and dual-stack go, in whatever order, to the listener whose name
    they carry.
    """
    listeners = (listener(name="one"), listener(name="two"))
    sockets = [
        ActivatedSocket(stack.enter_context(as_systemd(*kind)), ("one", "two")[number % 2])
        for number, kind in enumerate(KINDS.values())
    ]
    for order in itertools.permutations(sockets):
        opened = activation.adopt(list(order), listeners, {})
        assert [(one.sock, one.listener.name) for one in opened] == [
            (one.sock, one.name) for one in order
        ]
        assert {one.origin for one in opened} == {"systemd"}


def test_sockets_without_a_listeners_name_are_matched_by_address(stack: ExitStack) -> None:
    """A name that is no listener's does not count: the listener with the port, and the address if
    it has any, is the one.
    """
    sockets = {name: stack.enter_context(as_systemd(*kind)) for name, kind in KINDS.items()}
    listeners = tuple(
        listener(
            name=name,
            protocols=(name[:3],),  # the kernel may give a port twice, by TCP and by UDP
            port=port_of(sock),
            hosts=() if "dual" in name else (KINDS[name][1],),
        )
        for name, sock in sockets.items()
    )
    passed = [ActivatedSocket(sock, "netsrvd.socket") for sock in sockets.values()]
    opened = activation.adopt(passed, tuple(reversed(listeners)), {})
    assert [one.listener.name for one in opened] == list(sockets)


@pytest.mark.parametrize("number", [29, 35], ids=["SO_TIMESTAMP", "SO_TIMESTAMPNS"])
def test_timestamps_of_a_unit_harm_nobody(serving: Serving, number: int) -> None:
    """With `Timestamping=` each datagram would come with one, in the place of whom it asked."""
    sock = as_systemd(DATAGRAM, "127.0.0.1")
    sock.setsockopt(socket.SOL_SOCKET, number, 1)
    [opened] = activation.adopt([ActivatedSocket(sock, "echo")], (listener(),), {})
    udp = serving.udp(opened.sock)
    with datagrams() as asker:
        asker.sendto(b"hello", udp.local)
        assert asker.recvfrom(10) == (b"hello", udp.local)


def test_a_mapped_address_is_the_ipv4_address(stack: ExitStack) -> None:
    """An IPv6 socket on ::ffff:127.0.0.1 is for the listener on 127.0.0.1."""
    sock = stack.enter_context(as_systemd(STREAM, "::ffff:127.0.0.1"))
    wanted = listener(port=port_of(sock), hosts=("127.0.0.1",))
    [opened] = activation.adopt([ActivatedSocket(sock, "")], (wanted,), {})
    assert opened.listener is wanted


def test_names_count_before_addresses(stack: ExitStack) -> None:
    """A socket with a listener's name is for that one, though another one has its port."""
    sock = stack.enter_context(as_systemd(STREAM))
    listeners = (listener(name="port", port=port_of(sock)), listener(name="name", port=9))
    [opened] = activation.adopt([ActivatedSocket(sock, "name")], listeners, {})
    assert opened.listener.name == "name"


def test_all_wrong_kinds_are_refused_at_once(stack: ExitStack) -> None:
    """Each socket that cannot be served has its line, with its name and what is wrong with it."""
    served = as_systemd(STREAM)
    unix, silent = socket.socket(socket.AF_UNIX), by_descriptor(socket.socket(socket.AF_INET))
    packets = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    lite = socket.socket(socket.AF_INET, DATAGRAM, socket.IPPROTO_UDPLITE)
    expected = [
        (served, "echo", ""),
        (unix, "unix", "which is neither IPv4 nor IPv6"),
        (silent, "echo", "which is a TCP socket that does not listen; the socket unit needs"),
        (packets, "raw", "which is neither TCP nor UDP"),
        (lite, "lite", "which is neither TCP nor UDP"),
    ]
    for sock, _, _ in expected:
        stack.enter_context(sock)
    with pytest.raises(ActivationError) as caught:
        activation.adopt(
            [ActivatedSocket(sock, name) for sock, name, _ in expected], (listener(),), {}
        )
    assert caught.value.exit_status == os.EX_CONFIG
    lines = str(caught.value).splitlines()
    wrong = expected[1:]
    assert len(lines) == len(wrong)
    for line, (sock, name, words) in zip(lines, wrong, strict=True):
        what = f"{name or 'an unnamed socket'} (descriptor {sock.fileno()})"
        assert line.startswith(f"systemd passed {what}, ")
        assert words in line


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_was_blocking_never_blocks(kind: tuple[int, str], stack: ExitStack) -> None:
    """An adopted socket is non-blocking, also for those who share its open file."""
    sock = stack.enter_context(as_systemd(*kind))
    shared = stack.enter_context(sock.dup())
    assert os.get_blocking(shared.fileno())
    activation.adopt([ActivatedSocket(sock, "echo")], (listener(),), {})
    assert not os.get_blocking(shared.fileno())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_nobody_else_can_take_an_adopted_udp_port(host: str, stack: ExitStack) -> None:
    """Another user can bind a UDP port that systemd made, until it is adopted."""
    sock = stack.enter_context(as_systemd(DATAGRAM, host))
    assert as_nobody(TAKE_UDP_PORT, host, port_of(sock)) == "bound"
    activation.adopt([ActivatedSocket(sock, "echo")], (listener(),), {})
    assert as_nobody(TAKE_UDP_PORT, host, port_of(sock)) == "EADDRINUSE"
    if host == "::":
        assert as_nobody(TAKE_UDP_PORT, "127.0.0.1", port_of(sock)) == "EADDRINUSE"


def test_what_was_passed_is_not_bound_besides(stack: ExitStack) -> None:
    """The protocol that systemd passed a socket for has that one alone; the other one is bound."""
    tcp = stack.enter_context(as_systemd(STREAM, "::"))
    settings = Settings(listeners=(listener(port=port_of(tcp)),))
    sockets, _ = startup.open_sockets(configuration(settings), [ActivatedSocket(tcp, "echo")])
    for opened in itertools.chain.from_iterable(sockets.values()):
        stack.enter_context(opened.sock)
    assert [one.sock for one in sockets[Endpoint("echo", "tcp")]] == [tcp]
    assert [end.host for end in sockets if end.protocol == "udp"] == ["0.0.0.0", "::"]


def test_adopted_sockets_serve(serving: Serving, stack: ExitStack) -> None:
    """Echo comes from every kind of socket that was adopted, by IPv4 and by IPv6."""
    for kind, host in KINDS.values():
        [opened] = activation.adopt(
            [ActivatedSocket(as_systemd(kind, host), "echo")], (listener(),), {}
        )
        served = (serving.tcp if kind == STREAM else serving.udp)(opened.sock)
        for client_host in ("127.0.0.1", "::1") if host == "::" else (host,):
            address = (client_host, served.local[1])
            if kind == STREAM:
                assert echoed(stack.enter_context(connect(address)))
            else:
                client = stack.enter_context(datagrams(client_host))
                client.sendto(b"hello", address)
                assert client.recvfrom(100)[1][:2] == address


def test_an_option_that_cannot_be_set_is_told(stack: ExitStack) -> None:
    """An option that the kernel refuses on an adopted socket is an error with its name."""
    sock = stack.enter_context(as_systemd(STREAM))
    with pytest.raises(ActivationError, match="IP_TTL = 300: Invalid argument; set it in the"):
        activation.adopt([ActivatedSocket(sock, "echo")], (listener(options={"IP_TTL": 300}),), {})


def test_turn_away_empties_the_queues(stack: ExitStack) -> None:
    """After a start that failed nothing waits on the sockets that would start the next one."""
    with namespace() as space, space.entered():
        tcp, udp = as_systemd(STREAM, "::"), as_systemd(DATAGRAM, "::")
        kept_by_systemd = [stack.enter_context(sock.dup()) for sock in (tcp, udp)]
        clients = [
            stack.enter_context(connect((host, port_of(tcp)))) for host in ("127.0.0.1", "::1") * 20
        ]
        asker = stack.enter_context(datagrams())
        for payload in (b"", b"x", b"y" * 9000) * 10:
            asker.sendto(payload, ("127.0.0.1", port_of(udp)))
        for sock in kept_by_systemd:
            wait_readable(sock.fileno(), "what waits")
        activation.drain_and_close([ActivatedSocket(tcp, "echo"), ActivatedSocket(udp, "echo")])
    assert tcp.fileno() == udp.fileno() == -1
    with pytest.raises(BlockingIOError):
        kept_by_systemd[0].accept()
    assert nothing_more(kept_by_systemd[1])
    assert all(client.recv(1) == b"" for client in clients)
