"""netsrvd.sockets.bind, on sockets that are never bound; tests/integration binds them"""

import errno
import socket
from collections.abc import Callable

import pytest

from netsrvd.errors import NetsrvdError, PrivilegeError, SocketError
from netsrvd.settings import Endpoint, ListenerSettings
from netsrvd.sockets import bind
from netsrvd.sockets.bind import FamilyMissingError, ListeningSocket
from tests.support.listening import FakeSocket, failure

Make = Callable[..., FakeSocket]

LISTENER = ListenerSettings("lab", backlog=77)


def endpoint(protocol: str = "tcp", host: str = "192.0.2.1", interface: str = "") -> Endpoint:
    return Endpoint("lab", protocol, host, 7, interface)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what has the next socket fail as told."""

    def fake(**fails: OSError) -> FakeSocket:
        made = FakeSocket(fails=dict(fails))
        monkeypatch.setattr(bind, "make", lambda _: made)
        return made

    return fake


@pytest.mark.parametrize("host", ["192.0.2.1", "::1"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_step_one_makes_a_socket(protocol: str, host: str) -> None:
    """It never blocks, is for its own family alone, and may reuse its address only if it is TCP:
    on UDP that would let another user take the port.
    """
    with bind.make(endpoint(protocol, host)) as sock:
        assert sock.type == bind.TYPES[protocol]
        assert not sock.getblocking()
        reuses = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert bool(reuses) == (protocol == "tcp")
        if ":" in host:
            assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert sock.family == (socket.AF_INET6 if ":" in host else socket.AF_INET)


@pytest.mark.parametrize(
    ("protocol", "host", "level", "option"),
    [
        ("tcp", "::1", socket.IPPROTO_TCP, socket.TCP_NODELAY),
        ("udp", "192.0.2.1", socket.IPPROTO_IP, 8),
        ("udp", "::1", socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
    ],
)
def test_step_two_sets_the_options_that_fit(
    protocol: str, host: str, level: int, option: int
) -> None:
    """A TCP option is for TCP sockets; a UDP socket learns to tell the address that was asked."""
    with bind.make(endpoint(protocol, host)) as sock:
        assert bind.set_options(sock, protocol, LISTENER) == []
        assert sock.getsockopt(level, option)


def test_an_option_with_another_value_is_told() -> None:
    """What the kernel made of a value is returned, to be reported."""
    listener = ListenerSettings("lab", options={"SO_RCVBUF": 1, "SO_KEEPALIVE": True})
    with bind.make(endpoint()) as sock:
        [(name, asked, given)] = bind.set_options(sock, "tcp", listener)
    assert (name, asked) == ("SO_RCVBUF", "1")
    assert int(given) > 1


def test_an_interface_is_bound_to() -> None:
    """A listener of one interface is reached through no other."""
    sock = FakeSocket()
    bind.set_options(sock, "tcp", ListenerSettings("lab", interface="größe0"))  # type: ignore[arg-type]
    assert sock.options[socket.SOL_SOCKET, socket.SO_BINDTODEVICE] == "größe0".encode()


@pytest.mark.parametrize(
    ("protocol", "steps"),
    [("tcp", ["setsockopt", "bind", "listen 77"]), ("udp", ["setsockopt", "bind"])],
)
def test_the_four_steps_in_their_order(fake: Make, protocol: str, steps: list[str]) -> None:
    """Options are set before the socket is bound, and only TCP listens."""
    sock = fake()
    opened = bind.open_endpoint(endpoint(protocol), LISTENER)
    assert sock.steps == steps
    assert opened == ListeningSocket(sock, protocol, LISTENER, "bound")  # type: ignore[arg-type]
    assert opened.address() == ("127.0.0.1", 51423)
    assert not sock.closed


WHERE = "listener lab: tcp 192.0.2.1 port 7 "
NOT_PERMITTED = (
    "needs a privilege (TCP_NODELAY = true: Operation not permitted): run as root or leave it out"
)


IN_USE = (
    "is already in use; `ss -anp` shows by whom: stop that or set another port; for a socket of "
    "systemd's run `netsrvd apply`"
)


@pytest.mark.parametrize(
    ("fails", "kind", "text"),
    [
        (
            {"bind": failure(errno.EADDRINUSE)},
            SocketError,
            IN_USE,
        ),
        (
            {"listen": failure(errno.EADDRINUSE)},
            SocketError,
            IN_USE,
        ),
        (
            {"bind": failure(errno.EADDRNOTAVAIL)},
            SocketError,
            "is not an address of this host; `ip address` shows those it has",
        ),
        (
            {"setsockopt": failure(errno.ENODEV)},
            SocketError,
            "cannot be bound: there is no such interface; `ip link` shows those there are",
        ),
        (
            {"bind": failure(errno.EACCES)},
            PrivilegeError,
            "needs a privilege: `netsrvd apply` has systemd bind it; or set a port from 1024",
        ),
        (
            {"setsockopt": failure(errno.EPERM)},
            PrivilegeError,
            NOT_PERMITTED,
        ),
        (
            {"setsockopt": failure(errno.ENOENT)},
            SocketError,
            "cannot be opened: TCP_NODELAY = true: No such file or directory",
        ),
    ],
)
def test_a_failure_is_one_line_with_its_remedy(
    fake: Make, fails: dict[str, OSError], kind: type[NetsrvdError], text: str
) -> None:
    """Whatever step fails: the line names the listener, the address and what to do; nothing is
    left open.
    """
    sock = fake(**fails)
    with pytest.raises(kind) as caught:
        bind.open_endpoint(endpoint(), LISTENER)
    assert type(caught.value) is kind
    assert str(caught.value) == WHERE + text
    assert sock.closed


def test_a_failure_on_an_interface_names_it(fake: Make) -> None:
    """The interface belongs to the address."""
    fake(bind=failure(errno.ENODEV))
    with pytest.raises(SocketError, match="port 7 on interface eth9 cannot be bound"):
        bind.open_endpoint(endpoint(interface="eth9"), LISTENER)


def test_an_address_on_a_missing_interface_says_so() -> None:
    """The interface in a link-local address may be missing, too."""
    with pytest.raises(SocketError, match="there is no such interface"):
        bind.open_endpoint(endpoint(host="fe80::1%nosuch0"), LISTENER)


def test_a_bug_leaves_nothing_open(fake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does whatever else goes wrong."""
    sock = fake()
    monkeypatch.setattr(bind, "bind", None)
    with pytest.raises(TypeError):
        bind.open_endpoint(endpoint(), LISTENER)
    assert sock.closed


@pytest.mark.parametrize(
    ("host", "kind", "text"),
    [
        ("::", FamilyMissingError, "IPv6"),
        ("0.0.0.0", FamilyMissingError, "IPv4"),
        ("::1", SocketError, "lacks that address family"),
    ],
)
def test_a_kernel_without_a_family(
    monkeypatch: pytest.MonkeyPatch, host: str, kind: type[Exception], text: str
) -> None:
    """Where all addresses were meant the other family does; a single address cannot be had."""

    def make(_: Endpoint) -> socket.socket:
        raise failure(errno.EAFNOSUPPORT)

    monkeypatch.setattr(bind, "make", make)
    with pytest.raises(kind, match=text):
        bind.open_endpoint(endpoint(host=host), LISTENER)
