"""Connections that Python handlers serve, in the loop and threads of the test's process."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from netsrvd import connection, tcp
from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.events.handlers import HandlersBusy, HandlersFree, HandlerStuck
from netsrvd.handlers import connections
from netsrvd.handlers.connection import HandlerConnection
from netsrvd.handlers.connections import HandlerConnections
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, reset
from tests.support.serving import Served, Serving
from tests.support.waiting import wait_event

Handler = Callable[[HandlerConnection], object]


class Desk:
    """Listeners with handlers, and their clients."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.served: list[Served] = []
        self.ports: list[int] = []
        self.clients: list[socket.socket] = []
        self.gates: list[threading.Event] = []

    def listen(self, handler: Handler, **changes: Any) -> Served:
        self.served.append(self.serving.tcp(handler=handler, **changes))
        return self.served[-1]

    def connect(self, handler: Handler | Served, **changes: Any) -> socket.socket:
        """Connect to a listener, or to a new one with this handler; return the client."""
        served = handler if isinstance(handler, Served) else self.listen(handler, **changes)
        client = connect(served.local)
        self.clients.append(client)
        self.ports.append(client.getsockname()[1])
        self.serving.told(Accepted, len(self.clients))
        return client

    def gate(self) -> threading.Event:
        """Return an event that is set at the end at the latest."""
        self.gates.append(threading.Event())
        return self.gates[-1]

    def closed(self, count: int = 1) -> Closed:
        """Wait for the end of `count` connections; return the record of the last one."""
        return self.serving.told(Closed, count)[count - 1]

    def in_loop(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self.serving.tcp_loop.call_and_wait(call, *arguments)

    @property
    def live(self) -> int:
        return self.serving.handlers.live

    def end(self) -> None:
        """End everything; each connection has one record of its beginning and one of its end."""
        self.in_loop(self.serving.handlers.stop)
        for gate in self.gates:
            gate.set()
        for each in self.clients:
            each.close()
        eventually(lambda: not self.live, "the handlers have returned")
        self.in_loop(self.serving.handlers.shutdown)
        threads = [each for each in threading.enumerate() if each.name.startswith("handler")]
        for thread in threads:
            thread.join(SECONDS)
        for served in self.served:
            assert served.listener.live == 0
            assert served.counters.closed.total == served.counters.accepted
        assert len(self.serving.so_far(Closed)) == len(self.clients)
        self.serving.settle()


@pytest.fixture
def desk(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return listeners that look for time-outs often, and wait for no handler for long."""
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(connections, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.5)
    made = Desk(serving)
    yield made
    made.end()


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the end."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def echo(it: HandlerConnection) -> None:
    while data := it.recv():
        it.send(data)


def one_each(desk: Desk, *handlers: Handler) -> Handler:
    """Return what serves the first client by the first handler, and so on, whose thread begins
    first or not.
    """

    def serve(it: HandlerConnection) -> None:
        eventually(lambda: it.peer[1] in desk.ports, "the test knows its client")
        handlers[desk.ports.index(it.peer[1])](it)

    return serve


def raised(it: HandlerConnection, call: Callable[[HandlerConnection], object]) -> OSError | None:
    """Return what a call of a handler's raises, as each later one does."""
    try:
        call(it)
    except OSError as error:
        for again in (it.recv, lambda: it.send(b"")):
            with pytest.raises(type(error)):
                again()
        return error
    return None


# --- to the end -------------------------------------------------------------------------------


def test_a_handler_answers_until_the_clients_end(desk: Desk) -> None:
    """All bytes come back, the client's end is an empty answer, and the record counts them."""
    client = desk.connect(echo)
    data = b"x" * 1_000_000
    sender = threading.Thread(
        target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR))
    )
    sender.start()
    assert read_all(client) == data
    sender.join()
    closed = desk.closed()
    assert (closed.reason, closed.bytes_received, closed.bytes_sent) == ("client", *[len(data)] * 2)
    assert closed.error == ""
    counters = desk.served[0].counters
    assert (counters.closed.total, counters.bytes_sent) == (1, len(data))


def test_a_handler_that_returns_has_said_all(desk: Desk) -> None:
    """The client reads to the last byte, although it has sent what the handler has not read."""
    client = desk.connect(lambda it: it.send(b"bye"))
    client.sendall(b"not read by the handler")
    assert read_all(client) == b"bye"
    client.close()
    closed = desk.closed()
    assert (closed.reason, closed.bytes_sent) == ("finished", 3)


def test_a_client_that_stays_does_not_keep_it(desk: Desk) -> None:
    """It has a moment to close after the handler's end, and then the connection ends."""
    client = desk.connect(lambda _: None)
    assert client.recv(1) == b""
    assert desk.closed().reason == "finished"


# --- what it raises ---------------------------------------------------------------------------


def test_an_exception_ends_one_connection(desk: Desk) -> None:
    """It is reported with its traceback; others go on."""
    other = desk.connect(echo)

    def fail(_: HandlerConnection) -> None:
        raise ValueError("on purpose")

    assert desk.connect(fail).recv(1) == b""
    failed = desk.serving.only(ServiceFailed)
    assert (failed.connection, failed.error) == ("c2", "ValueError('on purpose')")
    assert 'raise ValueError("on purpose")' in failed.traceback
    closed = desk.closed()
    assert (closed.reason, closed.error) == ("error", "ValueError('on purpose')")
    other.sendall(b"x")
    assert other.recv(1) == b"x"


class Nameless(Exception):  # noqa: N818
    """An exception that cannot be described."""

    def __repr__(self) -> str:
        raise TypeError


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (SystemExit(3), "SystemExit(3)"),
        (KeyboardInterrupt(), "KeyboardInterrupt()"),
        (Nameless(), "RuntimeError('Nameless, whose repr() fails')"),
        (OSError(2, "of its own"), "FileNotFoundError(2, 'of its own')"),
    ],
)
def test_whatever_a_handler_raises_is_its_own(desk: Desk, error: BaseException, shown: str) -> None:
    """Neither sys.exit() nor an exception that cannot even be described ends more than its own."""

    def fail(_: HandlerConnection) -> None:
        raise error

    served = desk.listen(fail)
    assert desk.connect(served).recv(1) == b""
    assert (desk.closed().reason, desk.closed().error) == ("error", shown)
    assert desk.connect(served).recv(1) == b""


# --- time-outs --------------------------------------------------------------------------------


def test_a_silent_client_is_ended(desk: Desk) -> None:
    """`recv` raises TimeoutError after the idle time-out; to let it through is no failure."""
    found: list[OSError | None] = []

    def wait(it: HandlerConnection) -> None:
        found.append(raised(it, HandlerConnection.recv))
        it.recv()

    assert desk.connect(wait, idle_seconds=0.05).recv(1) == b""
    assert desk.closed().reason == "idle"
    assert "silent for idle_timeout" in str(found[0])
    assert isinstance(found[0], TimeoutError)
    assert ServiceFailed.__name__ not in desk.serving.reports.kinds


def test_time_outs_of_many_take_several_turns(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for a thread, too."""
    monkeypatch.setattr(connections, "TIMEOUTS_PER_TURN", 2)
    end, turns = HandlerConnections._end, list[float]()

    def noted(self: HandlerConnections, *arguments: Any) -> None:
        turns.append(desk.serving.tcp_loop.now)
        end(self, *arguments)

    monkeypatch.setattr(HandlerConnections, "_end", noted)
    gate = desk.gate()
    served = desk.listen(lambda _: gate.wait(SECONDS), idle_seconds=100, handler_threads=1)
    for _ in range(7):
        desk.connect(served)

    def time_out() -> None:
        for each in desk.serving.handlers.connections():
            each.active_at -= 200
        desk.serving.tcp_loop.call_at(0.0, desk.serving.handlers)

    desk.in_loop(time_out)
    eventually(lambda: len(turns) == 7)
    assert [turns.count(each) for each in sorted({*turns})] == [2, 2, 2, 1]


def test_a_client_that_takes_nothing_is_ended(desk: Desk) -> None:
    """`send` raises TimeoutError after the write time-out, however long the idle one is."""
    found: list[OSError | None] = []
    big = bytes(8_000_000)
    desk.connect(lambda it: found.append(raised(it, lambda it: it.send(big))), write_seconds=0.05)
    closed = desk.closed()
    assert (closed.reason, closed.seconds >= 0.05) == ("write", True)
    assert 0 < closed.bytes_sent < len(big)
    eventually(lambda: found)
    assert isinstance(found[0], TimeoutError)


def test_a_connection_lasts_no_longer_than_it_may(desk: Desk) -> None:
    """However much is said; the handler is told by TimeoutError."""
    found: list[OSError | None] = []

    def serve(it: HandlerConnection) -> None:
        while not found:
            if error := raised(it, lambda it: it.send(it.recv())):
                found.append(error)

    client = desk.connect(serve, max_connection_seconds=0.2)
    client.sendall(b"x")
    while client.recv(1):
        with suppress(OSError):  # it has ended in between
            client.sendall(b"x")
    eventually(lambda: found)
    assert isinstance(found[0], TimeoutError)
    assert "max_connection_seconds" in str(found[0])
    assert desk.closed().reason == "age"


def test_what_a_client_breaks_off_is_no_failure(desk: Desk) -> None:
    """The handler is told by an OSError, the record says that the client reset it."""
    found: list[OSError | None] = []
    gone = desk.gate()

    def serve(it: HandlerConnection) -> None:
        wait_event(gone, "the client's end")
        found.append(raised(it, lambda it: it.send(bytes(8_000_000))))

    reset(desk.connect(serve))
    gone.set()
    assert desk.closed().reason == "reset"
    assert isinstance(found[0], ConnectionError)
    assert ServiceFailed.__name__ not in desk.serving.reports.kinds


def test_what_a_handler_makes_of_it_is_a_failure(desk: Desk) -> None:
    """An exception of its own, raised when the time-out tells it, is logged; the reason stays."""

    def serve(it: HandlerConnection) -> None:
        try:
            it.recv()
        except TimeoutError as error:
            raise LookupError from error

    desk.connect(serve, idle_seconds=0.05)
    assert desk.closed().reason == "idle"
    assert ServiceFailed.__name__ in desk.serving.reports.kinds


# --- what it sees -----------------------------------------------------------------------------


def test_a_handler_sees_who_and_where(desk: Desk) -> None:
    """The addresses, the listener, the protocol, and until when it has time."""
    seen: list[Any] = []

    def serve(it: HandlerConnection) -> None:
        seen.extend((it.peer, it.local, it.listener, it.protocol))
        seen.append(it.deadline - monotonic())

    served = desk.listen(serve, idle_seconds=100)
    client = desk.connect(served)
    client.recv(1)
    assert seen[:4] == [client.getsockname(), served.local, "echo", "tcp"]
    assert 90 < seen[4] <= 100
    deadlines: list[float] = []
    desk.connect(lambda it: deadlines.append(it.deadline), idle_seconds=0).recv(1)
    desk.connect(
        lambda it: deadlines.append(it.deadline - monotonic()),
        idle_seconds=100,
        max_connection_seconds=50,
    ).recv(1)
    assert deadlines[0] == float("inf")
    assert 40 < deadlines[1] <= 50


def test_a_connection_that_was_kept_is_over(desk: Desk) -> None:
    """Calls after the handler has returned raise, and touch no descriptor."""
    kept: list[HandlerConnection] = []
    desk.connect(kept.append).close()
    desk.closed()
    for call in (kept[0].recv, lambda: kept[0].send(b"x")):
        with pytest.raises(ConnectionAbortedError, match="the handler has returned"):
            call()


# --- threads ----------------------------------------------------------------------------------


def test_connections_wait_for_a_thread(desk: Desk) -> None:
    """Beyond `handler_threads` they wait, are live, and are served when one is free; that they wait
    is told when it begins and when it ends.
    """
    gate = desk.gate()
    turns = one_each(desk, lambda _: wait_event(gate, "the end"), echo)
    served = desk.listen(turns, handler_threads=1)
    first, second = desk.connect(served), desk.connect(served)
    second.sendall(b"hello")
    busy = desk.serving.only(HandlersBusy)
    assert busy == HandlersBusy("echo", "echo", 1)
    assert desk.live == len(desk.serving.handlers.connections()) == served.listener.live == 2
    gate.set()
    assert second.recv(5) == b"hello"
    assert first.recv(1) == b""
    free = desk.serving.only(HandlersFree)
    assert (free.listener, free.service) == ("echo", "echo")
    assert 0 <= free.seconds < SECONDS


def test_a_connection_that_waits_for_too_long_is_ended(desk: Desk) -> None:
    """One that no thread has taken ends at the idle time-out; its handler never runs."""
    gate = desk.gate()
    runs: list[int] = []

    def serve(_: HandlerConnection) -> None:
        runs.append(1)
        wait_event(gate, "the end")

    served = desk.listen(serve, handler_threads=1, idle_seconds=0.2)
    desk.connect(served)
    assert desk.connect(served).recv(1) == b""
    assert {desk.closed(count).reason for count in (1, 2)} == {"idle"}
    stuck = desk.serving.only(HandlerStuck)
    assert stuck.connection == "c1"
    assert runs == [1]


def test_a_handler_that_does_not_return_keeps_a_thread_alone(desk: Desk) -> None:
    """Its connection ends with its record and gives its place back, which the log explains. Its
    socket stays open, so that no other connection gets a descriptor that it may still use.
    """
    gate = desk.gate()
    sockets: list[socket.socket] = []

    def serve(_: HandlerConnection) -> None:
        [one] = desk.serving.handlers.connections()
        sockets.append(one.sock)  # type: ignore[arg-type]
        wait_event(gate, "the end")

    served = desk.listen(serve, idle_seconds=0.05)
    client = desk.connect(served)
    assert client.recv(1) == b""
    assert desk.closed().reason == "idle"
    desk.serving.settle()
    assert served.listener.live == desk.serving.limit.used == 0
    stuck = desk.serving.only(HandlerStuck)
    assert (stuck.connection, stuck.peer_port) == ("c1", client.getsockname()[1])
    assert sockets[0].fileno() >= 0
    gate.set()
    eventually(lambda: sockets[0].fileno() == -1, "the socket is closed")


def test_a_handler_that_goes_on_regardless_does_not_keep_its_connection(desk: Desk) -> None:
    """However it swallows exceptions."""
    gate = desk.gate()

    def stubborn(it: HandlerConnection) -> None:
        while not gate.is_set():
            raised(it, HandlerConnection.recv)

    assert desk.connect(stubborn, idle_seconds=0.05).recv(1) == b""
    assert desk.closed().reason == "idle"


# --- stop and reload --------------------------------------------------------------------------


def test_handlers_see_how_long_a_drain_lasts(desk: Desk) -> None:
    """And serve until then; the last one that returns is told."""
    seen: list[float] = []
    gate, empty = desk.gate(), desk.gate()

    def serve(it: HandlerConnection) -> None:
        wait_event(gate, "the drain")
        seen.append(it.deadline - monotonic())
        echo(it)

    client = desk.connect(serve, idle_seconds=0)
    desk.serving.limit.on_empty = empty.set
    desk.in_loop(desk.serving.handlers.drain, monotonic() + 30.0)
    gate.set()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert not empty.is_set()
    client.close()
    wait_event(empty, "that none is left")
    assert 20 < seen[0] <= 30
    assert desk.closed().reason == "client"


def test_a_stop_ends_what_is_left(desk: Desk) -> None:
    """Those in `recv` are woken, those that wait for a thread never run, and no handler that does
    not return keeps the daemon.
    """
    gate = desk.gate()
    found: list[OSError | None] = []
    turns = one_each(
        desk,
        lambda it: found.append(raised(it, HandlerConnection.recv)),
        lambda _: wait_event(gate, "the end"),
        lambda _: found.append(OSError("it has run")),
    )
    served = desk.listen(turns, handler_threads=2)
    for count in (1, 2):
        desk.connect(served)
        eventually(lambda n=count: desk.serving.handlers.live == n, "its thread has it")
    desk.connect(served)
    desk.serving.only(HandlersBusy)
    assert desk.in_loop(desk.serving.handlers.stop) == 3
    eventually(lambda: found)
    desk.in_loop(desk.serving.handlers.shutdown)
    assert {desk.closed(count).reason for count in (1, 2, 3)} == {"drain"}
    assert ServiceFailed.__name__ not in desk.serving.reports.kinds
    assert isinstance(found[0], ConnectionAbortedError)


def test_a_reload_ends_what_it_no_longer_allows(desk: Desk) -> None:
    """The rule is in the record; what may stay has the new settings."""
    served = desk.listen(echo)
    desk.connect(served)
    update = desk.serving.handlers.update
    desk.in_loop(update, served.listener, lambda host: f"no {host}")
    closed = desk.closed()
    assert (closed.reason, closed.error) == ("access", "no 127.0.0.1")
    stays = desk.connect(served)
    served.listener.settings = served.listener.settings._replace(idle_seconds=0.05)
    desk.in_loop(update, served.listener, lambda _: "")
    assert stays.recv(1) == b""
    assert desk.closed(2).reason == "idle"


def test_a_reload_changes_the_number_of_threads(desk: Desk) -> None:
    """A connection that waits for a thread is served at once when there are more."""
    gate = desk.gate()
    turns = one_each(desk, lambda _: wait_event(gate, "the end"), echo)
    served = desk.listen(turns, handler_threads=1)
    desk.connect(served)
    waits = desk.connect(served)
    waits.sendall(b"x")
    desk.serving.only(HandlersBusy)
    served.listener.settings = served.listener.settings._replace(handler_threads=2)
    desk.in_loop(desk.serving.handlers.update, served.listener, lambda _: "")
    assert waits.recv(1) == b"x"


def test_a_reload_ends_the_threads_of_a_listener_that_has_none_live(desk: Desk) -> None:
    """They are started again when a connection needs them."""
    served = desk.listen(echo)
    for count in (1, 2):
        desk.connect(served).close()
        desk.closed(count)
        before = threading.active_count()
        desk.in_loop(desk.serving.handlers.update, served.listener, lambda _: "")
        assert threading.active_count() == before - 1
