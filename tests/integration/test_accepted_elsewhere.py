"""A connection that another program accepted, as inetd does; tests/functional has the command."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.refusals import Refused
from netsrvd.settings import ListenerSettings
from tests.support.patience import eventually
from tests.support.peers import connect, echoed, reset
from tests.support.proxied import CLIENT, LOCAL, v1
from tests.support.server import Reported, RunningServer

"""struct linger: a close sends a reset."""


class Visit:
    """A server without sockets, and one connection."""

    def __init__(self, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.reported = Reported(patch)
        self.running: RunningServer
        self._stack = stack

    def come(self, *, resets: bool = False, **settings: Any) -> socket.socket:
        """Have a connection served by the settings of a listener; return its client."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = self._stack.enter_context(connect(listening.getsockname()))
            sock, _ = listening.accept()
        if resets:
            reset(client)
        self.running = RunningServer(ListenerSettings("lab", **settings), has_sockets=False)
        self.running.start()
        self.running.server.serve_accepted(self.running.settings.listeners[0], sock)
        return client

    def is_over(self) -> None:
        """Return as soon as the main thread is told that no connection is left."""
        eventually(lambda: self.running.wakes and self.running.server.is_empty)
        self.running.server.pause()  # and so the turn of the loop has ended


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> Iterator[Visit]:
    made = Visit(monkeypatch, stack)
    yield made
    made.running.end()


def test_it_is_served_to_its_end(visit: Visit) -> None:
    """With both records, like any other; then the main thread is woken."""
    client = visit.come()
    assert echoed(client)
    assert visit.running.wakes == 0
    client.close()
    visit.is_over()
    assert visit.reported.only(Accepted).listener == "lab"
    assert visit.reported.only(Closed).reason == "client"


def test_it_is_refused_by_the_rules_of_its_listener(visit: Visit) -> None:
    """It is closed, and the record names the rule."""
    client = visit.come(deny=("127.0.0.1",))
    assert client.recv(1) == b""
    visit.is_over()
    assert visit.reported.only(Refused).reason == "access"


def test_a_proxy_names_its_client(visit: Visit) -> None:
    """That one is served, and what follows the header is answered."""
    client = visit.come(proxies=("127.0.0.1",), allow=("192.0.2.0/24",))
    client.sendall(v1() + b"hello")
    assert client.recv(9) == b"hello"
    accepted = visit.reported.only(Accepted)
    assert (accepted.peer_address, accepted.peer_port) == CLIENT
    client.close()
    visit.is_over()


def test_the_client_of_a_proxy_may_be_refused(visit: Visit) -> None:
    """The rules hold for it; the record has both."""
    client = visit.come(proxies=("127.0.0.1",), deny=("192.0.2.0/24",))
    client.sendall(v1())
    assert client.recv(1) == b""
    visit.is_over()
    refused = visit.reported.only(Refused)
    assert (refused.peer_address, refused.proxy_address) == (CLIENT[0], "127.0.0.1")


def test_a_proxy_may_speak_for_itself(visit: Visit) -> None:
    """One that says something is a client like any other."""
    client = visit.come(proxies=("127.0.0.1",))
    client.sendall(LOCAL + b"hello")
    assert client.recv(9) == b"hello"
    client.close()
    visit.is_over()


@pytest.mark.parametrize(
    ("sent", "reason"), [(b"PROXY ", "proxy-late"), (b"nonsense\r\n", "proxy-header")]
)
def test_a_header_that_does_not_come_ends_it(visit: Visit, sent: bytes, reason: str) -> None:
    """With its own reason; then nothing is left to wait for."""
    client = visit.come(proxies=("127.0.0.1",), proxy_seconds=0.1)
    client.sendall(sent)
    visit.is_over()
    assert visit.reported.only(Refused).reason == reason


def test_a_health_check_has_no_record(visit: Visit) -> None:
    """It leaves at once, and so does the program."""
    visit.come(proxies=("127.0.0.1",)).close()
    visit.is_over()
    assert visit.reported.kinds == []


def test_a_stop_ends_the_wait_for_a_header(visit: Visit) -> None:
    """It has no record, as its client never came in."""
    client = visit.come(proxies=("127.0.0.1",))
    visit.running.server.stop_listening(30.0)
    visit.is_over()
    assert client.recv(1) == b""
    assert visit.reported.kinds == []


def test_a_client_that_is_gone_by_then_has_no_record(visit: Visit) -> None:
    """It has reset the connection, which nobody has begun to serve; nothing is left of it."""
    visit.come(resets=True)
    visit.is_over()
    assert visit.reported.kinds == []
