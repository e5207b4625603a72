"""A restart without a socket unit: the daemon's own listening sockets go to the next process."""

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from netsrvd.sockets.activation import STORED_SOCKET
from netsrvd.systemd.execution import is_pending
from tests.functional.conftest import Start
from tests.support.clients import HELLO, is_served, serves, talking
from tests.support.patience import eventually
from tests.support.peers import connect, datagrams, echoed, read_exactly
from tests.support.run import Run, echo, free_port
from tests.support.strangers import TAKE_TCP_PORT, TAKE_UDP_PORT, as_nobody
from tests.support.unit import Unit, follow, forgotten


@pytest.fixture
def unit(start: Start, port: int) -> Unit:
    return Unit(start, port, [])


def kept(run: Run) -> list[str]:
    """Return the names of the sockets that a run has left in the store."""
    return [name for _, name in run.store if name.startswith(STORED_SOCKET)]


def sockets(run: Run) -> set[str]:
    """Return the IP sockets that a run has, by their inodes."""
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        rows = Path(f"/proc/{run.pid}/net/{table}").read_text().splitlines()[1:]
        found |= {f"socket:[{row.split()[9]}]" for row in rows}
    return found & set(run.links())


def test_what_comes_between_two_processes_waits(unit: Unit, port: int) -> None:
    """A new client is not refused and a datagram is not lost; the next process answers both, and
    the same again after a reload in between.
    """
    run = unit.start()
    for _ in range(2):
        with talking(port) as live:
            run.reload(echo(port))
            follow(run)
            assert len(kept(run)) == 4
            with connect(("127.0.0.1", port)) as new, datagrams("127.0.0.1") as asks:
                new.sendall(HELLO)
                asks.sendto(HELLO, ("127.0.0.1", port))
                run = unit.succeed(run)
                assert read_exactly(new, len(HELLO)) == HELLO
                assert asks.recv(100) == HELLO
                assert echoed(live)
        run.wait_line("closed: client", 2)
        run.rest()
    assert serves(port)


def test_what_systemd_is_to_bind_is_not_kept(unit: Unit, port: int) -> None:
    """After SIGWINCH the daemon's own sockets are closed at the restart; its connections go on."""
    run = unit.start()
    with talking(port) as live:
        run.send(signal.SIGWINCH)
        eventually(lambda: not is_pending(run.pid, signal.SIGWINCH), "the signal is taken")
        follow(run)
        assert kept(run) == []
        run = unit.succeed(run)
        assert echoed(live)
    run.wait_line("closed: client")
    run.rest()


def test_nobody_can_take_the_ports_in_between(unit: Unit, port: int) -> None:
    """Neither UDP nor TCP, with SO_REUSEADDR or without."""
    run = unit.start()
    follow(run)
    for script in (TAKE_UDP_PORT, TAKE_TCP_PORT):
        assert as_nobody(script, "127.0.0.1", port) == "EADDRINUSE"
    successor = unit.succeed(run)
    assert serves(port)
    for script in (TAKE_UDP_PORT, TAKE_TCP_PORT):
        assert as_nobody(script, "127.0.0.1", port) == "EADDRINUSE"
    successor.rest()


def test_what_is_no_longer_wanted_is_closed(unit: Unit, port: int) -> None:
    """Its port is free when the next process serves; what overlaps it can be bound."""
    other = free_port(port + 1)
    run = unit.start(configuration={"listener": {"echo": {"port": port}}})
    follow(run)
    assert len(kept(run)) == 4
    listeners = {"echo": {"host": "127.0.0.1", "port": port}, "more": {"port": other}}
    successor = unit.succeed(run, {"listener": listeners})
    assert serves(port, ["127.0.0.1"])
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as free:
        free.bind(("::1", port))
    assert serves(other)
    successor.rest()


CHANGES = {
    "backlog": ({"backlog": 7}, {"backlog": 8}, True),
    "the name of the listener": ({}, {}, True),
    "an option more": ({}, {"options": {"SO_RCVBUF": 9000}}, False),
    "an option less": ({"options": {"SO_RCVBUF": 9000}}, {}, False),
    "another value": ({"options": {"SO_RCVBUF": 9000}}, {"options": {"SO_RCVBUF": 9999}}, False),
}


@pytest.mark.parametrize(("before", "after", "goes_on"), CHANGES.values(), ids=[*CHANGES])
def test_a_restart_puts_options_into_force(
    unit: Unit, port: int, before: dict[str, object], after: dict[str, object], *, goes_on: bool
) -> None:
    """A socket goes on as long as it would be opened with the same options."""

    run = unit.start(configuration=echo(port, **before))
    own = sockets(run)
    follow(run)
    listener = {"host": ["127.0.0.1", "::1"], "port": port, **after}
    listeners = {"renamed": listener, "echo": {"enabled": False}}
    successor = unit.succeed(run, {"listener": listeners})
    assert len(own & sockets(successor)) == (4 if goes_on else 0)
    assert serves(port)


def test_a_reload_before_the_restart_does_not_pass_as_the_options(unit: Unit, port: int) -> None:
    """The socket was opened with the old ones, whatever the configuration says since."""
    changed = echo(port, options={"SO_RCVBUF": 9000})
    run = unit.start()
    run.reload(changed)
    run.wait_line("listener.echo.options")
    before = sockets(run)
    follow(run)
    successor = unit.succeed(run, changed)
    assert (len(before), before & sockets(successor)) == (4, set())
    assert serves(port)


def test_a_store_that_is_too_small_takes_sockets_first(unit: Unit, port: int) -> None:
    """Four sockets and the states leave room for one connection; the other one is drained."""
    unit.room = 6
    configuration = {"drain_timeout": 0.1, **echo(port)}
    run = unit.start(configuration=configuration)
    with talking(port) as one, talking(port) as other:
        follow(run)
        assert len(run.store) == 6
        run.wait_line("1 connections are not handed over: ")
        successor = unit.succeed(run, configuration)
        served = [sock for sock in (one, other) if is_served(sock)]
        assert len(served) == 1
    successor.wait_line("closed: client")
    successor.rest()


@pytest.mark.parametrize("room", [0, 3])
def test_what_does_not_fit_is_bound_again(unit: Unit, port: int, room: int) -> None:
    """Without a store, or with a smaller one than there are sockets."""
    unit.room = room
    run = unit.start()
    follow(run)
    assert len(run.store) == room
    assert serves(unit.succeed(run).port)


def test_a_systemd_that_does_not_answer_costs_nothing(unit: Unit, port: int) -> None:
    """The daemon ends in order; the next process takes what has come into the store."""
    run = unit.start(
        planted="""
import errno
from netsrvd.systemd.notify import Notifier
def barrier(self):
    raise TimeoutError(errno.ETIMEDOUT, "planted")
Notifier.barrier = barrier
"""
    )
    follow(run)
    assert serves(unit.succeed(run).port)


def test_a_start_that_fails_leaves_them_in_the_store(unit: Unit, port: int) -> None:
    """Its status is that of its fault, since no connection would be lost by it."""
    run = unit.start()
    follow(run)
    unit.start(run.store, "wrkers = 1", ready=False).wait_failure(78)
    assert len(run.store) == 4 + 1  # and the state, of the kernel's counts of drops alone
    assert serves(unit.succeed(run).port)


def test_ports_that_systemd_is_to_bind_are_released(unit: Unit, port: int) -> None:
    """SIGWINCH says so, before or after the announcement; the connections go along all the same."""
    run = unit.start()
    for order in ((signal.SIGWINCH, signal.SIGUSR1), (signal.SIGUSR1, signal.SIGWINCH)):
        with talking(port) as live:
            for number in (*order, signal.SIGTERM):
                run.send(number)
            run.wait_end()
            assert kept(run) == []
            run = unit.succeed(run)
            assert echoed(live)
        run.wait_line("closed: client")
        run.rest()


def test_a_stop_keeps_nothing(unit: Unit, port: int) -> None:
    """The ports are free at once."""
    run = unit.start()
    run.send(signal.SIGTERM)
    run.wait_end()
    assert run.store == []
    assert as_nobody(TAKE_UDP_PORT, "127.0.0.1", port) == "bound"


def test_what_is_no_socket_is_closed(unit: Unit, port: int) -> None:
    """Whatever is in the store under such a name: the daemon starts, and has it forgotten."""
    run = unit.start()
    follow(run)
    with Path("/dev/null").open() as null, socket.socket() as sock:
        names = kept(run)
        strange = [(null.fileno(), names[0]), (sock.fileno(), names[1])]
        strange.append((null.fileno(), f"{STORED_SOCKET}x"))
        run.empty_store()
        successor = unit.start(tuple(strange))
    assert forgotten(successor) == sorted({name for _, name in strange})
    assert serves(port)


@pytest.mark.usefixtures("alone")
def test_a_socket_of_an_interface_that_was_made_anew_is_not_kept(unit: Unit, port: int) -> None:
    """It would hear nothing; one of an interface that is still there goes on, without a privilege
    to bind it to that once more.
    """
    for name in ("one", "two"):
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
    listeners = {
        name: {"port": port + number, "interface": name, "protocols": "udp", "host": "0.0.0.0"}
        for number, name in enumerate(("one", "two"))
    }
    configuration = {"listener": {**listeners, "echo": {"enabled": False}}}
    run = unit.start(configuration=configuration)
    before = sockets(run)
    follow(run)
    ip("link", "delete", "two")
    ip("link", "add", "two", "type", "veth", "peer", "name", "two-peer")
    successor = unit.succeed(run, configuration)
    assert (len(before), len(before & sockets(successor))) == (2, 1)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
