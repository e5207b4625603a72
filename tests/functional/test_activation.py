"""Sockets that somebody else made and passed on, as systemd does."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.clients import HELLO, answer, ended, refused, serves, talking
from tests.support.peers import connect, datagrams
from tests.support.run import QUICK, Run, echo, free_port, toml

Open = Callable[..., list[socket.socket]]

ALL_KINDS = ("udp6", "tcp4", "udp4", "tcp6")
"""In an order that nobody would think of."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close at the end what the test opened."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("by", ["name", "address"])
def test_passed_sockets_are_served(start: Start, port: int, stack: ExitStack, by: str) -> None:
    """Any number and order of sockets finds its listener by its name, else by its address."""
    sockets = opened(stack, port, *ALL_KINDS)
    names = ":".join(["echo"] * 4) if by == "name" else ""
    run = start("" if by == "name" else echo(port), **passing(sockets, names))
    assert serves(port)
    run.wait_line("ready: 4 sockets")
    assert len(run.lines_with("(systemd)")) == 4


def test_the_files_count_before_the_unit(start: Start, port: int, stack: ExitStack) -> None:
    """Two listeners have exchanged their ports in the socket unit: the files decide."""
    other = free_port(port + 1)
    [first] = opened(stack, port, "tcp4")
    [second] = opened(stack, other, "tcp4")
    hosts = {"host": ["127.0.0.1"], "protocols": ["tcp"]}
    listeners = {"echo": {"port": port, **hosts}, "more": {"port": other, **hosts}}
    run = start({"listener": listeners}, **passing([first, second], "more:echo"))
    assert run.wait_line(f"echo: serving echo on tcp 127.0.0.1:{port} (systemd)")
    assert run.wait_line(f"more: serving echo on tcp 127.0.0.1:{other} (systemd)")


@pytest.mark.usefixtures("alone")
def test_dual_stack_sockets_serve_both_families(start: Start, port: int, stack: ExitStack) -> None:
    """What `ListenStream=7` makes, one socket for IPv6 and IPv4, is served as it is."""
    sockets = opened(stack, port, "udpdual", "tcpdual")
    run = start(toml({"listener": {"echo": {"port": port}}}), **passing(sockets))
    assert serves(port)
    assert run.wait_line("echo: 127.0.0.1:")


def test_one_family_alone_is_served(start: Start, port: int, stack: ExitStack) -> None:
    """Where systemd passes a listener's TCP socket its UDP ones are still bound, TCP is not."""
    run = start(**passing(opened(stack, port, "tcp4")))
    assert refused(port, "::1")
    run.wait_line("ready: 3 sockets")
    assert serves(port, ["127.0.0.1"])


def test_sockets_of_another_process_are_left_alone(
    start: Start, port: int, stack: ExitStack
) -> None:
    """With the LISTEN_PID of somebody else nothing was passed: own sockets are bound."""
    other = free_port(port + 1)
    run = start(**passing(opened(stack, other, *ALL_KINDS), pid="1"))
    assert serves(port)
    run.wait_line("(bound)", 4)


def test_passed_sockets_are_prepared(start: Start, port: int, stack: ExitStack) -> None:
    """They become close-on-exec and non-blocking; others may no longer bind a UDP port as well."""
    run = start(**passing(opened(stack, port, "tcp4", "udp4"), "echo:echo"))
    for number in (3, 4):
        fdinfo = Path(f"/proc/{run.pid}/fdinfo/{number}").read_text()
        flags = int(fdinfo.partition("flags:")[2].split()[0], 8)
        assert flags & os.O_CLOEXEC
        assert flags & os.O_NONBLOCK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", port))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_waited_is_answered(start: Start, port: int, stack: ExitStack, host: str) -> None:
    """The connection and the datagram for whose sake systemd starts the daemon get an answer."""
    sockets = opened(stack, port, *ALL_KINDS)
    with connect((host, port)) as sock, datagrams(host) as sender:
        sender.connect((host, port))
        sender.send(b"first datagram")
        sock.sendall(HELLO)
        run = start(**passing(sockets), ready=False)
        assert sock.recv(100) == HELLO
        assert sender.recv(100) == b"first datagram"
    run.wait_line("closed: client")
    run.rest()
    assert serves(port)


# --- what cannot be served --------------------------------------------------------------------


def _unix(stack: ExitStack, port: int) -> socket.socket:
    return stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))


def _silent(stack: ExitStack, port: int) -> socket.socket:
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", free_port(port + 1)))
    return sock


def _lite(stack: ExitStack, port: int) -> socket.socket:
    kind = socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE
    return stack.enter_context(socket.socket(*kind))


def _pipe(stack: ExitStack, port: int) -> int:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    return reader


WRONG = {
    "AF_UNIX": (_unix, "odd (descriptor 3), which is neither IPv4 nor IPv6"),
    "does not listen": (_silent, "odd (descriptor 3), which is a TCP socket that does not listen"),
    "neither TCP nor UDP": (_lite, "odd (descriptor 3), which is neither TCP nor UDP"),
    "no socket": (_pipe, "descriptor 3 (odd), which is no socket"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_socket_is_refused(
    start: Start,
    port: int,
    stack: ExitStack,
    make: Callable[[ExitStack, int], socket.socket | int],
    words: str,
) -> None:
    """Each has its line and the status is 78; who waits in the good queues is turned away.

    systemd would otherwise start the daemon again and again for what waits there.
    """
    good = opened(stack, port, "tcp4", "udp4")
    with connect(("127.0.0.1", port)) as client, datagrams() as sender:
        sender.connect(("127.0.0.1", port))
        sender.send(HELLO)
        odd = make(stack, port)
        run = start(**passing([odd, *good, odd], "odd:echo:echo:odd"), ready=False)
        run.wait_failure(78)
        assert ended(client)
    assert run.lines[0].startswith(f"netsrvd: systemd passed {words}")
    assert [line.replace("descriptor 6", "descriptor 3") for line in run.lines[1:]] == run.lines[:1]
    assert _nothing_waits(good)


def test_a_faulty_configuration_turns_clients_away(
    start: Start, port: int, stack: ExitStack
) -> None:
    """A fault of the file, too, ends with nobody left in the queues."""
    good = opened(stack, port, *ALL_KINDS)
    with connect(("127.0.0.1", port)) as client:
        run = start("wrkers = 1", **passing(good), ready=False)
        run.wait_failure(78)
        assert ended(client)
    assert _nothing_waits(good)


FEW = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))"


def test_too_few_descriptors_turn_clients_away(start: Start, port: int, stack: ExitStack) -> None:
    """Where there are descriptors for no connection at all the start fails, with the remedy, and
    who waits for it is turned away, too.
    """
    good = opened(stack, port, *ALL_KINDS)
    with connect(("127.0.0.1", port)) as client:
        run = start(**passing(good), planted=FEW, ready=False)
        run.wait_failure(69)
        assert ended(client)
    assert "raise LimitNOFILE=" in run.lines[0]
    assert _nothing_waits(good)


def _nothing_waits(sockets: list[socket.socket]) -> bool:
    for sock in sockets:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            _ = sock.accept() if sock.type == socket.SOCK_STREAM else sock.recv(1)
    return True


@pytest.mark.parametrize(
    ("variable", "value"), [("LISTEN_FDS", "many"), ("LISTEN_FDNAMES", "one:too:many")]
)
def test_variables_that_make_no_sense_are_refused(
    start: Start, port: int, stack: ExitStack, variable: str, value: str
) -> None:
    """Faulty variables are told, not ignored: the clients of those sockets would wait for ever."""
    how = passing(opened(stack, port, "tcp4"), "echo")
    how["under"] += ["env", f"{variable}={value}"]
    how["under"][-2] = "/usr/bin/env"
    run = start(**how, ready=False)
    run.wait_failure(78)
    assert "LISTEN_FDS cannot be used" in run.lines[0]


# --- with systemd's own tool ------------------------------------------------------------------


@pytest.mark.parametrize("fdname", ["", "--fdname=echo:echo"])
def test_a_connection_starts_it(start: Start, port: int, fdname: str) -> None:
    """Under systemd-socket-activate the first TCP connection, and later ones, are answered."""
    run = _activated(start, port, fdname)
    with talking(port, "::1"), talking(port):
        run.wait_line("(systemd)", 2)
    run.wait_line("closed: client", 2)
    run.rest()


def test_a_datagram_starts_it(start: Start, port: int) -> None:
    """Under systemd-socket-activate the first datagram, and later ones, are answered."""
    run = _activated(start, port, "--datagram")
    assert answer(port, b"first datagram") == b"first datagram"
    run.wait_ready()
    assert answer(port, host="::1") == HELLO
    run.wait_line("(systemd)", 2)


def _activated(start: Start, port: int, option: str) -> Run:
    addresses = [f"--listen={host}:{port}" for host in ("127.0.0.1", "[::1]")]
    options = [*addresses, "--setenv=NOTIFY_SOCKET", *filter(None, [option])]
    run = start(under=["systemd-socket-activate", *options], ready=False)
    run.allow("Listening on ", "Communication attempt on fd ", "Execing ")
    run.wait_line("Listening on ", 2)
    return run


@pytest.mark.usefixtures("alone")
def test_another_program_with_the_same_udp_port_is_told(
    start: Start, port: int, stack: ExitStack
) -> None:
    """As systemd's sockets let any user have it: soon after the start, and after each reload."""
    [ours] = opened(stack, port, "udp4")
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    passed = passing([ours], "echo") | {"environment": QUICK}
    run = start(echo(port), **passed)
    run.wait_notice("WATCHDOG", 2)
    assert run.lines_with("another program has bound") == []
    run.end()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    theirs = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    theirs.bind(("127.0.0.1", port))
    run = start(echo(port), **passed)
    line = f"<3>echo: another program has bound udp 127.0.0.1:{port} beside 127.0.0.1:{port} "
    run.wait_line(line)
    run.reload(echo(port))
    run.wait_line(line, 2)
