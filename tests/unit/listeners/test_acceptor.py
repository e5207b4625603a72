"""netsrvd.listeners.acceptor: what depends on errors and limits; tests/wire has the rest"""

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from math import inf
from typing import Any

import pytest

from netsrvd.counters import Counters
from netsrvd.events.connections import (
    Accepted,
    AcceptRecovered,
    AcceptTrouble,
    ListenerFull,
    ListenerRelieved,
)
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.listeners import acceptor as module
from netsrvd.listeners import trouble
from netsrvd.listeners import visitor as visitor_module
from netsrvd.listeners.accept_errors import OWN_ERRORS, PEER_ERRORS
from netsrvd.listeners.acceptor import Acceptor
from netsrvd.listeners.capacity import Capacity
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.places import Places
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.listeners.watch import Width
from netsrvd.services.echo import Stream
from netsrvd.settings import ListenerSettings
from tests.support.listening import FakeListener, Outcome, accepted, failure
from tests.support.patience import SECONDS, eventually
from tests.support.reports import Failures, Reports
from tests.support.waiting import wait_end

PEER = ("192.0.2.1", 40_000)


class Gate:
    """Refuses one host, and notes who is in."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.settings: ListenerSettings | None = None

    def update(self, settings: ListenerSettings) -> None:
        self.settings = settings

    def refusal(self, host: str, now: float) -> tuple[str, str] | None:
        return ("access", "rule") if host == "192.0.2.66" else None

    def is_proxy(self, host: str) -> bool:
        return False

    def is_unlogged(self, host: str) -> bool:
        return False

    def enter(self, host: str) -> str:
        self.inside.append(host)
        return host

    def leave(self, name: str) -> None:
        self.inside.remove(name)


class Worker:
    """Keeps what it is handed, until the test closes it."""

    def __init__(self) -> None:
        self.taken: list[Connection] = []

    def take(self, connection: Connection) -> None:
        self.taken.append(connection)

    def has_room(self, wake: Callable[[], None]) -> bool:
        """Return whether it may be handed more."""
        return True


class Stage:
    """An acceptor with a listening socket and a worker that are none."""

    def __init__(self) -> None:
        self.reports, self.failures = Reports(), Failures()
        self.workers = [Worker(), Worker()]
        self.far_ends: list[socket.socket] = []
        self.expected_failures: list[tuple[str, BaseException]] = []
        self.gone: list[Connection] = []
        self.places = Places(1000)
        self.gate = Gate()
        self.acceptor: Acceptor
        self.listener: FakeListener

    def client(self, host: str = PEER[0]) -> Outcome:
        """Return what accept returns for one client."""
        near, far = accepted()
        self.far_ends.append(far)
        return near, (host, PEER[1])

    def start(self, outcomes: Sequence[Outcome], **settings: Any) -> None:
        """Start an acceptor whose accept does as told."""
        self.listener = FakeListener(outcomes)
        self.acceptor = Acceptor(
            ListenerSettings("lab", **settings),
            self.gate,
            Stream,
            self.workers,  # type: ignore[arg-type]
            self.places,
            self.reports,
            (f"c-{number}" for number in count(1)).__next__,
            self.failures,
        )
        self.acceptor.open(self.listener)  # type: ignore[arg-type]
        self.acceptor.duty.start()

    @property
    def taken(self) -> list[Connection]:
        """The connections that were handed over, in turn."""
        return sorted((each for worker in self.workers for each in worker.taken), key=identity)

    def departed(self, host: str) -> None:
        """Have one client of a host leave, as its worker would tell it."""
        inside = [each for each in self.taken if each.peer[0] == host and each not in self.gone]
        self.gone.append(inside[0])
        inside[0].departed()

    def end(self) -> None:
        """Stop the acceptor and close all that it left open."""
        self.acceptor.stop()
        wait_end(self.acceptor.duty)
        assert self.failures.found == self.expected_failures
        for each in (*self.far_ends, *(connection.sock for connection in self.taken)):
            each.close()


def identity(connection: Connection) -> str:
    return connection.identity


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Return a stage on which time is short, and goes on by half a millisecond a look."""
    clock = count(1)
    monkeypatch.setattr(module, "monotonic", lambda: next(clock) * 0.0005)
    monkeypatch.setattr(trouble, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(trouble, "QUIET_SECONDS", 0.01)
    monkeypatch.setattr(module, "CONGESTED_SECONDS", 0.001)
    made = Stage()
    yield made
    made.end()


def test_connections_are_handed_to_the_workers_in_turn(stage: Stage) -> None:
    """Each client is reported, counted and given away, with a socket that never blocks."""
    stage.start([stage.client() for _ in range(3)])
    first, *_ = stage.reports.wait_for(Accepted, 3)
    stage.acceptor.stop()
    wait_end(stage.acceptor.duty)
    assert isinstance(first, Accepted)
    assert (first.connection, first.listener, first.peer_address) == ("c-1", "lab", PEER[0])
    assert [len(worker.taken) for worker in stage.workers] == [2, 1]
    assert not any(connection.sock.getblocking() for connection in stage.taken)
    assert stage.acceptor.counters.accepted == 3
    assert stage.listener.closed


def test_who_has_left_is_counted_out_before_the_next_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are taken in one turn: a source's limit is of those who are there."""
    there: list[int] = []

    def take(self: Worker, connection: Connection) -> None:
        there.append(len(stage.gate.inside))
        self.taken.append(connection)
        connection.departed()

    monkeypatch.setattr(Worker, "take", take)
    stage.start([stage.client() for _ in range(3)])
    stage.reports.wait_for(Accepted, 3)
    stage.acceptor.duty.settle(SECONDS)
    assert (there, stage.gate.inside) == ([1, 1, 1], [])


def test_strangers_are_turned_away_at_once(stage: Stage) -> None:
    """A client that the gate refuses is closed, told with the reason, and counted."""
    stage.start([stage.client("192.0.2.66"), stage.client()])
    [refused] = stage.reports.wait_for(Refused)
    stage.reports.wait_for(Accepted)
    assert isinstance(refused, Refused)
    assert (refused.peer_address, refused.reason, refused.rule) == ("192.0.2.66", "access", "rule")
    assert stage.far_ends[0].recv(1) == b""
    assert stage.acceptor.counters.refused == 1


@pytest.mark.parametrize("number", sorted(PEER_ERRORS), ids=errno.errorcode.get)
def test_a_pending_network_error_concerns_one_client(stage: Stage, number: int) -> None:
    """accept(2) hands over the errors of a connection: the next client is served, and the trouble
    is told once when it begins and once when it ends.
    """
    stage.start([failure(number), failure(number), stage.client()])
    [began] = stage.reports.wait_for(AcceptTrouble)
    [ended] = stage.reports.wait_for(AcceptRecovered)
    stage.reports.wait_for(Accepted)
    assert isinstance(began, AcceptTrouble)
    assert isinstance(ended, AcceptRecovered)
    assert (began.error, began.pause_ms) == (trouble.named(failure(number)), 0)
    assert ended.errors == 2
    assert stage.acceptor.counters.accept_errors == 2


PASSING = {*errno.errorcode} - OWN_ERRORS - PEER_ERRORS
PASSING -= {errno.EAGAIN, errno.EALREADY, errno.EINPROGRESS}  # there is nothing to accept


@pytest.mark.parametrize("number", sorted(PASSING), ids=errno.errorcode.get)
def test_an_error_that_may_pass_does_not_spin(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """While descriptors or memory lack, and after an error that no manual page names, the socket is
    left alone for a moment after each try; the trouble is told once, and its end with the number of
    tries.
    """
    stage.start([*[failure(number)] * 5, stage.client()])
    [began] = stage.reports.wait_for(AcceptTrouble)
    [ended] = stage.reports.wait_for(AcceptRecovered)
    stage.reports.wait_for(Accepted)
    assert isinstance(began, AcceptTrouble)
    assert isinstance(ended, AcceptRecovered)
    assert began.pause_ms == 1
    assert ended.errors == 5
    assert ended.seconds >= 4 * trouble.PAUSE_SECONDS
    assert stage.listener.accepts <= 5 + 3


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
def test_what_is_neither_ends_the_thread(stage: Stage, number: int) -> None:
    """An error of the listening socket itself is a bug: it is handed over, the socket closed."""
    error = failure(number)
    stage.start([error])
    wait_end(stage.acceptor.duty)
    stage.expected_failures = [("acceptor lab", error)]
    assert stage.listener.closed


def test_a_full_listener_leaves_the_others_waiting(stage: Stage) -> None:
    """At its limit accept is not called; a departure lets the next client in."""
    stage.start([stage.client() for _ in range(3)], max_connections=2)
    [full] = stage.reports.wait_for(ListenerFull)
    assert isinstance(full, ListenerFull)
    assert full.connections == 2
    assert stage.listener.accepts == 2
    stage.departed(PEER[0])
    stage.reports.wait_for(Accepted, 3)
    assert stage.reports.kinds.count("ListenerFull") == 1


def test_a_listener_with_room_again_says_so(stage: Stage) -> None:
    """When enough have left and nobody waits, the end of the fullness is told once."""
    stage.start([stage.client() for _ in range(2)], max_connections=2)
    stage.reports.wait_for(ListenerFull)
    for _ in range(2):
        stage.departed(PEER[0])
    [relieved] = stage.reports.wait_for(ListenerRelieved)
    assert isinstance(relieved, ListenerRelieved)
    assert relieved.connections < 2


def test_a_larger_limit_lets_others_in(stage: Stage) -> None:
    """New settings hold for the clients that come next."""
    stage.start([stage.client() for _ in range(3)], max_connections=2)
    stage.reports.wait_for(ListenerFull)
    more = ListenerSettings("lab", max_connections=3)
    stage.acceptor.update(more, Stream)
    stage.reports.wait_for(Accepted, 3)
    assert stage.gate.settings is more


def test_a_congested_log_lets_nobody_in(stage: Stage) -> None:
    """With `when_full = "wait"` clients wait in the kernel's queue until the log has caught up."""
    stage.reports.congested = True
    stage.start([stage.client()])
    stage.acceptor.duty.ping(1)
    while not stage.acceptor.duty.pulse:
        assert stage.listener.accepts == 0
    stage.reports.congested = False
    stage.reports.wait_for(Accepted)


class Fickle(Reports):
    """A log that is congested when it is asked for the third time, and at no other."""

    asked = 0

    @property
    def congested(self) -> bool:  # type: ignore[override]
        self.asked += 1
        return self.asked == 3

    @congested.setter
    def congested(self, value: bool) -> None:
        """Stay as it is."""


def test_a_log_that_recovers_within_a_turn_keeps_nobody_waiting(stage: Stage) -> None:
    """The turn that does not look at the sockets is a short one."""
    stage.reports = Fickle()
    stage.start([stage.client()])
    stage.reports.wait_for(Accepted)


def test_a_stop_just_before_the_wait_is_heard(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail is read there, too."""

    def is_full(self: Capacity, now: float) -> bool:
        stage.acceptor.stop()
        self._mailbox.deliver()
        return False

    monkeypatch.setattr(Capacity, "is_full", is_full)
    stage.start([])
    wait_end(stage.acceptor.duty)


def test_who_is_paused_does_not_wait_for_a_lobby(stage: Stage) -> None:
    """It is not looked at then, however late its guests are."""
    near, far = accepted()
    acceptor = stage.acceptor = Acceptor(
        *(ListenerSettings("lab", proxies=("192.0.2.1",)), stage.gate, Stream, [], stage.places),
        *(stage.reports, str, stage.failures),  # type: ignore[arg-type]
    )
    lobby = acceptor._entrance.lobby
    assert lobby
    with near, far:
        lobby.admit(near, PEER, 1.0)
        assert acceptor._patience(100.0, Width.LOBBY) < 0.0
        assert acceptor._patience(100.0, Width.MAIL) == inf
        lobby.leave()
    acceptor.duty.start()


def test_a_refused_client_is_told_once_a_window(stage: Stage) -> None:
    """However often a source is refused it is one record at once, and one when the thread ends;
    its connections take no place.
    """
    stage.places.resize(1)
    stage.start([stage.client("192.0.2.66") for _ in range(5)])
    eventually(lambda: stage.acceptor.counters.refused == 5, "all are refused")
    stage.acceptor.stop()
    wait_end(stage.acceptor.duty)
    assert stage.reports.kinds == ["Refused", "RefusedAgain"]
    again = stage.reports.events[-1]
    assert isinstance(again, RefusedAgain)
    assert (again.protocol, again.source, again.reason, again.times) == (
        *("tcp", "192.0.2.66", "access", 4),
    )
    assert stage.places.take()


def test_departures_are_counted(stage: Stage) -> None:
    """The gate is told who comes and who goes, and the place is free again."""
    stage.places.resize(2)
    stage.start([stage.client(), stage.client("192.0.2.2")])
    stage.reports.wait_for(Accepted, 2)
    assert not stage.places.take()
    assert stage.gate.inside == ["192.0.2.1", "192.0.2.2"]
    stage.departed("192.0.2.1")
    stage.acceptor.duty.settle(SECONDS)
    assert stage.gate.inside == ["192.0.2.2"]
    assert stage.places.take()


def test_a_guest_whose_proxy_is_none_any_more_is_turned_away(stage: Stage) -> None:
    """That is told as a reload would tell it; its place is free again."""
    stage.places.resize(1)
    near, far = accepted()
    stage.start([])
    with far:
        stage.acceptor.adopt_guest(Guest(near, "lab", PEER, 1.0))
        stage.acceptor.duty.settle(SECONDS)
        assert far.recv(1) == b""
    assert stage.places.take()
    assert not stage.places.take()
    [refused] = stage.reports.events
    assert isinstance(refused, Refused)
    assert refused.rule == "proxies no longer has it"


def test_all_listeners_share_the_places(stage: Stage) -> None:
    """Without a place accept is not called; who gives one back, wherever, wakes the acceptor."""
    stage.places.resize(1)
    stage.start([stage.client(), stage.client()])
    [full] = stage.reports.wait_for(ListenerFull)
    assert isinstance(full, ListenerFull)
    assert full.limit == "the daemon's max_connections = 1"
    assert stage.listener.accepts == 1
    stage.places.give_back()
    stage.reports.wait_for(Accepted, 2)
    assert stage.reports.kinds.count("ListenerFull") == 1


@pytest.mark.parametrize("number", sorted(module.DESCRIPTOR_ERRORS), ids=errno.errorcode.get)
def test_a_lasting_want_of_descriptors_turns_clients_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Clients wait at first; when the want lasts they are refused, with the descriptor that is
    kept for this, which is kept again afterwards.
    """
    monkeypatch.setattr(trouble, "LASTING_SECONDS", 0.001)
    clients = [stage.client() for _ in range(3)]
    stage.start([*[failure(number)] * 2, *clients[:2], failure(number), clients[2]])
    [refused] = stage.reports.wait_for(Refused)
    stage.reports.wait_for(Accepted)
    assert isinstance(refused, Refused)
    assert refused.reason == "descriptors"
    assert stage.acceptor.counters.refused == 2
    assert [far.recv(1) for far in stage.far_ends[:2]] == [b"", b""]
    assert stage.acceptor._reserve.release()


# --- connections of the process before --------------------------------------------------------


def left(stage: Stage, host: str = PEER[0]) -> Connection:
    """Return a connection that the process before let in."""
    near, far = accepted()
    stage.far_ends.append(far)
    settings = ListenerSettings("lab")
    name = f"b-{len(stage.far_ends)}"
    return Connection(near, name, (host, 1), ("::1", 7), settings, Stream, list, 0.0)


def test_who_is_adopted_counts_as_if_let_in(stage: Stage) -> None:
    """Against the limit of the listener, that of the source and that of the daemon, but without a
    record, and whoever may come in now; who leaves gives all of it back.
    """
    stage.places.resize(3)
    stage.start([stage.client("192.0.2.9")], max_connections=2)
    stage.reports.wait_for(Accepted)
    adopted = [left(stage, host) for host in ("192.0.2.66", "192.0.2.2")]
    for connection in adopted:
        stage.acceptor.adopt(connection)
    [full] = stage.reports.wait_for(ListenerFull)
    assert isinstance(full, ListenerFull)
    assert full.connections >= 2
    stage.acceptor.duty.settle(SECONDS)
    assert stage.gate.inside == ["192.0.2.9", "192.0.2.66", "192.0.2.2"]
    assert not stage.places.take()
    assert stage.acceptor.counters.accepted == 1
    assert {each.identity for each in stage.taken} == {"c-1", "b-2", "b-3"}
    for connection in adopted:
        connection.departed()
    stage.acceptor.duty.settle(SECONDS)
    assert stage.gate.inside == ["192.0.2.9"]
    assert [stage.places.take() for _ in range(3)] == [True, True, False]
    assert stage.reports.kinds.count("Accepted") == 1


def test_more_may_be_adopted_than_there_are_places(stage: Stage) -> None:
    """The limits of today hold for who comes new: the next one waits until enough have left."""
    stage.places.resize(1)
    stage.start([])
    adopted = [left(stage), left(stage)]
    for connection in adopted:
        stage.acceptor.adopt(connection)
    stage.acceptor.duty.settle(SECONDS)
    assert len(stage.taken) == 2
    adopted[0].departed()
    assert not stage.places.take()
    adopted[1].departed()
    assert stage.places.take()


# --- a pause ----------------------------------------------------------------------------------


def test_a_pause_leaves_who_comes_in_the_queue(stage: Stage) -> None:
    """Nobody is taken and nothing is told; when it is over they are let in."""
    stage.start([])
    stage.acceptor.pause(paused=True)
    for _ in range(2):
        stage.acceptor.duty.settle(SECONDS)
    stage.listener.come(stage.client(), stage.client())
    for _ in range(3):
        stage.acceptor.duty.settle(SECONDS)
    assert stage.listener.accepts == 0
    assert stage.acceptor.is_answering() is None
    assert stage.reports.events == []
    stage.acceptor.pause(paused=False)
    stage.reports.wait_for(Accepted, 2)


# --- visitors ---------------------------------------------------------------------------------


class Visitor:
    """One that has the addresses that the test gives it, and is answered as it says."""

    def __init__(self, *peers: tuple[str, int]) -> None:
        self.peers = [*peers]
        self.answered: bool | None = True
        self.meanwhile: Callable[[], object] = list
        self.visits: list[Any] = []

    def is_it(self, peer: tuple[str, int]) -> bool:
        return peer in self.peers

    def is_answered(self, listening: Any) -> bool | None:
        self.visits.append(listening)
        self.meanwhile()
        return self.answered


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Return the visitor of the stage's acceptor."""
    made = Visitor()
    monkeypatch.setattr(visitor_module, "Visitor", lambda _: made)
    return made


def test_a_visitor_trips_no_limit_and_leaves_no_trace(stage: Stage, visitor: Visitor) -> None:
    """It comes in though its address may not, is served by a service of its own with time-outs of
    its own, and has neither a record, nor a count, nor a place.
    """
    visitor.peers = [("192.0.2.66", PEER[1])]
    stage.places.resize(1)
    stage.start([stage.client("192.0.2.66")], max_connections=2)
    [connection] = eventually(lambda: stage.taken, "the visitor")
    stage.acceptor.duty.settle(SECONDS)
    assert connection.identity == ""
    assert not connection.sock.getblocking()
    connection.begin()
    assert connection.service.respond(b"x") == b"x"
    assert connection.settings is visitor_module.SETTINGS
    assert stage.reports.events == []
    assert stage.gate.inside == []
    assert stage.acceptor.counters == Counters()
    assert stage.places.take()
    connection.departed()
    assert not stage.places.take()
    assert stage.reports.events == []


def test_a_visit_goes_to_the_sockets_that_are_served(stage: Stage, visitor: Visitor) -> None:
    """What it says of them is what the watchdog hears."""
    stage.start([])
    stage.acceptor.duty.settle(SECONDS)
    for answered in (True, None, False):
        visitor.answered = answered
        assert stage.acceptor.is_answering() is answered
    assert visitor.visits == [(stage.listener,)] * 3


def test_who_is_full_is_not_visited(stage: Stage, visitor: Visitor) -> None:
    """The visitor would wait with all others; by the listener's limit or by the daemon's."""
    stage.start([stage.client()], max_connections=1)
    stage.reports.wait_for(ListenerFull)
    assert stage.acceptor.is_answering() is None
    assert visitor.visits == []


def test_a_daemon_without_a_place_is_not_visited(stage: Stage, visitor: Visitor) -> None:
    """Nobody has noticed yet that it is full, and a visitor must not be the first one."""
    stage.places.resize(1)
    stage.start([])
    stage.acceptor.duty.settle(SECONDS)
    stage.places.take()
    assert stage.acceptor.is_answering() is None
    assert visitor.visits == []
    stage.places.give_back()
    assert stage.acceptor.is_answering() is True


def test_a_visit_in_vain_to_who_became_full_says_nothing(stage: Stage, visitor: Visitor) -> None:
    """It is in the queue, as the clients are who came when the last place was taken."""
    stage.start([], max_connections=1)
    stage.acceptor.duty.settle(SECONDS)
    visitor.answered = False

    def become_full() -> None:
        stage.listener.come(stage.client())
        stage.reports.wait_for(ListenerFull)
        stage.acceptor.duty.settle(SECONDS)

    visitor.meanwhile = become_full
    assert stage.acceptor.is_answering() is None
