"""netsrvd.listeners.handlers.server, over socket pairs; tests/wire has it over TCP"""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netsrvd.events.connections import Closed, ServiceFailed
from netsrvd.events.handlers import HandlersBusy, HandlersFree, HandlerStuck
from netsrvd.listeners import connection
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.handlers import server
from netsrvd.listeners.handlers.handled import Conversation
from netsrvd.listeners.handlers.server import Handlers
from netsrvd.services.base import Stream
from netsrvd.settings import ListenerSettings
from tests.support.patience import SECONDS, eventually
from tests.support.reports import Failures, Reports
from tests.support.waiting import wait_end, wait_event

PEER, LOCAL = ("192.0.2.1", 40_000), ("192.0.2.9", 7)
SETTINGS = ListenerSettings("lab", service="python:lab:serve")


class Desk:
    """Handlers, and clients at the far ends of socket pairs."""

    def __init__(self) -> None:
        self.reports, self.failures = Reports(), Failures()
        self.emptied = threading.Event()
        self.departures: list[str] = []
        self.handlers = Handlers(self.reports, self.emptied.set, self.failures)
        self.sockets: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.gates: list[threading.Event] = []

    def connect(self, handler: Callable[[Conversation], object], **given: Any) -> socket.socket:
        """Hand a connection over; return the client's end."""
        mine, client = socket.socketpair()
        mine.setblocking(False)
        client.settimeout(SECONDS)
        name = f"c-{len(self.clients) + 1}"
        self.sockets.append(mine)
        self.clients.append(client)
        settings = SETTINGS._replace(**given)
        made = Connection(
            *(mine, name, PEER, LOCAL, settings, Stream),
            lambda: self.departures.append(name),
            server.monotonic(),
        )
        self.handlers.take(handler, made)
        return client

    def gate(self) -> threading.Event:
        """Return an event that is set at the end at the latest."""
        self.gates.append(threading.Event())
        return self.gates[-1]

    def closed(self, count: int = 1) -> Closed:
        """Return the record of the last of so many connections that ended."""
        event = self.reports.wait_for(Closed, count)[count - 1]
        assert isinstance(event, Closed)
        return event

    def end(self) -> None:
        """End everything; no thread may have failed, and each connection has one record."""
        self.handlers.stop()
        wait_end(self.handlers.duty)
        for gate in self.gates:
            gate.set()
        for each in self.clients:
            each.close()
        assert self.failures.found == []
        assert len(self.reports.wait_for(Closed, len(self.clients))) == len(self.clients)
        assert sorted(self.departures) == sorted(f"c-{n + 1}" for n in range(len(self.clients)))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return a desk that looks for overdue connections often, and waits for nobody for long."""
    monkeypatch.setattr(server, "LONGEST_SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(server, "STUCK_SECONDS", 0.5)
    monkeypatch.setattr(server, "LAST_SECONDS", 0.5)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.5)
    made = Desk()
    made.handlers.duty.start()
    yield made
    made.end()
    hands = [each for each in threading.enumerate() if each.name.startswith("handler lab")]
    for hand in hands:
        hand.join(SECONDS)
    for each in made.sockets:
        each.close()


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the end."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def echo(conversation: Conversation) -> None:
    while data := conversation.recv():
        conversation.send(data)


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
    counters = desk.handlers.counters
    assert (counters.closed, counters.bytes_sent) == (1, len(data))


def test_a_handler_that_returns_has_said_all(desk: Desk) -> None:
    """The client reads to the last byte, although it has sent what nobody has read."""
    client = desk.connect(lambda it: it.send(b"bye"))
    client.sendall(b"not read by the handler")
    assert read_all(client) == b"bye"
    client.close()
    closed = desk.closed()
    assert (closed.reason, closed.bytes_sent) == ("finished", 3)


def test_a_client_that_stays_does_not_keep_it(desk: Desk) -> None:
    """Who does not close after the handler's end has a moment, and then the connection ends."""
    client = desk.connect(lambda _: None)
    assert client.recv(1) == b""
    assert desk.closed().reason == "finished"


def test_an_exception_ends_one_connection(desk: Desk) -> None:
    """It is told with its traceback; others go on, also by the same thread."""
    other = desk.connect(echo)

    def fail(_: Conversation) -> None:
        raise ValueError("on purpose")

    assert desk.connect(fail).recv(1) == b""
    [failed] = desk.reports.wait_for(ServiceFailed)
    assert isinstance(failed, ServiceFailed)
    assert (failed.connection, failed.error) == ("c-2", "ValueError('on purpose')")
    assert failed.service == "python:lab:serve"
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

    def fail(_: Conversation) -> None:
        raise error

    assert desk.connect(fail).recv(1) == b""
    assert (desk.closed().reason, desk.closed().error) == ("error", shown)


def told(conversation: Conversation, call: Callable[[Conversation], object]) -> OSError | None:
    """Return what a call of a handler's raises, as each later one does."""
    try:
        call(conversation)
    except OSError as error:
        for again in (conversation.recv, lambda: conversation.send(b"")):
            with pytest.raises(type(error)):
                again()
        return error
    return None


def test_a_silent_client_is_ended(desk: Desk) -> None:
    """`recv` raises TimeoutError after the idle time-out; to let it through is no failure."""
    found: list[OSError | None] = []

    def wait(conversation: Conversation) -> None:
        found.append(told(conversation, Conversation.recv))
        conversation.recv()

    assert desk.connect(wait, idle_seconds=0.05).recv(1) == b""
    assert desk.closed().reason == "idle"
    assert "silent for idle_timeout" in str(found[0])
    assert isinstance(found[0], TimeoutError)
    assert ServiceFailed.__name__ not in desk.reports.kinds


def test_a_client_that_takes_nothing_is_ended(desk: Desk) -> None:
    """`send` raises TimeoutError after the write time-out, however long the idle one is."""
    found: list[OSError | None] = []
    big = bytes(8_000_000)
    desk.connect(lambda it: found.append(told(it, lambda it: it.send(big))), write_seconds=0.05)
    closed = desk.closed()
    assert (closed.reason, closed.seconds >= 0.05) == ("write", True)
    assert 0 < closed.bytes_sent < len(big)
    assert isinstance(found[0], TimeoutError)


def test_a_slow_client_is_not_ended(desk: Desk) -> None:
    """The write time-out counts from when the client last took something."""
    big = bytes(3_000_000)
    client = desk.connect(lambda it: it.send(big), write_seconds=0.6)
    received, began = 0, server.monotonic()
    while received < len(big):
        received += len(client.recv(1 << 17))
        threading.Event().wait(0.05)  # this client's own pace
    assert server.monotonic() - began > 0.8
    client.close()
    assert desk.closed().reason == "finished"


def test_what_a_client_breaks_off_is_no_failure(desk: Desk) -> None:
    """The handler is told by an OSError, the record says that the client reset it."""
    found: list[OSError | None] = []
    gone = desk.gate()

    def serve(conversation: Conversation) -> None:
        wait_event(gone, "the client's end")
        found.append(told(conversation, lambda it: it.send(bytes(8_000_000))))

    desk.connect(serve).close()
    gone.set()
    assert desk.closed().reason == "reset"
    assert isinstance(found[0], BrokenPipeError)


def test_what_a_handler_makes_of_it_is_a_failure(desk: Desk) -> None:
    """An exception of its own, raised when the time-out tells it, is logged; the reason stays."""

    def serve(conversation: Conversation) -> None:
        try:
            conversation.recv()
        except TimeoutError as error:
            raise LookupError from error

    desk.connect(serve, idle_seconds=0.05)
    assert desk.closed().reason == "idle"
    assert ServiceFailed.__name__ in desk.reports.kinds


def test_a_handler_sees_who_and_where(desk: Desk) -> None:
    """The addresses, the listener, the protocol, and until when it has time."""
    seen: list[object] = []

    def serve(it: Conversation) -> None:
        seen.extend((it.peer, it.local, it.listener, it.protocol))
        seen.append(it.deadline - server.monotonic())

    desk.connect(serve, idle_seconds=100).recv(1)
    desk.connect(lambda it: seen.append(it.deadline), idle_seconds=0).recv(1)
    assert seen[:4] == [PEER, LOCAL, "lab", "tcp"]
    assert isinstance(seen[4], float)
    assert 90 < seen[4] <= 100
    assert seen[5] == float("inf")


def test_a_conversation_that_was_kept_is_over(desk: Desk) -> None:
    """Calls after the handler has returned raise, and touch no descriptor."""
    kept: list[Conversation] = []
    desk.connect(kept.append).close()
    desk.closed()
    for call in (kept[0].recv, lambda: kept[0].send(b"x")):
        with pytest.raises(ConnectionAbortedError, match="the handler has returned"):
            call()


def test_connections_wait_for_a_thread(desk: Desk) -> None:
    """Beyond `handler_threads` they wait, are live, and are served when one is free; that they wait
    is told when it begins and when it ends.
    """
    gate = desk.gate()
    first = desk.connect(lambda _: wait_event(gate, "the end"), handler_threads=1)
    second = desk.connect(echo, handler_threads=1)
    second.sendall(b"hello")
    [busy] = desk.reports.wait_for(HandlersBusy)
    assert busy == HandlersBusy("lab", "python:lab:serve", 1)
    assert desk.handlers.live == len(desk.handlers.connections()) == 2
    gate.set()
    assert second.recv(5) == b"hello"
    assert first.recv(1) == b""
    [free] = desk.reports.wait_for(HandlersFree)
    assert isinstance(free, HandlersFree)
    assert (free.listener, free.service) == ("lab", "python:lab:serve")
    assert free.seconds < SECONDS


def test_who_waits_for_too_long_is_ended(desk: Desk) -> None:
    """A connection that no thread has taken ends at the idle time-out; its handler never runs."""
    gate = desk.gate()
    desk.connect(lambda _: wait_event(gate, "the end"), handler_threads=1)
    waits = desk.connect(lambda _: pytest.fail("run"), handler_threads=1, idle_seconds=0.05)
    assert waits.recv(1) == b""
    assert (desk.closed().connection, desk.closed().reason) == ("c-2", "idle")
    assert HandlerStuck.__name__ not in desk.reports.kinds


def test_a_handler_that_does_not_return_keeps_a_thread_alone(desk: Desk) -> None:
    """Its connection ends with its record and gives its place back, which the log explains."""
    gate = desk.gate()
    client = desk.connect(lambda _: wait_event(gate, "the end"), idle_seconds=0.05)
    assert client.recv(1) == b""
    assert desk.closed().reason == "idle"
    desk.handlers.duty.settle(SECONDS)
    assert desk.departures == ["c-1"]
    [stuck] = desk.reports.wait_for(HandlerStuck)
    assert isinstance(stuck, HandlerStuck)
    assert (stuck.connection, stuck.peer_address) == ("c-1", "192.0.2.1")
    assert desk.sockets[0].fileno() >= 0
    gate.set()
    eventually(lambda: desk.sockets[0].fileno() == -1, "the socket is closed")


def test_a_handler_that_goes_on_regardless(desk: Desk) -> None:
    """Who swallows every exception does not keep his connection."""
    gate = desk.gate()

    def stubborn(conversation: Conversation) -> None:
        while not gate.is_set():
            told(conversation, Conversation.recv)

    assert desk.connect(stubborn, idle_seconds=0.05).recv(1) == b""
    assert desk.closed().reason == "idle"


def test_a_drain_waits_for_handlers(desk: Desk) -> None:
    """Who drains is told when the last has ended by itself; handlers see how long they have."""
    seen: list[float] = []
    gate = desk.gate()

    def serve(conversation: Conversation) -> None:
        wait_event(gate, "the drain")
        seen.append(conversation.deadline - server.monotonic())
        echo(conversation)

    client = desk.connect(serve)
    desk.handlers.drain(server.monotonic() + 30.0)
    desk.handlers.duty.settle(SECONDS)
    assert not desk.handlers.drained
    gate.set()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert not desk.emptied.is_set()
    client.close()
    wait_event(desk.emptied, "that it is empty")
    assert desk.handlers.drained
    assert 20 < seen[0] <= 30
    assert desk.closed().reason == "client"


def test_an_empty_one_is_drained_at_once(desk: Desk) -> None:
    """Nobody is there to be waited for."""
    desk.handlers.drain(0.0)
    wait_event(desk.emptied, "that it is empty")
    assert desk.handlers.drained


def test_a_stop_ends_what_is_left(desk: Desk) -> None:
    """Those who wait in `recv` are woken, those who wait for a thread never run, and nobody who
    does not return keeps the daemon.
    """
    gate = desk.gate()
    found: list[OSError | None] = []
    desk.connect(lambda it: found.append(told(it, Conversation.recv)), handler_threads=2)
    desk.connect(lambda _: wait_event(gate, "the end"), handler_threads=2)
    desk.connect(lambda _: pytest.fail("run"), handler_threads=2)
    desk.reports.wait_for(HandlersBusy)
    desk.handlers.stop()
    wait_end(desk.handlers.duty)
    assert desk.handlers.cut == 3
    assert {desk.closed(count).reason for count in (1, 2, 3)} == {"drain"}
    assert desk.reports.kinds.count("HandlerStuck") == 1
    assert ServiceFailed.__name__ not in desk.reports.kinds
    assert isinstance(found[0], ConnectionAbortedError)


def test_a_reload_ends_who_may_no_longer_come(desk: Desk) -> None:
    """The rule is in the record; who may stay has the new settings."""
    desk.connect(echo)
    desk.handlers.update({"lab": (SETTINGS, lambda host: f"no {host}")})
    closed = desk.closed()
    assert (closed.reason, closed.error) == ("access", "no 192.0.2.1")
    stays = desk.connect(echo)
    desk.handlers.update({"lab": (SETTINGS._replace(idle_seconds=0.05), lambda _: "")})
    assert stays.recv(1) == b""
    assert desk.closed(2).reason == "idle"


def test_a_reload_changes_the_number_of_threads(desk: Desk) -> None:
    """Who waits for one is served at once when there are more."""
    gate = desk.gate()
    desk.connect(lambda _: wait_event(gate, "the end"), handler_threads=1)
    waits = desk.connect(echo, handler_threads=1)
    waits.sendall(b"x")
    desk.reports.wait_for(HandlersBusy)
    desk.handlers.update({"lab": (SETTINGS._replace(handler_threads=2), lambda _: "")})
    assert waits.recv(1) == b"x"


def test_a_listener_that_is_gone_keeps_its_connections_and_no_threads(desk: Desk) -> None:
    """They go on to their end; the reload after that dismisses the threads."""
    client = desk.connect(echo)
    desk.handlers.update({})
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    client.close()
    desk.closed()
    before = threading.active_count()
    desk.handlers.update({})
    desk.handlers.duty.settle(SECONDS)
    assert threading.active_count() == before - 1
