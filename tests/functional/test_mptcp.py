"""Multipath TCP: sockets of `SocketProtocol=mptcp` (systemd.socket(5)), which take TCP as well."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.functional.conftest import Start
from tests.support.activation import passing
from tests.support.clients import HELLO, leaves_in_order
from tests.support.patience import SECONDS
from tests.support.peers import echoed
from tests.support.run import LOOPBACK, Run, echo
from tests.support.unit import Unit

PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "MPTCP": socket.IPPROTO_MPTCP}


def made(host: str, protocol: int) -> socket.socket:
    """Return a socket that is not connected yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    sock.settimeout(SECONDS)
    return sock


@contextmanager
def connected(port: int, protocol: int, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Give a connection of a protocol that has been answered once."""
    with made(host, protocol) as sock:
        sock.connect((host, port))
        assert echoed(sock, HELLO)
        yield sock


@pytest.fixture
def sockets(port: int) -> Iterator[list[socket.socket]]:
    """Listening sockets as systemd opens them for `SocketProtocol=mptcp`."""
    with ExitStack() as stack:
        found = []
        for host in LOOPBACK:
            sock = stack.enter_context(made(host, socket.IPPROTO_MPTCP))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(True)
            sock.bind((host, port))
            sock.listen()
            found.append(sock)
        yield found


def tcp_only(port: int, **keys: object) -> dict[str, object]:
    """Return a configuration of echo by TCP."""
    return echo(port, protocols=["tcp"], **keys)


@pytest.fixture
def run(start: Start, port: int, sockets: list[socket.socket]) -> Run:
    """A daemon that has them."""
    return start(tcp_only(port), **passing(sockets, "echo:echo"))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_clients_of_both_protocols_are_served(run: Run, port: int, protocol: int) -> None:
    """Through IPv4 and IPv6, to the end, with their records."""
    for host in LOOPBACK:
        with connected(port, protocol, host) as sock:
            assert echoed(sock, bytes(100_000))
            assert leaves_in_order(sock)
    run.wait_line("closed: client", 2)
    run.end()
    assert len(run.lines_with("serving echo on tcp")) == 2


def test_options_that_mptcp_lacks_are_survived(
    start: Start, port: int, sockets: list[socket.socket]
) -> None:
    """A record names each, and clients are served."""
    lacking = {"TCP_THIN_LINEAR_TIMEOUTS": True, "TCP_SYNCNT": 3, "TCP_USER_TIMEOUT": 1000}
    options = {"TCP_NODELAY": True, "SO_KEEPALIVE": True, "SO_RCVBUF": 65536, **lacking}
    run = start(tcp_only(port, options=options), **passing(sockets, "echo:echo"))
    run.wait_line("was asked, the kernel gave -; going on")
    with connected(port, socket.IPPROTO_MPTCP) as sock:
        assert leaves_in_order(sock)
    run.wait_line("closed: client")


def test_a_client_that_does_not_read_is_ended(
    start: Start, port: int, sockets: list[socket.socket]
) -> None:
    """write_timeout holds for it, too."""
    run = start(tcp_only(port, write_timeout=0.3), **passing(sockets, "echo:echo"))
    with connected(port, socket.IPPROTO_MPTCP) as sock:
        sock.setblocking(False)

        def is_ended() -> bool:
            with suppress(BlockingIOError):
                while sock.send(bytes(65536)):
                    pass
            return bool(run.lines_with("closed: write"))

        with suppress(ConnectionError):
            run.wait(is_ended, "end by write_timeout")
        run.wait_line("closed: write")


def test_a_restart_hands_its_connections_over(
    start: Start, port: int, sockets: list[socket.socket]
) -> None:
    """Those of both protocols go on in the next process."""
    unit = Unit(start, port, sockets)
    first = unit.start(configuration=tcp_only(port))
    with connected(port, socket.IPPROTO_MPTCP) as one, connected(port, socket.IPPROTO_TCP) as other:
        second = unit.restart(first, configuration=tcp_only(port))
        assert echoed(one, bytes(10_000))
        assert echoed(other)
        assert leaves_in_order(one)
    second.wait_line("closed: client", 2)
    second.rest()
    second.wait_line("2 connections restored, 0 lost")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_inetd_may_pass_it(
    start: Start, port: int, sockets: list[socket.socket], protocol: int
) -> None:
    """A connection that such a socket has accepted is served by `run --inetd`."""
    with made("127.0.0.1", protocol) as client:
        client.connect(("127.0.0.1", port))
        accepted, _ = sockets[0].accept()
        become = "import os, sys; os.dup2(int(sys.argv[1]), 0); os.execv(sys.argv[2], sys.argv[2:])"
        command = [sys.executable, "-IS", "-c", become, str(accepted.fileno())]
        run = start(
            tcp_only(port),
            *["--inetd", "--log", "stderr"],
            under=command,
            pass_fds=[accepted.fileno()],
            ready=False,
        )
        accepted.close()
        assert echoed(client, HELLO)
        assert leaves_in_order(client)
    run.wait_line("closed: client")
    run.wait_end()
