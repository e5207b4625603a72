"""`idle_exit`: a daemon whose sockets are systemd's ends when nobody comes, and nobody is lost."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened
from tests.support.clients import HELLO, answer, serves, talking
from tests.support.gate import Gate
from tests.support.patience import SECONDS
from tests.support.peers import connect, datagrams, echoed, read_exactly
from tests.support.proxied import v1
from tests.support.run import Run, echo
from tests.support.unit import Unit

IDLE = 0.1
KINDS = ("tcp4", "tcp6", "udp4", "udp6")

PAUSE = """
from netsrvd.server import Server
def pause(self, pause=Server.pause, pauses=[]):
    pauses.append(self)
    {before}
    pause(self)
    {after}
Server.pause = pause
"""


@pytest.fixture
def unit(start: Start, port: int) -> Iterator[Unit]:
    with ExitStack() as stack:
        yield Unit(start, port, opened(stack, port, *KINDS))


def idle(port: int, **more: object) -> dict[str, object]:
    """Return a configuration that ends when nobody comes."""
    return {"idle_exit": IDLE, **echo(port, flow_timeout=0.05, **more)}


def wait_idle_end(run: Run) -> None:
    run.wait_line("stopping on idle: nothing to drain")
    run.wait_end()


def test_nobody_comes_and_it_ends(unit: Unit) -> None:
    """With success, after the time and not before; systemd still has the sockets."""
    began_at = monotonic()
    run = unit.start(configuration={**idle(unit.port), "idle_exit": 1})
    wait_idle_end(run)
    assert 1 <= monotonic() - began_at < 1 + SECONDS
    assert run.notices_with("STOPPING")[0]["STATUS"] == "Stopping on idle"
    with connect(("127.0.0.1", unit.port)) as waiting:
        waiting.sendall(HELLO)
        successor = unit.start(configuration=idle(unit.port))
        assert read_exactly(waiting, len(HELLO)) == HELLO
    wait_idle_end(successor)


def test_who_is_served_keeps_it(unit: Unit) -> None:
    """A connection counts however silent it is, and the time begins with its end."""
    with connect(("127.0.0.1", unit.port)) as sock:  # it waits there before the time begins
        run = unit.start(configuration=idle(unit.port))
        assert echoed(sock)
        run.wait(lambda: monotonic() - run.heard_at["READY"] > 5 * IDLE, "time")
        assert echoed(sock)
    wait_idle_end(run)


def test_who_waits_for_the_word_of_its_proxy_is_no_less_there(unit: Unit, tmp_path: Path) -> None:
    """It is nobody's client yet, but it has been taken out of the queue: it is waited for, also
    where it comes at the last moment.
    """
    gate = Gate(tmp_path)
    before = f"if len(pauses) == 1: {gate.wait}"
    run = unit.start(
        configuration=idle(unit.port, proxies="127.0.0.1", allow="any"),
        planted=PAUSE.format(before=before, after="pass"),
    )
    gate.reached(run)
    with connect(("127.0.0.1", unit.port)) as sock:
        run.wait(lambda: any(link.startswith("socket:") for link in _new(run)), "the guest")
        gate.open()
        run.wait(lambda: monotonic() - run.heard_at["READY"] > 5 * IDLE, "time")
        sock.sendall(v1() + HELLO)
        assert read_exactly(sock, len(HELLO)) == HELLO
    wait_idle_end(run)


def _new(run: Run) -> list[str]:
    """Return what the run has opened since it was ready."""
    return [*(run.held() - run._at_rest)]


def test_visits_of_the_watchdog_do_not_keep_it(unit: Unit) -> None:
    """They are no clients; meanwhile the watchdog is fed."""
    run = unit.start(
        configuration={**idle(unit.port), "idle_exit": 2}, environment={"WATCHDOG_USEC": "200000"}
    )
    wait_idle_end(run)
    assert len(run.notices_with("WATCHDOG")) > 1


def test_who_has_a_socket_of_its_own_stays(start: Start, port: int) -> None:
    """Nobody would start it again."""
    run = start({"idle_exit": 0.02, **echo(port)}, environment={"WATCHDOG_USEC": "200000"})
    run.wait_notice("WATCHDOG", 6)
    assert serves(port)


def test_a_socket_of_its_own_beside_passed_ones_keeps_it(start: Start, port: int) -> None:
    """UDP of the listener is bound by the daemon here."""
    with ExitStack() as stack:
        unit = Unit(start, port, opened(stack, port, "tcp4", "tcp6"))
        run = unit.start(
            configuration={"idle_exit": 0.02, **echo(port)}, environment={"WATCHDOG_USEC": "200000"}
        )
        run.wait_notice("WATCHDOG", 6)
        assert answer(port) == HELLO


@pytest.mark.parametrize("kind", ["connection", "datagram"])
def test_who_comes_before_the_door_is_shut_is_served(unit: Unit, tmp_path: Path, kind: str) -> None:
    """When it has just found nobody somebody comes: they are answered, and the daemon goes on."""
    gate, again = Gate(tmp_path), Gate(tmp_path, "again")
    before = f"if len(pauses) == 1: {gate.wait}\n    if len(pauses) == 2: {again.wait}"
    run = unit.start(
        configuration=idle(unit.port), planted=PAUSE.format(before=before, after="pass")
    )
    gate.reached(run)
    if kind == "connection":
        with talking(unit.port) as sock:
            gate.open()
            run.wait(lambda: monotonic() - run.heard_at["READY"] > 5 * IDLE, "time")
            assert echoed(sock)
    else:
        assert answer(unit.port) == HELLO
        gate.open()
    again.reached(run)  # it went on, and has found nobody once more
    assert serves(unit.port)
    again.open()
    wait_idle_end(run)


def test_who_comes_after_it_is_shut_is_in_the_queue(unit: Unit, tmp_path: Path) -> None:
    """It ends without a look at them, and the next one, which systemd starts, answers."""
    gate = Gate(tmp_path)
    run = unit.start(
        configuration=idle(unit.port), planted=PAUSE.format(before="pass", after=gate.wait)
    )
    gate.reached(run)
    with connect(("127.0.0.1", unit.port)) as sock, datagrams() as asker:
        sock.sendall(HELLO)
        asker.sendto(HELLO, ("127.0.0.1", unit.port))
        gate.open()
        wait_idle_end(run)
        assert "0 connections accepted" in run.lines[-1]
        assert "0 datagrams received" in run.lines[-1]
        successor = unit.start(configuration=idle(unit.port))
        assert read_exactly(sock, len(HELLO)) == HELLO
        assert asker.recv(100) == HELLO
    wait_idle_end(successor)


def test_nobody_is_lost_whenever_they_come(unit: Unit) -> None:
    """Again and again clients come about when it ends: each is answered, by it or by the next."""
    for attempt in range(8):
        run = unit.start(configuration=idle(unit.port))
        due = run.heard_at["READY"] + IDLE * (0.95 + 0.05 * attempt)
        run.wait(lambda: monotonic() >= due or run.process.poll() is not None, "time")  # noqa: B023
        with connect(("127.0.0.1", unit.port)) as sock, datagrams() as asker:
            asker.sendto(HELLO, ("127.0.0.1", unit.port))
            sock.sendall(HELLO)
            got = _answers(run, sock, asker)
            if len(got) < 2:
                run.wait_end()
                run = unit.start(configuration=idle(unit.port))
                for each in {sock, asker} - got:
                    assert each.recv(100) == HELLO
        wait_idle_end(run)


def _answers(run: Run, *asked: socket.socket) -> set[socket.socket]:
    """Return who has its answer, when all have or the run has ended."""
    got: set[socket.socket] = set()

    def is_known() -> bool:
        for each in {*asked} - got:
            each.setblocking(False)
            try:
                assert each.recv(100) == HELLO
            except BlockingIOError:
                continue
            finally:
                each.settimeout(SECONDS)
            got.add(each)
        return len(got) == len(asked) or run.process.poll() is not None

    run.wait(is_known, "answers or the end")
    return got
