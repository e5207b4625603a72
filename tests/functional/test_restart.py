"""A restart: live connections go from one process to the next, by way of systemd."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netsrvd.linux import memfd
from tests.functional.conftest import Start
from tests.support.activation import opened
from tests.support.clients import HELLO, answer, ended, is_served, leaves_in_order, serves, talking
from tests.support.gate import Gate
from tests.support.patience import eventually
from tests.support.peers import connect, echoed, read_exactly
from tests.support.proxied import v1
from tests.support.run import COMMAND, ENVIRONMENT, Run, echo, free_port
from tests.support.unit import Unit, follow

ROOT = Path(__file__).parents[2]
STATE, CONNECTION = "handover/state", "handover/connection"
KINDS = ("tcp4", "tcp6", "udp4", "udp6")

DATAGRAMS = 2000
"""Several times what the kernel's buffer of a socket holds."""

RECEIVED = r"(\d+) datagrams received"
DROPPED = r"the kernel dropped (\d+) datagrams"


@pytest.fixture
def unit(start: Start, port: int) -> Iterator[Unit]:
    with ExitStack() as stack:
        yield Unit(start, port, opened(stack, port, *KINDS))


def names(run: Run) -> list[str]:
    """Return the names of what a run has left in the store."""
    return [name for _, name in run.store]


def counted(run: Run, pattern: str) -> int:
    """Return the sum of the numbers that a run tells in this form."""
    return sum(map(int, re.findall(pattern, "\n".join(run.lines))))


def ids(run: Run, word: str) -> list[str]:
    """Return the ids of connections in the lines that have a word, in their order."""
    return sorted(line.rpartition("[")[2].rstrip("]") for line in run.lines_with(word))


def test_connections_live_on(unit: Unit) -> None:
    """Through two restarts they are answered, by each process; they are told once when they come
    and once when they end, and the store is empty before the next one says that it is ready.
    """
    first = unit.start()
    with talking(unit.port) as one, talking(unit.port, "::1") as other:
        second = unit.restart(first)
        assert names(first) == []
        assert echoed(one)
        assert echoed(other)
        third = unit.restart(second)
        assert echoed(one)
        assert leaves_in_order(other)
    third.wait_line("closed: client", 2)
    assert ids(first, "connected") == ids(third, "closed: ")
    third.rest()
    assert serves(unit.port)
    assert len(first.lines_with("connected")) == 2
    for run in (first, second):
        run.wait_line("restarting on SIGTERM: 2 connections to hand over")
        run.wait_line("2 connections handed over to the next process")
        assert "2 handed over, 0 cut off" in run.lines[-1]
        assert run.lines_with("closed:") == []
    for run in (second, third):
        run.wait_line("2 connections restored, 0 lost; they were not served for")
    assert second.lines_with("connected") == []


def test_what_is_handed_over_has_the_form_that_systemd_wants(unit: Unit) -> None:
    """One sealed file and one descriptor a connection, each under its name, kept also where the
    client leaves meanwhile; all is there before the process ends.
    """
    run = unit.start()
    with talking(unit.port), talking(unit.port, "::1"):
        follow(run)
    assert names(run) == [CONNECTION, CONNECTION, STATE]
    assert b'"version": 1' in memfd.content(run.store[-1][0])
    stored = run.notices_with("FDSTORE")
    assert {each["FDPOLL"] for each in stored} == {"0"}
    order = [next(iter(each)) for each in run.notices]
    assert order.index("BARRIER") > max(order.index("FDSTORE"), order.index("STOPPING"))
    successor = unit.succeed(run)
    successor.wait_line("closed: ", 2)
    successor.rest()


def test_more_than_one_message_carries(unit: Unit) -> None:
    """Some hundred connections are handed over by the 250, and none is missing."""
    unit.room = 1000
    with ExitStack() as stack:
        run = unit.start()
        clients = [stack.enter_context(talking(unit.port)) for _ in range(300)]
        successor = unit.restart(run)
        assert len(run.notices_with("FDSTORE")) == 1 + 2
        assert all(map(echoed, clients))
    successor.wait_line("closed: client", 300)
    successor.rest()


def test_who_waits_for_a_proxy_goes_along(unit: Unit, port: int) -> None:
    """A header of which each process gets a part lets its client in; nobody is told before that."""
    behind = f'[listener.echo]\nport = {port}\nproxies = "loopback"\nallow = "any"\n'
    first = unit.start(configuration=behind)
    with connect(("127.0.0.1", port)) as sock, connect(("127.0.0.1", port)) as gone:
        sock.sendall(v1()[:7])
        gone.sendall(v1() + HELLO)
        assert read_exactly(gone, len(HELLO)) == HELLO
        second = unit.restart(first, configuration=behind)
        sock.sendall(v1()[7:] + HELLO)
        assert read_exactly(sock, len(HELLO)) == HELLO
    second.wait_line("closed: client", 2)
    second.rest()
    assert len(first.lines_with("connected")) == len(second.lines_with("connected")) == 1
    first.wait_line("1 connections handed over to the next process")


def test_what_comes_between_two_processes_waits(unit: Unit) -> None:
    """Words of who is connected and a new client: the next process answers both."""
    run = unit.start()
    with talking(unit.port) as live:
        follow(run)
        live.sendall(b"in between")
        with connect(("127.0.0.1", unit.port)) as new:
            new.sendall(HELLO)
            successor = unit.succeed(run)
            assert read_exactly(live, 10) == b"in between"
            assert read_exactly(new, len(HELLO)) == HELLO
    successor.wait_line("closed: client", 2)
    successor.rest()


def waiting_bytes(port: int) -> int:
    """Return how much waits in the kernel's buffers for datagrams that came to a port (proc(5))."""
    rows = [line.split() for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[4].split(":")[1], 16) for row in rows if int(row[1][-4:], 16) == port)


@pytest.mark.parametrize("clients", [0, 1])
def test_datagrams_that_are_dropped_between_two_processes_are_counted(
    unit: Unit, clients: int
) -> None:
    """More come than the kernel's buffer holds while no process reads: the next one answers those
    that are there, and counts all others as dropped, whether there is a connection or not.
    """
    run = unit.start()
    with ExitStack() as stack:
        talkers = [stack.enter_context(talking(unit.port)) for _ in range(clients)]
        follow(run)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(DATAGRAMS):
                sender.sendto(HELLO, ("127.0.0.1", unit.port))
        assert waiting_bytes(unit.port)
        successor = unit.succeed(run)
        assert all(map(echoed, talkers))
        eventually(lambda: not waiting_bytes(unit.port), "all are read")
        last = unit.restart(successor)
    assert (counted(run, RECEIVED), counted(run, DROPPED)) == (0, 0)
    received, dropped = counted(successor, RECEIVED), counted(successor, DROPPED)
    assert dropped > 0
    assert received + dropped == DATAGRAMS
    last.end()
    assert (counted(last, RECEIVED), counted(last, DROPPED)) == (0, 0)


def test_a_store_that_is_too_small_is_used_as_far_as_it_goes(unit: Unit, port: int) -> None:
    """One descriptor is for the states; who does not fit is drained, and a record says so."""
    unit.room = 3
    run = unit.start(configuration={"drain_timeout": 0.2, **echo(port)})
    with ExitStack() as stack:
        clients = [stack.enter_context(talking(port)) for _ in range(4)]
        successor = unit.restart(run)
        assert sorted(map(is_served, clients)) == [False, False, True, True]
    run.wait_line("2 connections are not handed over: ")
    assert "2 handed over, 2 cut off" in run.lines[-1]
    successor.wait_line("closed: client", 2)
    successor.rest()


def test_all_are_served_while_some_are_drained(unit: Unit, port: int) -> None:
    """Those who do not fit have the time of a drain to end by themselves, and nobody waits for
    that: the handover comes afterwards.
    """
    unit.room = 3
    run = unit.start(configuration={"drain_timeout": 30, **echo(port)})
    with ExitStack() as stack:
        clients = [stack.enter_context(talking(port)) for _ in range(4)]
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("2 connections are not handed over: ")
        assert all(map(echoed, clients))
        for client in clients[:2]:
            assert leaves_in_order(client)
        run.wait_end()
        assert "2 handed over, 0 cut off" in run.lines[-1]
        successor = unit.succeed(run)
        assert all(map(echoed, clients[2:]))
    successor.wait_line("closed: client", 2)
    successor.rest()


def test_others_are_taken_while_handlers_are_drained(unit: Unit, port: int) -> None:
    """Connections of handlers cannot go along. Whoever has nothing to do with them notices nothing
    of that: whatever is new is served, and goes along afterwards. A new client of the handler waits
    for the next process.
    """
    lab = {"service": "python:tests.support.handlers:upper", "host": "127.0.0.1"}
    lab |= {"port": free_port(port + 1), "protocols": "tcp"}
    configuration = echo(port)
    configuration |= {"drain_timeout": 30, "listener": {**configuration["listener"], "lab": lab}}
    how = {"configuration": configuration, "environment": {"PYTHONPATH": str(ROOT)}}
    run = unit.start(**how)
    with connect(("127.0.0.1", lab["port"])) as handled, talking(port) as old:
        handled.sendall(b"one")
        assert read_exactly(handled, 3) == b"ONE"
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("1 connections are not handed over: they are served by Python handlers")
        assert answer(port) == HELLO
        with talking(port) as new, connect(("127.0.0.1", lab["port"])) as waits:
            waits.sendall(b"three")
            handled.sendall(b"two")
            assert read_exactly(handled, 3) == b"TWO"
            assert leaves_in_order(handled)
            run.wait_end()
            assert "2 handed over, 0 cut off" in run.lines[-1]
            successor = unit.succeed(run, **how)
            assert echoed(old)
            assert echoed(new)
            assert read_exactly(waits, 5) == b"THREE"
    successor.wait_line("closed: client", 3)
    successor.rest()


@pytest.mark.parametrize("room", ["0", "many"])
def test_without_a_store_a_restart_drains(unit: Unit, port: int, room: str) -> None:
    """A unit that does not say how large it is has none."""
    run = unit.start(
        configuration={"drain_timeout": 0.1, **echo(port)}, environment={"NETSRVD_FDSTORE": room}
    )
    with talking(port) as sock:
        follow(run)
        assert ended(sock)
    run.wait_line("1 connections are not handed over: ")
    assert run.store == []


def test_a_stop_hands_nothing_over(unit: Unit, port: int) -> None:
    """SIGTERM alone is no restart: systemd would close what it keeps, and nobody would tell."""
    run = unit.start(configuration={"drain_timeout": 0.1, **echo(port)})
    with talking(port) as sock:
        run.send(signal.SIGTERM)
        assert ended(sock)
    run.wait_end()
    assert run.notices_with("FDSTORE") == []
    assert run.lines_with("closed: drain")
    assert "0 handed over, 1 cut off" in run.lines[-1]


def test_an_announcement_alone_changes_nothing(unit: Unit) -> None:
    """SIGUSR1 says only what the stop that follows is for."""
    run = unit.start()
    with talking(unit.port) as sock:
        run.send(signal.SIGUSR1)
        assert echoed(sock)
    assert serves(unit.port)
    run.wait_line("closed: client", 3)


def test_nothing_is_handed_to_a_configuration_that_fails(unit: Unit, port: int) -> None:
    """The next process could not start: its connections would be lost, so they are drained."""
    run = unit.start(configuration={"drain_timeout": 0.1, **echo(port)})
    with talking(port) as sock:
        run.configure("wrkers = 1")
        follow(run)
        assert ended(sock)
    run.wait_line("1 connections are not handed over: ")
    assert run.lines_with("wrkers")
    assert run.notices_with("FDSTORE") == []
    assert run.lines_with("closed: drain")


UNSERVED = {
    "another protocol": {"protocols": ["udp"]},
    "another port": {"port": 1},
    "no listener": {"enabled": False},
}


@pytest.mark.parametrize("keys", UNSERVED.values(), ids=[*UNSERVED])
def test_connections_outlive_what_is_no_longer_served(
    unit: Unit, port: int, keys: dict[str, object]
) -> None:
    """A restart hands connections over to a process that refuses new ones at their address."""
    run = unit.start()
    more = {"lab": {"host": "127.0.0.1", "port": free_port(port + 1)}}
    with talking(port) as sock:
        changed = {"listener": {**more, "echo": {"port": port, **keys}}}
        run.configure(changed)
        successor = unit.restart(run, changed)
        assert echoed(sock)
        successor.wait_line("is not served, ")
        with pytest.raises(ConnectionResetError), connect(("127.0.0.1", port)) as late:
            late.recv(1)
        assert echoed(sock)
    successor.wait_line("closed: client")
    successor.rest()


def test_a_successor_that_fails_leaves_them_in_the_store(unit: Unit) -> None:
    """It takes nothing out, and systemd is to try again and so to keep them (75, not 78); once the
    configuration is mended they are served on.
    """
    run = unit.start()
    with talking(unit.port) as sock:
        follow(run)
        broken = unit.start(run.store, "wrkers = 1", ready=False)
        broken.wait_failure(75)
        mended = unit.succeed(run)
        assert echoed(sock)
    mended.wait_line("closed: client")
    mended.rest()


def with_state(run: Run, data: bytes) -> None:
    """Put another file in the place of the states that a run has left."""
    place = names(run).index(STATE)
    os.close(run.store[place][0])
    run.store[place] = memfd.sealed("state", data), STATE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.replace(b'"version": 1', b'"version": 99'), "it is of version 99"),
        (lambda _: b"{}", "it is malformed: KeyError('version')"),
        (lambda _: b"\0", "handed over, but unusable: "),
    ],
    ids=["version", "malformed", "no JSON"],
)
def test_states_that_cannot_be_read_are_told(
    unit: Unit, change: Callable[[bytes], bytes], words: str
) -> None:
    """The connections are closed, each reason has one line, and the daemon serves."""
    run = unit.start()
    with talking(unit.port) as one, talking(unit.port) as other:
        follow(run)
        with_state(run, change(memfd.content(run.store[names(run).index(STATE)][0])))
        successor = unit.succeed(run)
        assert ended(one)
        assert ended(other)
    assert words in successor.wait_line("handed over, but unusable: ")
    successor.wait_line("handed over, but unusable: 2 connections came without their states")
    assert successor.lines_with("restored") == []
    assert serves(unit.port)


def test_a_service_that_is_gone_ends_its_connections_alone(unit: Unit) -> None:
    """The state says more than this version knows: that one ends with its records, and the other
    connection, the new ones and the daemon live.
    """
    run = unit.start()
    with talking(unit.port) as one, talking(unit.port, "::1") as other:
        follow(run)
        data = memfd.content(run.store[names(run).index(STATE)][0])
        with_state(run, data.replace(b'"service": "echo"', b'"service": "gone"', 1))
        successor = unit.succeed(run)
        served = [sock for sock in (one, other) if is_served(sock)]
        assert len(served) == 1
    successor.wait_line("service gone failed for ")
    successor.wait_line("closed: error (ValueError('there is no service gone")
    successor.wait_line("closed: client")
    successor.rest()
    assert serves(unit.port)


def test_a_bug_in_the_handover_hands_nothing_over(unit: Unit, port: int) -> None:
    """All are drained in order then, and the status is 0."""
    run = unit.start(
        configuration={"drain_timeout": "10s", **echo(port)},
        planted="""
from netsrvd import handover
def encode(connection):
    raise ArithmeticError("planted")
handover.encode = encode
""",
    )
    with talking(port) as sock:
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("1 connections are not handed over: that fails: ArithmeticError('planted')")
        assert echoed(sock)
        assert leaves_in_order(sock)
    run.wait_end()
    assert run.store == []
    assert "0 handed over, 0 cut off" in run.lines[-1]


def test_a_systemd_that_does_not_answer_is_left(unit: Unit, port: int) -> None:
    """The barrier is never lifted: all is taken back, and the connections are drained."""
    run = unit.start(
        configuration={"drain_timeout": "10s", **echo(port)},
        planted="from netsrvd.systemd import notify\nnotify.BARRIER_SECONDS = 0.05",
    )
    barrier: list[int] = []
    keep = run._keep

    def kept(notice: dict[str, str], descriptors: list[int]) -> None:
        if "BARRIER" in notice:
            barrier.extend(descriptors)
        else:
            keep(notice, descriptors)

    run._keep = kept  # type: ignore[method-assign, assignment]
    with talking(port) as sock:
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("1 connections are not handed over: that fails: TimeoutError(")
        assert {each["FDNAME"] for each in run.notices_with("FDSTOREREMOVE")} == {STATE, CONNECTION}
        run.empty_store()
        assert echoed(sock)
        assert leaves_in_order(sock)
    run.wait_end()
    for each in barrier:
        os.close(each)


EARLY = """
import os, signal
from netsrvd import startup
def read(path, read=startup.read_configuration, early=[{signals}]):
    while early:
        os.kill(os.getpid(), early.pop(0))
    return read(path)
startup.read_configuration = read
"""
"""Sends the process signals while it reads its configuration, before it has taken anything up."""


def early(*signals: signal.Signals) -> str:
    """Return Python that sends a starting process these signals."""
    return EARLY.format(signals=", ".join(f"signal.{each.name}" for each in signals))


def test_a_stop_during_the_start_drains_what_was_taken_up(unit: Unit, port: int) -> None:
    """The connections of the process before are taken up first; a client that leaves within
    `drain_timeout` has its record, and the status is 0.
    """
    first = unit.start()
    with talking(port) as leaves, talking(port):
        follow(first)
        how = {"drain_timeout": 30, **echo(port)}
        second = unit.succeed(first, how, planted=early(signal.SIGTERM))
        second.wait_line("2 connections restored, 0 lost")
        second.wait_line("stopping on SIGTERM")
        assert echoed(leaves)
        assert leaves_in_order(leaves)
        second.wait_line("closed: client")
        second.send(signal.SIGTERM)  # nobody waits for the other one any longer
        second.wait_end()
        assert "1 handed over, 0 cut off" in second.lines[-1]


def test_a_restart_during_the_start_loses_no_connection(unit: Unit, port: int) -> None:
    """Systemd does not say then that it is a restart: what is left after the drain goes into the
    store all the same, and the next process takes it up. So do those that wait for a proxy.
    """
    behind = f'drain_timeout = 0.1\n[listener.echo]\nport = {port}\nallow = "any"\n'
    behind += 'proxies = "127.0.0.1"\n'
    first = unit.start(configuration=behind)
    with talking(port, "::1") as live, connect(("127.0.0.1", port)) as waits:
        waits.sendall(v1()[:7])
        follow(first)
        second = unit.succeed(first, behind, planted=early(signal.SIGTERM))
        second.wait_end()
        assert "1 handed over, 0 cut off" in second.lines[-1]
        third = unit.succeed(second, behind)
        assert echoed(live)
        waits.sendall(v1()[7:] + HELLO)
        assert read_exactly(waits, len(HELLO)) == HELLO
    third.wait_line("closed: client", 2)
    third.rest()


def test_an_announced_restart_during_the_start_is_one(unit: Unit, port: int) -> None:
    """Both signals are found when it serves, in the order in which they are meant."""
    first = unit.start()
    with talking(port) as live:
        follow(first)
        second = unit.succeed(first, planted=early(signal.SIGUSR1, signal.SIGTERM))
        second.wait_line("restarting on SIGTERM: 1 connections to hand over")
        second.wait_end()
        third = unit.succeed(second)
        assert echoed(live)
    third.wait_line("closed: client")
    third.rest()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_during_the_start_does_not_end_it(unit: Unit, number: signal.Signals) -> None:
    """A reload is done when the daemon serves; the others change nothing."""
    run = unit.start(planted=early(number))
    assert serves(unit.port)
    assert run.process.poll() is None
    if number == signal.SIGHUP:
        run.wait_line("configuration reloaded: nothing changed")


def test_signals_are_blocked_before_anything_is_imported(unit: Unit) -> None:
    """The imports take most of the time that a start takes."""
    run = unit.start(
        planted="""
import importlib, os, signal
def by_name(name, real=importlib.import_module):
    os.kill(os.getpid(), signal.SIGTERM)
    return real(name)
importlib.import_module = by_name
""",
        ready=False,
    )
    run.wait_line("stopping on SIGTERM")
    run.wait_end()


def test_another_command_ends_by_a_signal() -> None:
    """It has nothing to lose, so it blocks none."""
    program = "import os, signal, sys; from netsrvd import __main__, arguments\n"
    program += "arguments.parser = lambda _: os.kill(os.getpid(), signal.SIGTERM)\n"
    program += "sys.argv[1:] = ['check']\n__main__.main()"
    done = subprocess.run([sys.executable, "-c", program], check=False, env=ENVIRONMENT)
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize("faulty", [False, True])
def test_where_nobody_is_there_nothing_is_said_of_it(unit: Unit, *, faulty: bool) -> None:
    """No record of a restart speaks of 0 connections, be the configuration in order or not."""
    first = unit.start()
    assert serves(unit.port)
    if faulty:
        first.configure("wrkers = 1")
    follow(first)
    line = first.wait_line("ing on SIGTERM")
    wanted = "stopping on SIGTERM: nothing to drain" if faulty else "SIGTERM: nothing to hand over"
    assert wanted in line
    said = [each for each in first.lines_with("0 connections ") if "stopped after" not in each]
    assert said == first.lines_with("handed over: ") == []


@pytest.mark.parametrize("most_kept", [0, 2])
def test_a_store_that_refuses_loses_nobody(unit: Unit, port: int, most_kept: int) -> None:
    """It keeps less than it has told, and does not say so: all are taken back and drained."""
    configuration = {"drain_timeout": 30, **echo(port)}
    run = unit.start(configuration=configuration, most_kept=most_kept)
    with talking(port) as one, talking(port, "::1") as other:
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        line = run.wait_line("2 connections are not handed over: that fails: ")
        assert "FileDescriptorStoreMax= is less than the daemon was told" in line
        for sock in (one, other):
            assert echoed(sock)
            assert leaves_in_order(sock)
    run.wait_end()
    assert "0 handed over, 0 cut off" in run.lines[-1]


def test_without_a_service_manager_a_restart_is_a_stop(start: Start, port: int) -> None:
    """In the foreground SIGUSR1 changes nothing: connections are drained."""
    how = {"NETSRVD_FDSTORE": "99", "NOTIFY_SOCKET": ""}
    run = start({"drain_timeout": 30, **echo(port)}, environment=how, ready=False)
    run.wait_line("ready: ")
    with talking(port) as sock:
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("1 connections are not handed over: ")
        assert echoed(sock)
        assert leaves_in_order(sock)
    run.wait_end()


def test_a_second_stop_hands_over_what_can_be(unit: Unit, port: int) -> None:
    """It ends the wait for a connection that cannot go along; the others live on."""
    unit.room = 2
    configuration = {"drain_timeout": 30, **echo(port)}
    run = unit.start(configuration=configuration)
    with talking(port) as one, talking(port) as other:
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("1 connections are not handed over: ")
        run.send(signal.SIGTERM)
        run.wait_end()
        assert "1 handed over, 1 cut off" in run.lines[-1]
        successor = unit.succeed(run, configuration)
        assert sorted(map(is_served, (one, other))) == [False, True]
    successor.wait_line("closed: client")
    successor.rest()


def test_two_restarts_at_once_are_one(unit: Unit, port: int) -> None:
    """Announced twice and stopped once or twice: all go along."""
    run = unit.start()
    with talking(port) as sock:
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            run.send(number)
        run.wait_end()
        assert "1 handed over, 0 cut off" in run.lines[-1]
        successor = unit.succeed(run)
        assert echoed(sock)
    successor.wait_line("closed: client")
    successor.rest()


def test_a_restart_during_a_reload_waits_for_it(unit: Unit, port: int, tmp_path: Path) -> None:
    """The reload is done first, and its caller has the result."""
    gate = Gate(tmp_path)
    run = unit.start(
        planted=f"""
from netsrvd import daemon
def read(path, read=daemon.read_configuration, reads=[]):
    reads.append(path)
    if len(reads) == 1:
        {gate.wait}
    return read(path)
daemon.read_configuration = read
"""
    )
    with talking(port) as sock:
        command = [COMMAND, "reload", str(run.pid)]
        with subprocess.Popen(command, env=ENVIRONMENT) as reload:
            gate.reached(run)
            run.send(signal.SIGUSR1)
            run.send(signal.SIGTERM)
            gate.open()
            run.wait_end()
            assert reload.wait() == 0
        assert "1 handed over, 0 cut off" in run.lines[-1]
        successor = unit.succeed(run)
        assert echoed(sock)
    successor.wait_line("closed: client")
    successor.rest()


@pytest.mark.parametrize("peer", [["nowhere", 7], ["127.0.0.1", 70_000], ["", 0]])
def test_a_peer_that_is_no_address_costs_its_own_connection(unit: Unit, peer: list[object]) -> None:
    """The next process closes that one, says so, and goes on with the others."""
    run = unit.start()
    with talking(unit.port) as one, talking(unit.port) as other:
        follow(run)
        place = names(run).index(STATE)
        descriptor, name = run.store[place]
        states = json.loads(memfd.content(descriptor))
        broken = min(states["connections"].values(), key=lambda state: state["identity"])
        broken["peer"] = peer
        run.store[place] = memfd.sealed(name, json.dumps(states).encode()), name
        os.close(descriptor)
        successor = unit.succeed(run)
        assert ended(one)
        assert echoed(other)
    successor.wait_line("handed over, but unusable: 1 connections came without their states")
    successor.wait_line("closed: client")
    successor.rest()
