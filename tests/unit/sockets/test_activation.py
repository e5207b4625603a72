"""netsrvd.sockets.activation, on sockets of its own making."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netsrvd.errors import ActivationError
from netsrvd.settings import ListenerSettings
from netsrvd.sockets import activation
from netsrvd.sockets.activation import ActivatedSocket
from systemd import daemon
from tests.support.listening import FakeSocket, failure

ECHO = ListenerSettings("echo", port=7)
LAB = ListenerSettings("lab", port=7007, hosts=("192.0.2.9", "::1"), protocols=("tcp",))
BOTH = (ECHO, LAB)

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def passed(name: str = "", kind: int = TCP, host: str = "0.0.0.0", **given: Any) -> ActivatedSocket:
    """Return a socket as systemd passes it."""
    family = given.pop("family", socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = given.pop("port", 7)
    return ActivatedSocket(FakeSocket(family, kind, address=(host, port), **given), name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "listener"),
    [
        (passed("lab", port=1), "lab"),
        (passed("echo", port=7007, host="::1"), "echo"),
        (passed("netsrvd.socket"), "echo"),
        (passed("", kind=UDP, host="::"), "echo"),
        (passed("lab", kind=UDP), "echo"),
        (passed(port=7007, host="::1"), "lab"),
        (passed(port=7007, host="::ffff:192.0.2.9"), "lab"),
    ],
)
def test_a_socket_finds_its_listener(one: ActivatedSocket, listener: str) -> None:
    """The name counts first, then the address and port; the listener must want the protocol."""
    [opened] = activation.adopt([one], BOTH, {})
    assert (opened.listener.name, opened.origin) == (listener, "systemd")
    assert opened.sock is one.sock


def test_any_number_and_order() -> None:
    """Sockets of both protocols and families come in any order, several for one listener."""
    order = [passed(kind=UDP), passed("lab"), passed(host="::"), passed(kind=UDP, host="::")]
    found = [(each.protocol, each.listener.name) for each in activation.adopt(order, BOTH, {})]
    assert found == [("udp", "echo"), ("tcp", "lab"), ("tcp", "echo"), ("udp", "echo")]


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_a_passed_socket_is_prepared(kind: int) -> None:
    """It is made non-blocking and gets the listener's options; on UDP, SO_REUSEADDR is cleared,
    because while it stands any user may take the port.
    """
    one = passed(kind=kind)
    sock: Any = one.sock
    sock.options[socket.SOL_SOCKET, socket.SO_REUSEADDR] = 1
    activation.adopt([one], (ECHO._replace(options={"SO_KEEPALIVE": True}),), {})
    assert not sock.blocking
    assert sock.options[socket.SOL_SOCKET, socket.SO_REUSEADDR] == (kind == TCP)
    assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE) in sock.options


@pytest.mark.parametrize(
    ("one", "fault"),
    [
        (passed("x", family=socket.AF_UNIX), "is neither IPv4 nor IPv6"),
        (passed("x", kind=socket.SOCK_RAW), "is neither TCP nor UDP"),
        (passed("x", kind=UDP, proto=socket.IPPROTO_UDPLITE), "is neither TCP nor UDP"),
        (
            passed("x", listens=False),
            "is a TCP socket that does not listen; the socket unit needs Accept=no",
        ),
    ],
)
def test_wrong_kinds_are_refused(one: ActivatedSocket, fault: str) -> None:
    """What cannot be served is refused loudly, with the name that the socket unit gave it."""
    with pytest.raises(ActivationError) as caught:
        activation.adopt([one], BOTH, {})
    assert str(caught.value) == f"systemd passed x (descriptor 99999), which {fault}"


def test_all_faults_come_in_one_go() -> None:
    """A line for each socket that does not fit."""
    with pytest.raises(ActivationError) as caught:
        activation.adopt([passed(kind=socket.SOCK_RAW), passed(), passed(listens=False)], BOTH, {})
    assert len(str(caught.value).splitlines()) == 2


def test_an_option_that_cannot_be_set_is_told() -> None:
    """The message names listener and socket, and where the option can be set instead."""
    fails: dict[int | str, OSError] = {socket.SO_KEEPALIVE: failure(errno.EPERM)}
    keeping = ECHO._replace(options={"SO_KEEPALIVE": True})
    with pytest.raises(ActivationError, match=r"^listener echo: an option cannot be set on tcp"):
        activation.adopt([passed(fails=fails)], (keeping,), {})


def test_an_interface_that_cannot_be_had_is_not_served() -> None:
    """The socket would serve every interface, so it serves none, and its problem says why."""
    fails: dict[int | str, OSError] = {socket.SO_BINDTODEVICE: failure(errno.ENODEV)}
    bound = ECHO._replace(interface="eth9", options={})  # TCP_NOTSENT_LOWAT has the same number
    [opened] = activation.adopt([passed(fails=fails)], (bound,), {})
    assert not opened.serves
    assert opened.problem == "tcp 0.0.0.0:7 cannot be bound to interface eth9: No such device"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair(socket.AF_UNIX, UDP)
    with one, two:
        yield one, two


def test_what_waits_is_taken_before_a_failed_start(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """Otherwise systemd would start the service again for the same datagram, and again."""
    copy = pair[1].dup()
    for _ in range(3):
        pair[0].send(b"x")
    activation.drain_and_close([ActivatedSocket(pair[1], "echo")])
    assert pair[1].fileno() == -1
    copy.setblocking(False)
    with copy, pytest.raises(BlockingIOError):
        copy.recv(1)


def test_connections_that_wait_are_closed_before_a_failed_start(tmp_path: Path) -> None:
    """The client sees an end instead of a server that never comes."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, TCP) as client:
        listener = socket.socket(socket.AF_UNIX, TCP)
        listener.bind(path)
        listener.listen()
        client.connect(path)
        activation.drain_and_close([ActivatedSocket(listener, "echo")])
        assert client.recv(1) == b""
    assert listener.fileno() == -1


def pass_on(monkeypatch: pytest.MonkeyPatch, names: dict[int, str] | Exception) -> None:
    """Have systemd's library find these descriptors, or fail."""

    def listen_fds_with_names(*, unset_environment: bool) -> dict[int, str]:
        assert unset_environment
        if isinstance(names, Exception):
            raise names
        return names

    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setattr(daemon, "listen_fds_with_names", listen_fds_with_names)


def test_without_systemd_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no sockets."""
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert activation.passed() == ([], [])


def test_sockets_come_with_their_names(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Descriptors become sockets, in their order, each with its FileDescriptorName; those that come
    from the descriptor store stay what they are.
    """
    one, two = sorted(each.detach() for each in pair)
    pass_on(monkeypatch, {two: "two", 10_000: "handover/state", one: "one"})
    found, stored = activation.passed()
    assert stored == [(10_000, "handover/state")]
    assert [(each.sock.fileno(), each.name) for each in found] == [(one, "one"), (two, "two")]
    for each in found:
        each.sock.close()


def test_what_is_no_socket_is_refused(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A descriptor of another kind is an error that names it; the sockets beside it are closed."""
    reader, writer = os.pipe()
    descriptor = pair[0].detach()
    pass_on(monkeypatch, {reader: "pipe", descriptor: "echo", writer: "other"})
    with pytest.raises(ActivationError) as caught:
        activation.passed()
    assert str(caught.value).splitlines() == [
        f"systemd passed descriptor {reader} (pipe), which is no socket",
        f"systemd passed descriptor {writer} (other), which is no socket",
    ]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    os.close(reader)
    os.close(writer)


def test_names_that_are_not_printable_are_escaped(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    """systemd gives no such names; of whoever does, nothing commands the terminal."""
    descriptor = pair[0].detach()
    reader, writer = os.pipe()
    pass_on(monkeypatch, {descriptor: "\x1b[31m"})
    [found], _ = activation.passed()
    assert found.name == r"'\x1b[31m'"
    found.sock.close()
    pass_on(monkeypatch, {reader: "\n"})
    with pytest.raises(ActivationError) as caught:
        activation.passed()
    assert r"('\n')" in str(caught.value)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    "error", [failure(errno.EINVAL), SystemError("returned a result with an exception set")]
)
def test_variables_that_make_no_sense_are_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An error of the library is one for people, also what it raises for names not in UTF-8."""
    pass_on(monkeypatch, error)
    with pytest.raises(ActivationError, match=r"^LISTEN_FDS cannot be used: "):
        activation.passed()
