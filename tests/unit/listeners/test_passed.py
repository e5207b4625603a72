"""netsrvd.listeners.passed; tests/process has it with real inetds"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from netsrvd.addresses import proxy_fields
from netsrvd.admission.connections import ConnectionGate
from netsrvd.events.connections import Accepted
from netsrvd.events.refusals import Refused
from netsrvd.listeners import passed
from netsrvd.listeners.connection import Connection
from netsrvd.services.base import Stream
from netsrvd.settings import ListenerSettings
from tests.support.proxied import CLIENT, LOCAL, v1
from tests.support.reports import Reports

PEER, OURS = ("192.0.2.1", 40_000), ("192.0.2.9", 7)
BEHIND = {"allow": ("any",), "proxies": PEER[:1], "proxy_seconds": 0.05}


class Accept(socket.socket):
    """A connection that somebody accepted."""

    def getpeername(self) -> tuple[str, int, int, int]:
        return (f"::ffff:{PEER[0]}", PEER[1], 0, 0)

    def getsockname(self) -> tuple[str, int, int, int]:
        return (f"::ffff:{OURS[0]}", OURS[1], 0, 0)


class Visit:
    """A connection, what the other side has said, and what became of it."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.sock, self.far = near, far
        self.taken: list[Connection] = []
        self.reports = Reports()
        self.is_over: Callable[[], bool] = bool

    def judge(self, **given: Any) -> None:
        settings = ListenerSettings("lab", **given)
        gate = ConnectionGate(settings)
        passed.admit(
            self.sock, "c-1", settings, gate, Stream, self.taken.append, self.reports, self.is_over
        )

    def refusal(self) -> Refused:
        """Return why it was not let in, and that it was closed."""
        assert (self.taken, self.sock.fileno()) == ([], -1)
        [refused] = self.reports.events
        assert isinstance(refused, Refused)
        assert refused.protocol == "tcp"
        return refused


@pytest.fixture
def visit() -> Iterator[Visit]:
    with ExitStack() as stack:
        near, far = map(stack.enter_context, socket.socketpair())
        yield Visit(stack.enter_context(Accept(fileno=near.detach())), far)


def test_a_guest_is_let_in(visit: Visit) -> None:
    """It has a record like any other, and is handed over."""
    visit.judge(allow=("192.0.2.0/24",))
    assert visit.reports.events == [Accepted("c-1", "lab", "echo", *PEER, *OURS)]
    [connection] = visit.taken
    assert connection.sock is visit.sock
    connection.departed()


def test_a_guest_is_refused(visit: Visit) -> None:
    """The access of the listener holds for it; it is closed, and the record names the rule."""
    visit.judge()
    refused = visit.refusal()
    assert (refused.reason, refused.peer_address) == ("access", PEER[0])


def test_a_proxy_names_its_client(visit: Visit) -> None:
    """That one is let in; what follows the header is left for the service."""
    visit.far.sendall(v1() + b"hello")
    visit.judge(**BEHIND)
    [connection] = visit.taken
    assert (connection.peer, connection.proxy) == (CLIENT, PEER)
    assert visit.reports.events == [
        Accepted("c-1", "lab", "echo", *CLIENT, *OURS, *proxy_fields(PEER))
    ]
    assert visit.sock.recv(100) == b"hello"


def test_a_proxy_speaks_for_itself(visit: Visit) -> None:
    """One that stays is a client like any other."""
    visit.far.sendall(LOCAL + b"hello")
    visit.judge(**BEHIND)
    [connection] = visit.taken
    assert (connection.peer, connection.proxy) == (PEER, None)


def test_a_client_behind_a_proxy_is_refused(visit: Visit) -> None:
    """The access holds for the client; the record has both."""
    visit.far.sendall(v1())
    visit.judge(**BEHIND | {"deny": CLIENT[:1]})
    refused = visit.refusal()
    assert (refused.reason, refused.peer_address) == ("access", CLIENT[0])
    assert refused.proxy_address == PEER[0]


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (lambda _: None, "proxy-late"),
        (lambda far: far.sendall(b"GET / HTTP/1.0\r\n"), "proxy-header"),
        (lambda far: (far.sendall(b"PROXY"), far.shutdown(socket.SHUT_WR)), "proxy-header"),
    ],
    ids=["nothing", "wrong", "half"],
)
def test_a_header_that_does_not_come(
    visit: Visit, says: Callable[[socket.socket], object], reason: str
) -> None:
    """Each has its own reason, as with a listening daemon."""
    says(visit.far)
    visit.judge(**BEHIND)
    assert visit.refusal().reason == reason


def test_a_stop_ends_the_wait(visit: Visit) -> None:
    """Nobody is told: it has not come in."""
    visit.is_over = lambda: True
    visit.judge(**BEHIND | {"proxy_seconds": 3600.0})
    assert (visit.reports.events, visit.taken, visit.sock.fileno()) == ([], [], -1)


def test_a_balancer_that_looks_whether_somebody_is_there(visit: Visit) -> None:
    """It leaves at once; that is no record."""
    visit.far.sendall(LOCAL)
    visit.far.shutdown(socket.SHUT_WR)
    visit.judge(**BEHIND)
    assert (visit.reports.events, visit.taken, visit.sock.fileno()) == ([], [], -1)


def test_a_guest_that_is_unlogged_has_no_record(visit: Visit) -> None:
    """It is handed over all the same."""
    visit.judge(allow=("any",), unlogged=("192.0.2.0/24",))
    assert visit.reports.events == []
    [connection] = visit.taken
    assert not connection.is_logged
