"""netsrvd.listeners.visitor; tests/wire has the acceptor that it visits"""

import errno
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from netsrvd.addresses import host_and_port
from netsrvd.counters import Counters
from netsrvd.events.life import VisitImpossible
from netsrvd.listeners import visitor as module
from netsrvd.listeners.visitor import Rounds, Visitor, mirror
from tests.support.askers import ASKER
from tests.support.listening import FakeSocket
from tests.support.patience import SECONDS
from tests.support.reports import Reports

Serve = Callable[[socket.socket], None]


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 1.0)
    return Visitor(Counters())


class Server:
    """A listening socket, and what it does with the one who comes."""

    def __init__(self, serve: Serve, host: str = "127.0.0.1", *, dual: bool = False) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.create_server((host, 0), family=family, dualstack_ipv6=dual)
        self.sock.settimeout(SECONDS)
        self.peers: list[tuple[str, int]] = []
        self._serve = serve
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        sock, address = self.sock.accept()
        self.peers.append(host_and_port(address))
        with sock:
            sock.settimeout(SECONDS)
            self._serve(sock)

    def end(self) -> None:
        self._thread.join()
        self.sock.close()


def mirrors(sock: socket.socket) -> None:
    while data := sock.recv(100):
        sock.sendall(data)


def invents(sock: socket.socket) -> None:
    sock.sendall(bytes(16))


def hangs_up(sock: socket.socket) -> None:
    sock.recv(100)


def mirrors_and_stays(sock: socket.socket) -> None:
    sock.sendall(sock.recv(100))
    KEPT.append(sock.dup())


def test_a_visit_that_has_no_descriptor_says_nothing(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon may serve well all the same."""

    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "planted")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        monkeypatch.setattr(socket, "socket", none_left)
        assert visitor.is_answered([sock]) is None


KEPT: list[socket.socket] = []
"""Connections that are not closed by their servers."""


@pytest.mark.parametrize(
    ("serve", "answered"),
    [(mirrors, True), (invents, False), (hangs_up, False), (mirrors_and_stays, False)],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_visit_is_answered_when_its_own_bytes_come_back(
    visitor: Visitor,
    host: str,
    serve: Serve,
    answered: bool,  # noqa: FBT001
) -> None:
    """All of them, and then the end: whoever counts connections counts none of it any more."""
    server = Server(serve, host)
    assert visitor.is_answered([server.sock]) is answered
    server.end()
    while KEPT:
        KEPT.pop().close()
    [(came_from, _)] = server.peers
    assert came_from == host


def test_the_visitor_is_known_once(visitor: Visitor) -> None:
    """By its address while it is on its way; whoever has its port later is somebody else."""
    known: list[bool] = []

    def serve(sock: socket.socket) -> None:
        peer = host_and_port(sock.getpeername())
        known.extend(visitor.is_it(each) for each in (("127.0.0.1", 1), peer, peer))
        mirrors(sock)

    server = Server(serve)
    assert visitor.is_answered([server.sock])
    server.end()
    assert known == [False, True, False]


def test_who_is_taken_late_is_still_known(visitor: Visitor) -> None:
    """A visit that was given up may still be in the queue, and must not be a client then."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert visitor.is_answered([listening]) is False
        sock, address = listening.accept()
        sock.close()
        assert visitor.is_it(address)


@pytest.mark.parametrize("connects", [True, False])
def test_a_crowd_before_us_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
    connects: bool,  # noqa: FBT001
) -> None:
    """Clients who come so fast that the queue has no room for a visit are no fault of the daemon;
    a visit that was taken, and not answered, is.
    """
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    counters = Counters()
    visitor = Visitor(counters)

    class Crowded(socket.socket):
        def connect(self, address: Any) -> None:
            counters.accepted += 1
            if connects:
                super().connect(address)
            else:
                raise TimeoutError

    monkeypatch.setattr(module.socket, "socket", Crowded)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert visitor.is_answered([listening]) is None
        assert bool(visitor._peers) is connects
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(Visitor, "_came", lambda _: 0)
        assert visitor.is_answered([listening]) is False


def test_who_cannot_be_reached_is_not_waited_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The watchdog waits for a visit: a filter may be against any number of addresses."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(9)]
        visitor, began_at = Visitor(Counters()), monotonic()
        assert visitor.is_answered(sockets) is False
        assert 0.2 <= monotonic() - began_at < 9 * 0.2
        assert len(visitor._peers) < 9


def test_who_was_refused_is_forgotten(visitor: Visitor) -> None:
    """Nobody will ever take it."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        assert visitor.is_answered([silent]) is False
    assert visitor._peers == set()


class Bound(FakeSocket):
    """A socket with an interface of its own, or without a descriptor."""

    def __init__(self, interface: bytes | OSError) -> None:
        super().__init__()
        self._interface = interface

    def getsockopt(self, level: int, number: int, size: int = 0) -> object:
        if isinstance(self._interface, OSError):
            raise self._interface
        return self._interface.ljust(size, b"\0")


def test_what_cannot_be_visited_says_nothing(visitor: Visitor) -> None:
    """Nobody gets to a socket of an interface from here, nor to one that was just closed."""
    sockets: list = [Bound(b"eth0"), Bound(OSError(9, "closed"))]
    assert visitor.is_answered(sockets) is None
    assert visitor.is_answered([]) is None


def test_one_socket_that_answers_is_enough(visitor: Visitor) -> None:
    """A family may be cut off by a filter."""
    server = Server(mirrors)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        assert visitor.is_answered([silent, server.sock]) is True
    server.end()


@pytest.mark.parametrize("dual", [False, True])
def test_all_addresses_are_visited_by_loopback(
    visitor: Visitor,
    dual: bool,  # noqa: FBT001
) -> None:
    """By IPv6 where there is IPv6: the same port on IPv4 may be another program's."""
    server = Server(mirrors, "::", dual=dual)
    assert visitor.is_answered([server.sock]) is True
    server.end()
    assert server.peers[0][0] == "::1"


def test_a_visitor_is_served_as_by_echo() -> None:
    """Whatever the listener serves others: what comes in goes out."""
    service = mirror(ASKER, 0.0)
    assert service.greeting() == service.more() == b""
    assert service.respond(b"x") == b"x"
    assert not service.finished
    assert not service.heedless
    service.recall(service.memory())


class Listener:
    """One that answers visits as it is told, and well when it is told nothing."""

    def __init__(self, *answers: bool | None) -> None:
        self._answers = list(answers)
        self.visits = 0

    def is_answering(self) -> bool | None:
        self.visits += 1
        return self._answers.pop(0) if self._answers else True


@pytest.fixture
def rounds() -> tuple[Rounds, Reports]:
    reports = Reports()
    return Rounds(reports), reports


def visits(*listeners: Listener) -> list[int]:
    return [each.visits for each in listeners]


def test_listeners_are_visited_in_turn(rounds: tuple[Rounds, Reports]) -> None:
    """One a round; one that cannot tell at the moment does not keep the others waiting."""
    one, two, full = Listener(), Listener(), Listener(*[None] * 9)
    named = [("one", one), ("full", full), ("two", two)]
    assert all(rounds[0].is_answering(named) for _ in range(7))
    assert visits(one, full, two) == [3, 2, 2]
    assert rounds[1].events == []


def test_there_may_be_no_listener(rounds: tuple[Rounds, Reports]) -> None:
    """A daemon of UDP alone is well."""
    assert rounds[0].is_answering([])


def test_one_that_was_never_reached_is_told_once_and_left_alone(
    rounds: tuple[Rounds, Reports],
) -> None:
    """A filter may be against it; that others are reached says nothing of this one."""
    one, cut_off = Listener(), Listener(*[False] * 9)
    named = [("one", one), ("cut off", cut_off)]
    assert all(rounds[0].is_answering(named) for _ in range(6))
    assert visits(one, cut_off) == [5, 1]
    assert rounds[1].events == [VisitImpossible("cut off")]
    assert rounds[0].is_answering([("cut off", cut_off)])


def test_one_that_became_mute_is_visited_until_it_answers(rounds: tuple[Rounds, Reports]) -> None:
    """Meanwhile the daemon is not well; None is no answer for the worse."""
    mute, other = Listener(True, False, False, None, False, True), Listener()
    named = [("mute", mute), ("other", other)]
    answers = [rounds[0].is_answering(named) for _ in range(9)]
    assert answers == [True, True, False, False, True, True, False, True, True]
    assert rounds[1].events == []
