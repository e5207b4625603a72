"""A stop of a server with real clients; its time passes while it waits for signals."""

import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netsrvd import event_loop, handover, shutdown
from netsrvd.connection import Connection
from netsrvd.counters import ByReason, Counters, definitions
from netsrvd.events.handover import HandedOver
from netsrvd.events.lifecycle import NotHandedOver, Stopped, Stopping
from netsrvd.handover import CONNECTION, PENDING, STATE
from netsrvd.server import Server
from netsrvd.shutdown import OF_HANDLERS, UNTRANSFERABLE, Shutdown
from tests.support.fake_notifier import FakeNotifier
from tests.support.listening import failure
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed
from tests.support.proxied import v1
from tests.support.server import Reported, RunningServer, on_loopback
from tests.support.threads import flushed

TERM, WAKE, RELOAD = int(signal.SIGTERM), int(signal.SIGUSR2), int(signal.SIGHUP)

KEPT = 2
"""Descriptors of the store that a server of one listener needs: its socket, and the file."""


class Stage:
    """A server, its clients, and a clock; each wait for a signal can change something."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reported = Reported(patch)
        self.notifier = FakeNotifier()
        self.running: RunningServer
        self.clients: list[socket.socket] = []
        self.now = 1000.0
        self.signals: list[int | None] = []
        self.meanwhile: Callable[[], object] = list
        patch.setattr(shutdown, "monotonic", lambda: self.now)

    def serve(self, *listeners: Any, **changes: Any) -> None:
        """Start a server of these listeners, of `echo` without any."""
        self.running = RunningServer(*(listeners or (on_loopback("echo"),)), **changes)
        self.running.start()

    def client(self, name: str = "echo", data: bytes = b"hello") -> socket.socket:
        """Connect to a listener that echoes, and exchange a few bytes."""
        client = connect(self.running.address(name))
        self.clients.append(client)
        if data:
            client.sendall(data)
            assert client.recv(100) in (data, data.upper())
        return client

    def left(self, count: int) -> None:
        """Wait until `count` connections are left."""
        self.running.serves(count)

    def wait(self, seconds: float) -> int | None:
        received = self.signals.pop(0) if self.signals else None
        self.now += seconds if received is None else 0.0
        self.meanwhile()
        return received

    def stop(self, drain_seconds: float = 10.0, **given: bool) -> Stopped:
        """Stop the server; return the last record."""
        given = {"restart_pending": False, **given}
        made = Shutdown(self.running.server, self.notifier, self.wait, "SIGTERM")  # type: ignore[arg-type]
        made.run(drain_seconds, 60.0, **given)
        self.running.has_ended()
        return self.reported.only(Stopped)

    def restart(self, drain_seconds: float = 10.0) -> Stopped:
        """Stop the server; another one will follow."""
        return self.stop(drain_seconds, restart_pending=True)

    def stored(self, name: str) -> int:
        """Return how many descriptors of a name the store has."""
        return [each for _, each in self.notifier.stored].count(name)

    def end(self) -> None:
        self.running.end()
        self.notifier.empty()
        for client in self.clients:
            client.close()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(monkeypatch)
    yield made
    made.end()


# --- drain ------------------------------------------------------------------------------------


def test_a_drain_ends_with_the_last_connection(stage: Stage) -> None:
    """Each is served until it ends; the last one wakes the main thread; they are counted."""
    stage.serve()
    clients = [stage.client(), stage.client()]
    stage.signals = [WAKE, RELOAD]

    def leave() -> None:
        assert all(echoed(client) for client in clients)
        assert stage.running.wakes == 0
        clients.pop().close()
        stage.left(len(clients))

    stage.meanwhile = leave
    stopped = stage.stop()
    stopping = stage.reported.only(Stopping)
    assert (stopping.connections, stopping.drain_seconds, stopping.purpose) == (2, 10.0, "stop")
    assert (stopped.drained, stopped.cut, stopped.handed_over) == (2, 0, 0)
    assert stage.now == 1000.0
    assert stage.running.wakes == 1


def test_nobody_comes_in_during_a_drain(stage: Stage) -> None:
    """The listening sockets are closed before anything is waited for."""
    stage.serve()
    address = stage.running.address("echo")
    stage.client()

    def try_to_connect() -> None:
        with pytest.raises(ConnectionRefusedError):
            connect(address)

    stage.meanwhile = try_to_connect
    stage.signals = [TERM]
    stage.stop()


def test_a_second_signal_ends_the_drain(stage: Stage) -> None:
    """What is left is closed and counted as cut."""
    stage.serve()
    clients = [stage.client(), stage.client()]
    stage.signals = [TERM]
    stopped = stage.stop()
    assert (stopped.drained, stopped.cut, stage.now) == (0, 2, 1000.0)
    assert [client.recv(1) for client in clients] == [b"", b""]


def test_a_drain_ends_with_its_time(stage: Stage) -> None:
    """Connections that do not end by themselves are closed when the time is up."""
    stage.serve()
    stage.client()
    assert stage.stop(2.5).cut == 1
    assert stage.now == 1002.5


def test_a_drain_is_told_as_it_goes_on(stage: Stage) -> None:
    """The status line counts down; systemd is asked for more time only while something moves."""
    stage.serve()
    clients = [stage.client() for _ in range(3)]
    stage.meanwhile = lambda: stage.now < 1002 and echoed(clients[0])
    stage.stop(4.0)
    words = [step.split(" on SIGTERM")[0] for step in stage.notifier.steps]
    assert words == [
        "stopping 24 Stopping",
        "status Stopping",
        "stopping 23 Stopping",
        "stopping 22 Stopping",
        "status Stopping",
        "close",
    ]
    assert stage.notifier.steps[2] == "stopping 23 Stopping on SIGTERM: 3 connections left, 3 s"


def test_a_drain_in_which_nothing_moves_is_over(stage: Stage) -> None:
    """However long it may take, half a minute after the last byte the rest is closed."""
    stage.serve()
    client = stage.client()

    def meanwhile() -> None:
        if stage.now < 1100:
            assert echoed(client)
        for thread in stage.running.server.threads():  # it has counted what has moved
            assert flushed(thread)

    stage.meanwhile = meanwhile
    assert stage.stop(3600.0).cut == 1
    assert 1129 <= stage.now <= 1131


def test_the_last_record_has_all_that_was_counted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counter is a field of it, besides the time that the daemon ran."""
    stage.serve()
    counted = Counters()
    for number, each in enumerate(definitions(Counters), 100):
        setattr(counted, each.name, ByReason(one=number, two=1) if each.label else number)
    monkeypatch.setattr(Server, "counters", lambda _: counted)
    stopped = stage.stop()
    for number, each in enumerate(definitions(Counters), 100):
        assert getattr(stopped, each.name) == number + bool(each.label)
        if each.label:
            assert getattr(stopped, f"{each.name}_reasons") == f"one={number} two=1"
    assert (stopped.seconds, stopped.records_lost) == (60.0, 0)


def test_all_that_waits_for_a_header_is_closed_by_a_stop(stage: Stage) -> None:
    """Nobody would take it; there is no record, as there was none of its beginning."""
    stage.serve(on_loopback("echo", proxies=("127.0.0.1",)))
    client = stage.client(data=b"")
    eventually(lambda: not stage.running.server.is_empty)
    stopped = stage.stop()
    assert client.recv(1) == b""
    assert stage.reported.kinds == ["Stopping", "Stopped"]
    assert (stopped.drained, stopped.cut, stage.now) == (0, 0, 1000.0)


# --- restart ----------------------------------------------------------------------------------


def test_a_restart_hands_all_over(stage: Stage) -> None:
    """Nothing is drained; the sockets and their states are in the store, open for the next one."""
    stage.serve()
    clients = [stage.client() for _ in range(3)]
    stage.notifier.store_room = 10
    stopped = stage.restart()
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (3, 0, 0)
    assert stage.reported.only(HandedOver).connections == 3
    assert stage.reported.only(Stopping).purpose == "restart"
    assert (stage.stored(STATE), stage.stored(CONNECTION)) == (1, 3)
    assert stage.now == 1000.0
    restored = handover.restore(stage.notifier.passed_on())
    for sock in restored.sockets:
        sock.sendall(b"x")
        sock.close()
    assert [client.recv(9) for client in clients] == [b"x"] * 3


def test_what_does_not_fit_is_drained(stage: Stage) -> None:
    """A store that is too small is used as far as it goes, and the rest is told. Meanwhile all are
    served: nothing is saved before the drain is over.
    """
    stage.serve()
    clients = [stage.client() for _ in range(3)]
    stage.notifier.store_room = KEPT + 1

    def look() -> None:
        assert all(echoed(client) for client in clients)
        assert stage.stored(CONNECTION) == 0

    stage.meanwhile = look
    stopped = stage.restart(2.0)
    assert (stopped.handed_over, stopped.cut) == (1, 2)
    assert stage.reported.only(NotHandedOver) == NotHandedOver(2, UNTRANSFERABLE)
    assert stage.now == pytest.approx(1002.0)
    assert stage.stored(CONNECTION) == 1


UPPER = on_loopback("upper", service="python:tests.support.handlers:upper")


def test_while_handlers_are_drained_others_come_and_go(stage: Stage) -> None:
    """A client that comes meanwhile is handed over; the last record tells them apart."""
    stage.serve(on_loopback("echo"), UPPER)
    stage.client()
    handled = [stage.client("upper") for _ in range(2)]
    stage.notifier.store_room = 20

    def replace() -> None:
        if handled:
            handled.pop().close()
            eventually(lambda: stage.running.server.handled == len(handled))
            stage.client()

    stage.meanwhile = replace
    stopped = stage.restart(30.0)
    assert stage.reported.only(NotHandedOver) == NotHandedOver(2, OF_HANDLERS)
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (3, 2, 0)


@pytest.mark.parametrize("room", [0, 1])
def test_a_store_that_is_full_has_nobody_come_in(stage: Stage, room: int) -> None:
    """However long handlers are waited for: a client that came could not go along."""
    stage.serve(on_loopback("echo"), UPPER)
    address = stage.running.address("echo")
    served = stage.client()
    for _ in range(2):
        stage.client("upper")
    stage.notifier.store_room = KEPT + 1 + room  # of two listeners

    def try_to_connect() -> None:
        if len(stage.clients) == 3:  # it is queued: the listening socket goes along
            stage.clients.append(connect(address))
        assert echoed(served)  # and so the loop has turned

    stage.meanwhile = try_to_connect
    stopped = stage.restart(2.0)
    assert (stopped.handed_over, stopped.cut) == ((1, 2) if room else (0, 3))
    assert stopped.accepted == 3
    assert stage.now == pytest.approx(1002.0)


def test_handlers_that_do_not_end_are_waited_for_once(stage: Stage) -> None:
    """When their time is up they are ended; the others are handed over."""
    stage.serve(on_loopback("echo"), UPPER)
    stage.client()
    for _ in range(2):
        stage.client("upper")
    stage.notifier.store_room = 20
    stopped = stage.restart(2.0)
    assert stage.reported.only(NotHandedOver).connections == 2
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (1, 0, 2)
    assert stage.now == pytest.approx(1002.0)


def test_a_drain_before_a_handover_ends_when_the_rest_fits(stage: Stage) -> None:
    """A connection that ends makes room for another one."""
    stage.serve()
    clients = [stage.client() for _ in range(3)]
    stage.notifier.store_room = KEPT + 2

    def leave() -> None:
        if stage.now >= 1001 and len(clients) == 3:
            clients.pop().close()
            stage.left(2)

    stage.meanwhile = leave
    stopped = stage.restart(30.0)
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (2, 1, 0)
    assert stage.now < 1001.1


def test_a_connection_that_is_about_to_end_stays(stage: Stage) -> None:
    """One whose service has said all only waits for the client's end, which it may have here."""
    stage.serve(on_loopback("echo"), on_loopback("time", service="time"))
    stage.client()
    last = connect(stage.running.address("time"))
    stage.clients.append(last)
    assert len(last.recv(100)) == 4
    assert last.recv(1) == b""
    stage.notifier.store_room = 20

    def leave() -> None:
        last.close()
        stage.left(1)

    stage.meanwhile = leave
    stopped = stage.restart(30.0)
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (1, 1, 0)


def test_a_second_signal_hands_over_at_once(stage: Stage) -> None:
    """What does not fit is closed then."""
    stage.serve()
    for _ in range(3):
        stage.client()
    stage.notifier.store_room, stage.signals = KEPT + 2, [TERM]
    stopped = stage.restart(30.0)
    assert (stopped.handed_over, stopped.cut, stage.now) == (2, 1, 1000.0)


@pytest.mark.parametrize("step", [f"store {STATE}", f"store {CONNECTION}"])
def test_what_systemd_does_not_take_is_drained(stage: Stage, step: str) -> None:
    """Then the connections are served again until they end."""
    stage.serve()
    client = stage.client()
    stage.client()
    stage.notifier.store_room, stage.notifier.fails = 10, {step: failure(errno.ENOTCONN)}
    answers: list[bool] = []
    stage.meanwhile = lambda: answers.append(echoed(client))
    stopped = stage.restart(2.0)
    assert all(answers)
    assert answers
    assert (stopped.handed_over, stopped.cut) == (0, 2)
    assert "not connected" in stage.reported.only(NotHandedOver).reason
    assert stage.stored(STATE) == stage.stored(CONNECTION) == 0


def test_what_came_while_a_handover_failed_is_answered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug ends nothing but the handover; its place is told."""
    stage.serve()
    client = stage.client()

    def save(*_: object) -> None:
        client.sendall(b"in between")
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(handover, "save", save)
    stage.notifier.store_room = 10

    def look() -> None:
        assert client.recv(100) == b"in between"
        client.close()
        stage.left(0)

    stage.meanwhile = look
    assert stage.restart(2.0).drained == 1
    reason = stage.reported.only(NotHandedOver).reason
    assert reason.startswith("that fails: ZeroDivisionError('a bug') at ")


def test_what_a_late_loop_gives_is_served_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it comes too late for the handover, its connections are drained, and none is lost."""
    monkeypatch.setattr(event_loop, "CALL_SECONDS", 0.1)
    stage.serve()
    stage.notifier.store_room = 10
    client, server, is_late = stage.client(), stage.running.server, threading.Event()
    detach = server.detach

    def detach_late(found: list[Connection]) -> None:
        server.loops[0].call_soon_threadsafe(is_late.wait, SECONDS)
        detach(found)

    monkeypatch.setattr(server, "detach", detach_late)

    def look() -> None:
        is_late.set()
        assert echoed(client)
        client.close()
        stage.left(0)

    stage.meanwhile = look
    stopped = stage.restart(2.0)
    assert (stopped.drained, stopped.handed_over, stopped.cut) == (1, 0, 0)
    assert "TimeoutError" in stage.reported.only(NotHandedOver).reason


def test_a_restart_without_connections_tells_of_no_handover(stage: Stage) -> None:
    """It is a plain stop; the listening socket goes along all the same."""
    stage.serve()
    stage.notifier.store_room = 10
    stopped = stage.restart()
    assert stage.reported.kinds == ["Stopping", "Stopped"]
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (0, 0, 0)
    assert [name for _, name in stage.notifier.stored if name in (STATE, CONNECTION)] == []
    assert len(stage.notifier.stored) == 1


@pytest.mark.parametrize(("room", "states"), [(0, 0), (KEPT, 0), (KEPT + 2, 1)])
def test_a_restart_without_connections_hands_over_what_is_counted(
    stage: Stage, room: int, states: int
) -> None:
    """Where datagrams are received, the next process learns which drops are counted, if there is
    room; nothing is said of it.
    """
    stage.serve(on_loopback("echo", protocols=("udp",)))
    stage.notifier.store_room = room
    stage.restart()
    assert stage.stored(STATE) == states
    assert stage.reported.kinds == ["Stopping", "Stopped"]


def test_the_listening_socket_goes_along_as_far_as_there_is_room(stage: Stage) -> None:
    """What comes until the next process accepts waits in its queue."""
    stage.serve()
    address = stage.running.address("echo")
    stage.notifier.store_room = 1
    stage.restart()
    with connect(address):
        pass


@pytest.mark.parametrize(("room", "fit"), [(KEPT + 5, 3), (KEPT + 4, 2), (KEPT + 2, 0), (0, 0)])
def test_what_waits_for_a_header_goes_along_where_there_is_room(
    stage: Stage, room: int, fit: int
) -> None:
    """After those that are served; the others are closed, without a record."""
    stage.serve(on_loopback("echo", proxies=("127.0.0.2",)))
    for _ in range(2):
        stage.client()
    waiting = [connect(stage.running.address("echo"), source="127.0.0.2") for _ in range(3)]
    stage.clients += waiting
    tcp = stage.running.server
    eventually(lambda: tcp.seen() == 2 and len(tcp.connections()) == 2)
    for each in waiting:
        each.sendall(b"PROXY ")
    eventually(lambda: tcp.limit.used == 5, "all wait")
    stage.notifier.store_room = room
    stopped = stage.restart(1.0)
    assert stage.stored(f"{PENDING}echo") == fit
    assert stopped.handed_over == min(2, max(0, room - KEPT))
    closed = [each for each in waiting if is_closed(each)]
    assert len(closed) == 3 - fit


def is_closed(client: socket.socket) -> bool:
    """Return whether the other end was closed, which is known at once here."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


def test_a_handover_of_waiting_connections_alone_has_no_record(stage: Stage) -> None:
    """They have none of their beginning either; nothing is waited for."""
    stage.serve(on_loopback("echo", proxies=("127.0.0.1",)))
    client = stage.client(data=b"")
    client.sendall(b"PROXY ")
    eventually(lambda: not stage.running.server.is_empty)
    stage.notifier.store_room = 10
    stage.restart()
    assert stage.stored(f"{PENDING}echo") == 1
    assert stage.reported.kinds == ["Stopping", "Stopped"]
    assert stage.now == 1000.0
    assert not is_closed(client)


def test_what_waits_for_its_header_at_a_handler_goes_along(stage: Stage) -> None:
    """It is no handler's yet: the next process lets it in."""
    stage.serve(UPPER._replace(proxies=("127.0.0.1",)))
    client = stage.client("upper", data=b"")
    client.sendall(b"PROXY ")
    eventually(lambda: not stage.running.server.is_empty)
    stage.notifier.store_room = 10
    stage.restart()
    assert stage.stored(f"{PENDING}upper") == 1
    assert not is_closed(client)


def test_what_comes_while_datagrams_are_answered_goes_along(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listening sockets are open until then, and a header may not have come yet."""
    stage.serve(on_loopback("echo", proxies=("127.0.0.1",)))
    stop_udp, clients = Server._stop_udp, []

    def meanwhile(*arguments: Any) -> None:
        stop_udp(*arguments)
        clients.append(stage.client(data=b""))
        eventually(lambda: not stage.running.server.is_empty)

    monkeypatch.setattr(Server, "_stop_udp", meanwhile)
    stage.notifier.store_room = 10
    with monkeypatch.context() as patch:
        patch.setattr(Server, "stop_handlers", lambda *_: None)
        stage.restart()
    [client] = clients
    assert stage.stored(f"{PENDING}echo") == 1
    assert not is_closed(client)


def test_a_stop_that_may_be_a_restart_drains_first(stage: Stage) -> None:
    """All have their time; what is left then goes to a next process, if there is one."""
    stage.serve()
    clients = [stage.client(), stage.client()]
    stage.notifier.store_room = 10

    def leave() -> None:
        if len(clients) == 2:
            clients.pop().close()
            stage.left(1)

    stage.meanwhile = leave
    stopped = stage.stop(2.0, restart_possible=True)
    assert (stopped.handed_over, stopped.drained, stopped.cut) == (1, 1, 0)
    assert stage.now == pytest.approx(1002.0)
    assert stage.reported.only(Stopping).purpose == "stop"


def test_the_next_process_goes_on(stage: Stage) -> None:
    """With what was served, and with what waits for its header: its rest may come to the next."""
    stage.serve(on_loopback("echo", proxies=("127.0.0.2",)))
    client = stage.client()
    waiting = connect(stage.running.address("echo"), source="127.0.0.2")
    stage.clients.append(waiting)
    header = v1(("127.0.0.3", 4711))
    waiting.sendall(header[:9])
    assert echoed(client)
    eventually(lambda: stage.running.server.seen() == 1 and not stage.running.server.is_empty)
    eventually(lambda: stage.running.server.limit.used == 2, "both are accepted")
    stage.notifier.store_room = 10
    assert stage.restart().handed_over == 1
    stage.serve(on_loopback("echo", proxies=("127.0.0.2",)))
    stage.running.server.restore(handover.restore(stage.notifier.passed_on()))
    assert echoed(client)
    waiting.sendall(header[9:] + b"hello")
    assert waiting.recv(9) == b"hello"
    assert stage.running.server.live == 2
