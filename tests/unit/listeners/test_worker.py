"""netsrvd.listeners.worker, over socket pairs; tests/wire has it over TCP"""

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from netsrvd.counters import Counters
from netsrvd.events.connections import Closed, ServiceFailed
from netsrvd.listeners import connection, worker
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.worker import RECEIVE_BYTES, Worker
from netsrvd.services.echo import Stream
from netsrvd.settings import ListenerSettings
from tests.support.listening import failure
from tests.support.patience import SECONDS
from tests.support.reports import Failures, Reports
from tests.support.waiting import wait_end, wait_event

PEER, LOCAL = ("192.0.2.1", 40_000), ("192.0.2.9", 7)
BIG = 4 * 1024 * 1024


class Desk:
    """A worker, and clients at the far ends of socket pairs."""

    def __init__(self) -> None:
        self.reports, self.failures = Reports(), Failures()
        self.emptied = threading.Event()
        self.departures: list[str] = []
        self.worker = Worker(1, self.reports, self.emptied.set, self.failures)
        self.clients: list[socket.socket] = []
        self.sockets: list[socket.socket] = []

    def connect(
        self, service: Callable[..., Any] = Stream, near: socket.socket | None = None, **given: Any
    ) -> socket.socket:
        """Hand a connection over; return the client's end."""
        connection, client = self.connection(service, near, **given)
        self.worker.take(connection)
        return client

    def connection(
        self,
        service: Callable[..., Any] = Stream,
        near: socket.socket | None = None,
        identity: str | None = None,
        **given: Any,
    ) -> tuple[Connection, socket.socket]:
        """Return a connection and the client's end."""
        mine, client = socket.socketpair()
        if near is not None:
            mine.close()
        mine = near or mine
        mine.setblocking(False)
        client.settimeout(SECONDS)
        name = f"c-{len(self.clients) + 1}" if identity is None else identity
        self.clients.append(client)
        self.sockets.append(mine)
        made = Connection(
            *(mine, name, PEER, LOCAL, ListenerSettings("lab", **given), service),
            lambda: self.departures.append(name),
            0.0 if given else self.worker._now,
        )
        return made, client

    def surrendered(self) -> list[Connection]:
        """Have the worker give all away; return them."""
        given: list[Connection] = []
        self.worker.surrender(given)
        assert self.worker.duty.settle(SECONDS)
        return given

    def closed(self) -> Closed:
        """Return the record of the first connection that ended."""
        event = self.reports.wait_for(Closed)[0]
        assert isinstance(event, Closed)
        return event

    def end(self) -> None:
        """End everything; no thread may have failed."""
        self.worker.stop()
        wait_end(self.worker.duty)
        for each in self.clients:
            each.close()
        assert all(each.fileno() == -1 for each in self.sockets)
        assert self.failures.found == []


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Return a desk that looks for overdue connections often."""
    monkeypatch.setattr(worker, "LONGEST_SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.05)
    made = Desk()
    made.worker.duty.start()
    yield made
    made.end()


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the end."""
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


class Talker:
    """A service that greets, says more when asked, and has then said all."""

    heedless = False

    def __init__(self, greeting: bytes = b"hello ", more: int = 3) -> None:
        self.finished = False
        self._greeting, self._more = greeting, more

    def greeting(self) -> bytes:
        return self._greeting

    def respond(self, data: bytes) -> bytes:
        self.finished = True
        return data.upper() + b"x" * BIG

    def more(self) -> bytes:
        self._more -= 1
        return b"more " if self._more >= 0 else b""


class Broken(Stream):
    """A service with a bug."""

    def respond(self, data: bytes) -> bytes:
        raise ZeroDivisionError("a bug")


def test_every_byte_comes_back_and_then_the_end(desk: Desk) -> None:
    """A client that sends and shuts down its side gets everything, the end, and one record."""
    client = desk.connect()
    client.sendall(b"one ")
    assert client.recv(4) == b"one "
    client.sendall(b"two")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"two"
    record = desk.closed()
    assert (record.reason, record.bytes_received, record.bytes_sent) == ("client", 7, 7)
    desk.worker.duty.settle(SECONDS)
    assert desk.departures == ["c-1"]
    counters = desk.worker.counters
    assert (counters.closed, counters.bytes_received, counters.bytes_sent) == (1, 7, 7)


def test_what_is_not_taken_waits_and_is_sent_after_the_end(desk: Desk) -> None:
    """A client that sends all before it reads anything still gets every byte: reading stops
    while an answer waits, so what waits is bounded.
    """
    client = desk.connect()
    data = os.urandom(BIG)

    def send() -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(client) == data
    sender.join()
    assert desk.closed().bytes_sent == BIG
    assert RECEIVE_BYTES < BIG


def test_a_service_may_speak_first_and_last(desk: Desk) -> None:
    """A greeting comes before anything is asked; when a service has said all it closes."""
    client = desk.connect(lambda *_: Talker(more=0))
    assert client.recv(6) == b"hello "
    client.sendall(b"x")
    assert read_all(client) == b"X" + BIG * b"x"
    assert desk.closed().reason == "finished"


def test_a_greeting_may_be_all(desk: Desk) -> None:
    """A service that has said all with its greeting closes at once."""

    class Greeting(Talker):
        def greeting(self) -> bytes:
            self.finished = True
            return b"bye"

    assert read_all(desk.connect(lambda *_: Greeting())) == b"bye"
    assert desk.closed().reason == "finished"


@pytest.mark.parametrize("size", [0, 1, BIG])
def test_more_is_asked_for_when_the_peer_takes_more(desk: Desk, size: int) -> None:
    """A service that goes on by itself is asked again whenever everything so far is taken."""
    greeting = size * b"x"
    client = desk.connect(lambda *_: Talker(greeting))
    got = b""
    while len(got) < size + 3 * len(b"more "):
        got += client.recv(1 << 16)
    assert got == greeting + 3 * b"more "


def test_a_bug_in_a_service_ends_one_connection(desk: Desk) -> None:
    """The traceback is reported with the connection's id, and the others go on."""
    other, client = desk.connect(), desk.connect(Broken)
    client.sendall(b"x")
    assert read_all(client) == b""
    [failed] = desk.reports.wait_for(ServiceFailed)
    record = desk.closed()
    assert isinstance(failed, ServiceFailed)
    assert failed.connection == record.connection == "c-2"
    assert "a bug" in failed.traceback
    assert (record.reason, record.error) == ("error", "ZeroDivisionError('a bug')")
    other.sendall(b"still here")
    assert other.recv(10) == b"still here"


def test_a_service_that_cannot_be_made_ends_one_connection(desk: Desk) -> None:
    """So does an exception of its constructor."""

    def broken() -> Stream:
        raise ZeroDivisionError

    assert read_all(desk.connect(broken)) == b""
    assert desk.closed().reason == "error"


@pytest.mark.parametrize(
    ("number", "reason", "error"),
    [
        (errno.ECONNRESET, "reset", ""),
        (errno.EPIPE, "reset", ""),
        (errno.ETIMEDOUT, "network", "[Errno 110] Connection timed out"),
        (errno.EHOSTUNREACH, "network", "[Errno 113] No route to host"),
    ],
)
def test_errors_of_the_network_are_reasons(
    desk: Desk, number: int, reason: str, error: str
) -> None:
    """A connection that breaks has its record like any other, without a traceback."""

    class Breaking(socket.socket):
        def recv(self, *_: Any) -> bytes:
            raise failure(number)

    near, far = socket.socketpair()
    far.send(b"x")
    desk.connect(near=Breaking(fileno=near.detach()))
    record = desk.closed()
    assert (record.reason, record.error) == (reason, error)
    far.close()


def test_a_spurious_wake_up_is_no_error(desk: Desk) -> None:
    """Readable is a hint: a recv that would block after all changes nothing."""

    class Hinting(socket.socket):
        hints = 1

        def recv(self, size: int, flags: int = 0) -> bytes:
            if self.hints:
                self.hints -= 1
                raise failure(errno.EAGAIN)
            return super().recv(size, flags)

    near, far = socket.socketpair()
    desk.connect(near=Hinting(fileno=near.detach()))
    far.sendall(b"x")
    far.settimeout(SECONDS)
    assert far.recv(1) == b"x"
    far.close()
    assert desk.closed().reason == "client"


@pytest.mark.parametrize(
    ("settings", "reason", "fills"),
    [({"idle_seconds": 0.001}, "idle", False), ({"write_seconds": 0.001}, "write", True)],
)
def test_time_outs_end_a_connection(
    desk: Desk,
    settings: dict[str, float],
    reason: str,
    fills: bool,  # noqa: FBT001
) -> None:
    """A silent client is ended as idle; one that takes nothing of its answer for its writing."""
    desk.connect((lambda *_: Talker(b"x" * BIG)) if fills else Stream, **settings)
    assert desk.closed().reason == reason


def test_new_settings_hold_for_live_connections(desk: Desk) -> None:
    """A reload that shortens the idle time-out ends those that have been silent for so long."""
    desk.connect(idle_seconds=0.0)
    client = desk.connect()
    settings = ListenerSettings("lab", idle_seconds=0.001)
    desk.worker.update({"other": (settings, lambda _: "a rule")})
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert desk.reports.events == []
    desk.worker.update({"lab": (settings._replace(), lambda _: "")})
    assert [desk.closed().reason, len(desk.reports.wait_for(Closed, 2))] == ["idle", 2]


def test_who_may_no_longer_come_in_is_ended(desk: Desk) -> None:
    """A reload whose rule is against a peer ends its connection, with that rule in the record."""
    client = desk.connect()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    desk.worker.update({"lab": (ListenerSettings("lab"), lambda host: f"no {host}")})
    closed = desk.closed()
    assert (closed.reason, closed.error) == ("access", f"no {closed.peer_address}")
    assert client.recv(1) == b""


def test_a_drain_waits_for_the_last_connection(desk: Desk) -> None:
    """Who waits for the drain is told when the last connection has ended, and not before."""
    client = desk.connect()
    desk.worker.drain()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert not desk.emptied.is_set()
    assert not desk.worker.drained
    client.close()
    wait_event(desk.emptied, "the end of the drain")
    assert desk.worker.drained


def test_nothing_to_drain_is_told_at_once(desk: Desk) -> None:
    """A worker without connections is empty when it is asked."""
    desk.worker.drain()
    wait_event(desk.emptied, "the end of the drain")


def test_a_stop_closes_what_is_left(desk: Desk) -> None:
    """Connections that are still open are cut off, each with its record, and counted."""
    clients = [desk.connect() for _ in range(3)]
    desk.worker.stop()
    wait_end(desk.worker.duty)
    assert desk.worker.cut == 3
    assert [read_all(client) for client in clients] == [b""] * 3
    assert {event.reason for event in desk.reports.events if isinstance(event, Closed)} == {"drain"}
    assert all(event.seconds >= 0 for event in desk.reports.events if isinstance(event, Closed))
    assert len(desk.departures) == 3
    assert desk.worker.live == 0


# --- giving away and taking up ----------------------------------------------------------------


def answers(client: socket.socket) -> bool:
    """Tell whether a byte comes back."""
    client.sendall(b"x")
    return client.recv(1) == b"x"


def test_connections_are_given_away(desk: Desk) -> None:
    """Nobody serves them any more; they are not closed, and have no record."""
    clients = [desk.connect() for _ in range(2)]
    assert all(map(answers, clients))
    given = desk.surrendered()
    assert [each.identity for each in given] == ["c-1", "c-2"]
    assert desk.worker.live == 0
    for client in clients:
        client.sendall(b"y")
    assert desk.surrendered() == []
    assert [each.bytes_received for each in given] == [1, 1]
    assert desk.reports.events == []
    assert desk.departures == []
    for each in given:
        assert each.sock.recv(1) == b"y"
        desk.worker.take(each)


def test_who_is_taken_back_is_served_as_before(desk: Desk) -> None:
    """What came meanwhile is answered, with the same service, and the counts go on."""
    client = desk.connect(lambda *_: Talker(more=0))
    assert client.recv(6) == b"hello "
    [given] = desk.surrendered()
    client.sendall(b"x")
    desk.worker.take(given)
    assert read_all(client) == b"X" + BIG * b"x"
    client.close()
    record = desk.closed()
    assert (record.connection, record.bytes_received) == ("c-1", 1)
    assert record.bytes_sent == len(b"hello X") + BIG


def test_who_is_about_to_end_anyway_stays(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that only waits for the client's end, and a visitor, are not given away."""
    monkeypatch.setattr(connection, "LINGER_SECONDS", 3600.0)

    class Greeting(Talker):
        def greeting(self) -> bytes:
            self.finished = True
            return b"bye"

    parting = desk.connect(lambda *_: Greeting())
    assert read_all(parting) == b"bye"
    visitor = desk.connect(identity="")
    assert answers(visitor)
    other = desk.connect()
    [given] = desk.surrendered()
    assert given.identity == "c-3"
    assert answers(visitor)
    visitor.close()
    parting.close()
    assert desk.closed().reason == "finished"
    desk.worker.take(given)
    assert answers(other)


def test_a_visitor_leaves_no_trace(desk: Desk) -> None:
    """Its end is no record and no count, but it departs as everybody does."""
    visitor = desk.connect(identity="")
    assert answers(visitor)
    visitor.shutdown(socket.SHUT_WR)
    assert visitor.recv(1) == b""
    desk.worker.duty.settle(SECONDS)
    assert desk.reports.events == []
    assert desk.worker.counters == Counters()
    assert desk.departures == [""]


def test_a_drain_ends_with_the_last_one_given_away(desk: Desk) -> None:
    """Who waits for the drain is told, as if it had ended; with others left, not yet."""
    made, _ = desk.connection()
    made.parts_at = monotonic() + SECONDS
    desk.worker.take(made)
    client = desk.connect()
    assert answers(client)
    desk.worker.drain()
    given = desk.surrendered()
    assert not desk.emptied.is_set()
    made.parts_at = 0.0
    given += desk.surrendered()
    assert desk.emptied.is_set()
    assert desk.worker.drained
    for each in given:
        each.sock.close()


def test_a_closed_connection_is_not_heard_of(desk: Desk) -> None:
    """Also if somebody else has its descriptor, as systemd has it at a restart: epoll(7) would go
    on telling of it, and the loop would never sleep.
    """
    made, client = desk.connection()
    other = os.dup(made.sock.fileno())
    desk.worker.take(made)
    assert answers(client)
    client.close()
    desk.reports.wait_for(Closed)
    desk.worker.duty.settle(SECONDS)
    assert desk.worker._epoll.poll(0) == []
    os.close(other)


def resumed(
    desk: Desk, service: Callable[..., Any] = Stream, backlog: bytes = b"", *, done: bool = False
) -> socket.socket:
    """Hand over a connection that began in another process; return the client's end."""
    made, client = desk.connection(service)
    now = desk.worker._now
    made.resume(None, now, now, (10, 5), backlog, client_done=done)
    desk.worker.take(made)
    return client


def test_what_was_half_sent_is_sent_first(desk: Desk) -> None:
    """Then what the client has sent meanwhile is answered; no byte is missing or twice."""
    made, client = desk.connection()
    now = desk.worker._now
    rest = os.urandom(BIG)
    made.resume(None, now, now, (10, 5), rest, client_done=False)
    client.sendall(b"meanwhile")
    desk.worker.take(made)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == rest + b"meanwhile"
    record = desk.closed()
    assert (record.bytes_received, record.bytes_sent) == (10 + 9, 5 + BIG + 9)


@pytest.mark.parametrize("backlog", [b"", b"rest"])
def test_who_was_half_closed_gets_the_rest_and_the_end(desk: Desk, backlog: bytes) -> None:
    """The client has said in the other process that it says nothing more."""
    client = resumed(desk, backlog=backlog, done=True)
    assert read_all(client) == backlog
    assert desk.closed().reason == "client"


class Said(Talker):
    """A service that had said all before."""

    def recall(self, memory: object) -> None:
        self.finished = True

    def respond(self, data: bytes) -> bytes:
        raise AssertionError("it is asked nothing any more")


@pytest.mark.parametrize("backlog", [b"", b"rest"])
def test_who_had_been_told_all_parts(desk: Desk, backlog: bytes) -> None:
    """A connection whose service has finished gets what is left of the answer, and our end."""
    client = resumed(desk, lambda *_: Said(more=0), backlog)
    assert read_all(client) == backlog
    client.sendall(b"too late")
    client.close()
    assert desk.closed().reason == "finished"


def test_who_goes_on_is_not_greeted_again(desk: Desk) -> None:
    """A service without an end goes on by itself."""

    class Mid(Talker):
        def recall(self, memory: object) -> None:
            pass

    client = resumed(desk, lambda *_: Mid(more=2))
    got = b""
    while len(got) < len(b"more more "):
        got += client.recv(100)
    assert got == b"more more "


def test_time_outs_count_from_the_last_byte_of_the_life_before(desk: Desk) -> None:
    """A client that was silent for long before the restart is not silent for as long again."""
    made, client = desk.connection(idle_seconds=50.0)
    now = desk.worker._now
    made.resume(None, now - 100, now - 60, (10, 5), b"", client_done=False)
    desk.worker.take(made)
    assert read_all(client) == b""
    record = desk.closed()
    assert (record.reason, record.seconds >= 100) == ("idle", True)
