"""A server that gets new settings: what is counted, what ends, and what a failure leaves."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsrvd import event_loop
from netsrvd.events.sockets import ListeningEnded
from netsrvd.udp import UDPListener
from tests.support.patience import eventually
from tests.support.peers import connect, datagrams, echoed, nothing_more
from tests.support.run import free_port
from tests.support.server import Reported, RunningServer, on_loopback

UPPER = "python:tests.support.handlers:upper"


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Reported:
    return Reported(monkeypatch)


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two ports that are free on TCP and UDP."""
    first = free_port()
    return first, free_port(first + 1)


@pytest.fixture
def running(reported: Reported, ports: tuple[int, int]) -> Iterator[RunningServer]:
    """A server with the listener `one` on the first port, of both protocols."""
    made = RunningServer(on_loopback("one", port=ports[0], protocols=("tcp", "udp")))
    made.start()
    yield made
    made.end()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_reloads_without_end_cost_nothing(running: RunningServer, ports: tuple[int, int]) -> None:
    """Listeners come and go; what was counted stays in the sums, and there is not one thread or
    descriptor more at the end.
    """
    one = on_loopback("one", port=ports[0], protocols=("tcp", "udp"))
    two = on_loopback("two", port=ports[1], protocols=("tcp", "udp"))
    seen = []
    for number in range(1, 6):
        running.reload(one, two)
        with connect(("127.0.0.1", ports[1])) as client, datagrams() as asker:
            assert echoed(client)
            asker.sendto(b"x", ("127.0.0.1", ports[1]))
            assert asker.recv(1) == b"x"
        running.serves(0)
        running.reload(one)
        counters = running.server.counters()
        assert (counters.accepted, counters.closed.total) == (number, number)
        assert (counters.datagrams_sent, counters.flows) == (number, number)
        seen.append((threading.active_count(), open_descriptors()))
    assert len({*seen}) == 1


def test_a_listener_may_move(
    running: RunningServer, reported: Reported, ports: tuple[int, int]
) -> None:
    """Its connections go on; its old port is closed, and that is told."""
    with connect(("127.0.0.1", ports[0])) as client:
        assert echoed(client)
        running.reload(on_loopback("one", port=ports[1]))
        assert echoed(client)
        with connect(("127.0.0.1", ports[1])) as other:
            assert echoed(other)
        with pytest.raises(ConnectionRefusedError):
            connect(("127.0.0.1", ports[0]))
    assert len(reported.all(ListeningEnded)) == 2


def test_a_listener_that_is_gone_keeps_its_connections_until_they_end(
    running: RunningServer, ports: tuple[int, int]
) -> None:
    """And no longer: the reload after that forgets it, but not what it has counted."""
    with connect(("127.0.0.1", ports[0])) as client:
        assert echoed(client)
        running.reload(on_loopback("two", port=ports[1]))
        assert echoed(client)
        assert running.server.live == 1
    running.serves(0)
    running.reload(on_loopback("two", port=ports[1]))
    assert running.server.counters().closed.total == 1
    assert running.server.counters().bytes_sent == 10


def handler_threads() -> int:
    return sum(each.name.startswith("handler") for each in threading.enumerate())


@pytest.mark.parametrize("gone", [True, False])
def test_the_threads_of_a_handler_end_with_its_listener(
    running: RunningServer,
    ports: tuple[int, int],
    gone: bool,  # noqa: FBT001
) -> None:
    """Or when that has another service; a connection that is left keeps its own until it ends."""
    one = on_loopback("one", port=ports[0])
    after = one if not gone else on_loopback("two", port=ports[1])
    running.reload(one._replace(service=UPPER))
    with connect(("127.0.0.1", ports[0])) as client:
        client.sendall(b"hello")
        assert client.recv(9) == b"HELLO"
        running.reload(after)
        client.sendall(b"still")
        assert client.recv(9) == b"STILL"
    running.serves(0)
    running.reload(after)
    eventually(lambda: handler_threads() == 0)


def test_a_reload_that_lacks_memory_changes_nothing(
    running: RunningServer, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """New sockets are closed; the old settings are in force, also those of limits."""

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(UDPListener, "prepare", fail)
    before = open_descriptors()
    both = on_loopback("two", port=ports[1], protocols=("tcp", "udp"))
    with pytest.raises(MemoryError):
        running.reload(both)
    assert open_descriptors() == before
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", ports[1]))
    with connect(("127.0.0.1", ports[0])) as client, datagrams() as asker:
        assert echoed(client)
        asker.sendto(b"x", ("127.0.0.1", ports[0]))
        assert asker.recv(1) == b"x"
    monkeypatch.undo()


def test_a_higher_limit_lets_in_what_waits(reported: Reported) -> None:
    """At once: it is in the kernel's queue already."""
    made = RunningServer(on_loopback("one"), max_connections=1)
    made.start()
    with connect(made.address("one")) as first, connect(made.address("one")) as second:
        assert echoed(first)
        second.sendall(b"x")
        eventually(lambda: "ListenerFull" in reported.kinds)
        assert nothing_more(second)
        second.settimeout(10)
        made.reload(*made.settings.listeners)
        assert second.recv(1) == b"x"
    made.end()


@pytest.mark.parametrize("loop", ["_tcp", "_udp"])
def test_a_loop_that_is_late_gets_the_new_settings_later(
    running: RunningServer,
    ports: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    loop: str,
) -> None:
    """The reload does not fail, as it cannot be taken back; the next one goes on from there."""
    monkeypatch.setattr(event_loop, "CALL_SECONDS", 0.1)
    gate = threading.Event()
    one, two = (
        on_loopback(name, port=port, protocols=("tcp", "udp"))
        for name, port in zip(("one", "two"), ports, strict=True)
    )
    getattr(running.server, loop).call_soon_threadsafe(gate.wait, 10.0)
    try:
        running.reload(two)
    finally:
        gate.set()
    with connect(("127.0.0.1", ports[1])) as client, datagrams() as asker:
        assert echoed(client)
        asker.sendto(b"x", ("127.0.0.1", ports[1]))
        assert asker.recv(1) == b"x"
    running.reload(one)
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", ports[1]))
    with connect(("127.0.0.1", ports[0])) as client:
        assert echoed(client)
    running.serves(0)
    running.reload(one)
    assert {name for name, _ in running.server._listeners} == {"one"}
