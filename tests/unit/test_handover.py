"""netsrvd.handover, from a process to itself; tests/wire and tests/process have two"""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netsrvd import handover, services
from netsrvd.events.connections import Closed, ServiceFailed
from netsrvd.events.handover import HandoverUnusable
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.inherited import Inherited
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.services.base import Present
from netsrvd.services.echo import Stream
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.sockets import store
from netsrvd.sockets.activation import Stored
from netsrvd.sockets.states import ConnectionState
from tests.support.fdstore import Store
from tests.support.listening import failure

PEER, LOCAL = ("192.0.2.1", 40_000), ("192.0.2.9", 7)
LAB = ListenerSettings("lab", service="echo", idle_seconds=77.0)
SETTINGS = Settings(listeners=(LAB,))
SERVICES = {"lab": services.prepare("echo", LAB, Present())}
STATE = ConnectionState(
    *("a-1", "lab", "echo", PEER, LOCAL, 50.0, 60.0, 5, 4, b"rest"), client_done=True
)


@pytest.fixture
def systemd() -> Iterator[Any]:
    made = Store()
    yield made
    made.close()


class Clients:
    """Connections with a client at the far end."""

    def __init__(self) -> None:
        self.near: list[socket.socket] = []
        self.far: list[socket.socket] = []

    def come(self, make: Callable[..., Any] = Stream) -> Connection:
        """Return a connection that has been served for a while."""
        near, far = socket.socketpair()
        self.near.append(near)
        self.far.append(far)
        identity = f"a-{len(self.near)}"
        made = Connection(near, identity, PEER, LOCAL, LAB, make, list, 50.0)
        made.resume(None, 50.0, 60.0, (5, 4), b"rest", client_done=True)
        return made


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    for sock in made.near + made.far:
        sock.close()


# --- giving -----------------------------------------------------------------------------------


def test_what_is_given_arrives(systemd: Any, clients: Clients) -> None:
    """First the states, then the sockets, and systemd has them all when it returns; here nobody
    has them any more.
    """
    handover.give([clients.come(), clients.come()], [], systemd)
    assert systemd.steps == ["store handover/connection", "store handover/state", "settle"]
    assert [sock.fileno() for sock in clients.near] == [-1, -1]
    estate = store.unpack(systemd.stored)
    systemd.stored.clear()
    states = {state.identity: state for _, state in estate.connections}
    assert states == {"a-1": STATE, "a-2": STATE._replace(identity="a-2")}
    assert estate.problems == estate.lost == []
    for sock, _ in estate.connections:
        sock.close()


@pytest.mark.parametrize("step", ["store handover/state", "store handover/connection", "settle"])
def test_all_are_given_or_none(systemd: Any, clients: Clients, step: str) -> None:
    """Where systemd does not listen it is told to forget what it has, and all stay open here."""
    systemd.fails = {step: failure(errno.ENOTCONN)}
    with pytest.raises(OSError, match="not connected"):
        handover.give([clients.come(), clients.come()], [], systemd)
    assert systemd.steps[-2:] == ["forget handover/state", "forget handover/connection"]
    assert systemd.stored == []
    for near, far in zip(clients.near, clients.far, strict=True):
        near.send(b"x")
        assert far.recv(1) == b"x"


def test_no_descriptor_is_left(systemd: Any, clients: Clients) -> None:
    """That of the file with the states is closed, whether systemd took it or not."""
    connection = clients.come()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as many as there are
    systemd.fails = {"settle": failure(errno.ETIMEDOUT)}
    with pytest.raises(TimeoutError):
        handover.give([connection], [], systemd)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("memory", [lambda _: 1 / 0, lambda _: object()])
def test_a_service_that_remembers_nothing_sensible_gives_nothing_away(
    systemd: Any, clients: Clients, memory: Callable[[Any], Any]
) -> None:
    """Whatever it raises, or says, systemd hears nothing of it, and all stay open here."""

    class Forgetful(Stream):
        pass

    Forgetful.memory = memory  # type: ignore[method-assign]
    with pytest.raises((ZeroDivisionError, TypeError)):
        handover.give([clients.come(), clients.come(Forgetful)], [], systemd)
    assert systemd.steps == []
    assert all(sock.fileno() >= 0 for sock in clients.near)


def test_what_is_unsent_is_carried_along_up_to_a_limit(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those with the least of it first, so that as many as possible go along."""
    monkeypatch.setattr(handover, "MOST_UNSENT_BYTES", 10)
    most, none, some, more = (clients.come() for _ in range(4))
    most.backlog, none.backlog = memoryview(bytes(8)), None
    some.backlog, more.backlog = memoryview(bytes(4)), memoryview(bytes(6))
    assert handover.portable([most, none, some, more], 9) == ([none, some, more], [most])
    assert handover.portable([most, none, some, more], 2) == ([none, some], [more, most])
    assert handover.portable([none], 0) == ([], [none])


# --- taking up --------------------------------------------------------------------------------


def left(clients: Clients, *states: ConnectionState) -> list[Stored]:
    """Return what the process before left of these connections."""
    for _ in states:
        near, far = socket.socketpair()
        clients.near.append(near)
        clients.far.append(far)
    found = [(store.pack(zip(clients.near, states, strict=True), [], 9.5), store.STATE)]
    return found + [(os.dup(sock.fileno()), store.CONNECTION) for sock in clients.near]


def taken_up(stored: list[Stored]) -> Inherited:
    """Take up what was left; the sockets are closed, as they are not what is looked at."""
    inherited = handover.take_up(stored, SETTINGS, SERVICES, Present())
    for connection in inherited.connections:
        connection.sock.close()
    return inherited


def test_a_connection_goes_on_with_the_new_settings(clients: Clients) -> None:
    """It keeps its id, its counts, its service and its backlog, and has the limits of today."""
    stored = left(clients, STATE)
    clients.near[0].setblocking(True)
    inherited = handover.take_up(stored, SETTINGS, SERVICES, Present())
    [connection] = inherited.connections
    with connection.sock as sock:
        assert not sock.getblocking()
        assert not os.get_blocking(sock.fileno())
        sock.send(b"x")
        assert clients.far[0].recv(1) == b"x"
    assert (inherited.lost, inherited.given_at, inherited.notes) == (0, 9.5, [])
    assert connection.settings is LAB
    assert isinstance(connection.service, Stream)
    assert (connection.peer, connection.local) == (PEER, LOCAL)
    assert bytes(connection.backlog or b"") == b"rest"
    assert connection.closed("client", 52.0, "") == Closed(
        *("a-1", "lab", "echo", *PEER, *LOCAL, "client", 2.0, 5, 4)
    )


def test_a_guest_goes_on_waiting(systemd: Any) -> None:
    """With what it has said of its header, and for as long as it would have waited; whoever came
    first is the first one again.
    """
    pairs = [socket.socketpair() for _ in range(3)]
    guests = [
        Guest(pairs[0][0], "lab", PEER, 7.0, b"", has_header=True),
        Guest(pairs[1][0], "lab", PEER, 5.0, b"PROX"),
        Guest(pairs[2][0], "old", PEER, 6.0),
    ]
    handover.give([], guests, systemd)
    assert [near.fileno() for near, _ in pairs] == [-1] * 3
    inherited = handover.take_up(systemd.stored, SETTINGS, SERVICES, Present())
    systemd.stored.clear()
    assert (inherited.connections, inherited.lost, inherited.notes) == ([], 0, [])
    found = [
        (each.listener, each.peer, each.since, each.data, each.has_header)
        for each in inherited.guests
    ]
    assert found == [
        ("lab", PEER, 5.0, b"PROX", False),
        ("old", PEER, 6.0, b"", False),
        ("lab", PEER, 7.0, b"", True),
    ]
    for sock, (_, far) in zip(inherited.sockets, pairs, strict=True):
        sock.close()
        far.close()


def test_a_connection_outlives_its_listener(clients: Clients) -> None:
    """One whose listener is gone goes on under its name, by what holds without a setting."""
    [connection] = taken_up(
        left(clients, STATE._replace(listener="old", service="chargen"))
    ).connections
    assert connection.settings == ListenerSettings("old", "chargen")
    assert connection.service.heedless


def test_a_connection_keeps_its_service(clients: Clients) -> None:
    """A listener may serve something else by now; who came before it did goes on as before."""
    [connection] = taken_up(left(clients, STATE._replace(service="chargen"))).connections
    assert connection.service.more()
    assert connection.settings is LAB


def test_its_service_outlives_a_reload_and_a_restart(systemd: Any, clients: Clients) -> None:
    """A listener that serves something else by now has not changed who came before: neither that
    nor the name of it in the records.
    """
    given = clients.come()
    given.settings = LAB._replace(service="chargen")
    assert given.closed("client", 60.0, "").service == "echo"
    handover.give([given], [], systemd)
    prepared = {"lab": services.prepare("chargen", given.settings, Present())}
    inherited = handover.take_up(
        systemd.stored, Settings(listeners=(given.settings,)), prepared, Present()
    )
    systemd.stored.clear()
    [connection] = inherited.connections
    connection.sock.close()
    assert isinstance(connection.service, Stream)
    assert connection.closed("client", 60.0, "").service == "echo"


def test_what_did_not_come_along_has_its_record(clients: Clients) -> None:
    """A connection whose socket is missing is told as lost, with all that was counted."""
    stored = left(clients, STATE, STATE._replace(identity="a-2"))
    os.close(stored.pop()[0])
    inherited = taken_up(stored)
    assert [each.identity for each in inherited.connections] == ["a-1"]
    assert inherited.lost == 1
    [note] = inherited.notes
    assert isinstance(note, Closed)
    assert (note.connection, note.reason, note.error) == ("a-2", "lost", "")
    assert (note.listener, note.service, note.bytes_received, note.bytes_sent) == (
        *("lab", "echo", 5, 4),
    )
    assert note.seconds > 0


def test_what_cannot_be_used_is_told(clients: Clients) -> None:
    """A problem is a record, and all sockets are closed."""
    stored = left(clients, STATE)[1:]
    inherited = taken_up(stored)
    assert inherited == Inherited(
        [], [], 0, 0.0, [HandoverUnusable("1 connections came without their states")]
    )
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(stored[0][0])


def test_nothing_may_be_left() -> None:
    """An empty store is no handover."""
    assert taken_up([]) == Inherited([], [], 0, 0.0, [])


class Amnesiac(Stream):
    """A service with a bug."""

    def recall(self, memory: Any) -> None:
        raise ArithmeticError("a bug")


def test_a_service_that_cannot_go_on_ends_its_connections_alone(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone by now, or have a bug: each has its two records, and the others live."""
    prepare = services.prepare

    def prepared(name: str, *more: Any) -> Any:
        found = prepare("echo" if name == "amnesiac" else name, *more)
        return found._replace(stream=Amnesiac) if name == "amnesiac" else found

    monkeypatch.setattr(handover, "prepare", prepared)
    names = {"a-1": "amnesiac", "a-2": "echo", "a-3": "gone"}
    states = [STATE._replace(identity=each, service=name) for each, name in names.items()]
    inherited = taken_up(left(clients, *states))
    assert [each.identity for each in inherited.connections] == ["a-2"]
    assert inherited.lost == 0
    failed = [note for note in inherited.notes if isinstance(note, ServiceFailed)]
    closed = [note for note in inherited.notes if isinstance(note, Closed)]
    gone = "there is no service gone, and no package has a handler of that name"
    assert {note.error for note in failed} == {"ArithmeticError('a bug')", f"ValueError('{gone}')"}
    assert {(note.connection, note.reason) for note in closed} == {
        *(("a-1", "error"), ("a-3", "error")),
    }
    assert all((note.bytes_received, note.bytes_sent) == (5, 4) for note in closed)
    for sock in clients.near:
        sock.close()
    assert clients.far[0].recv(1) == b""
    assert clients.far[2].recv(1) == b""
