"""A server that runs, and gets a new configuration."""

import threading
from collections.abc import Iterator

import pytest

from netsrvd import startup
from netsrvd.events.connections import Closed, ServiceFailed
from netsrvd.events.sockets import ListeningEnded
from netsrvd.services.base import ServerView
from netsrvd.settings import ListenerSettings, Settings
from tests.support import server
from tests.support.logs import FakeLog
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, datagrams, echoed, nothing_more
from tests.support.planned import planned
from tests.support.run import free_port
from tests.support.serving import listener
from tests.support.threads import flushed


class Reloading:
    """A server of listeners on 127.0.0.1, which changes to others."""

    def __init__(self, *listeners: ListenerSettings) -> None:
        self.settings = Settings(listeners=listeners)
        self.server = server.build(self.settings)
        self.server.start()

    def reload(self, *listeners: ListenerSettings) -> None:
        """Do what the daemon does for SIGHUP."""
        new = Settings(listeners=listeners)
        plan = planned(self.settings, new)
        sockets, _ = startup.bind_all(plan.open)
        services = startup.prepare_services(new, ServerView())
        self.server.reload(plan, sockets, [], services, 10_000, new)
        self.settings = new


def on_loopback(name: str, port: int, **more: object) -> ListenerSettings:
    return listener(name=name, port=port, hosts=("127.0.0.1",), **more)


@pytest.fixture
def ports() -> tuple[int, int]:
    """Two ports that are free on TCP and UDP."""
    first = free_port()
    return first, free_port(first + 1)


@pytest.fixture
def running(log: FakeLog, ports: tuple[int, int]) -> Iterator[Reloading]:
    """A server with the listener `one` on the first port."""
    made = Reloading(on_loopback("one", ports[0]))
    yield made
    server.stop(made.server)


def test_a_pause_leaves_newcomers_to_the_kernel(running: Reloading, ports: tuple[int, int]) -> None:
    """Between `pause` and `resume` nobody new is served and whoever is inside is; then all are."""
    address = ("127.0.0.1", ports[0])
    with connect(address) as inside, datagrams() as asker:
        assert echoed(inside)
        running.server.pause()
        asker.sendto(b"x", address)
        with connect(address) as outside:
            outside.send(b"x")
            for _ in range(2):  # a whole turn lies between them
                assert all(flushed(thread) for thread in running.server.threads())
            assert echoed(inside)
            assert nothing_more(outside)
            assert nothing_more(asker)
            running.server.resume()
            for client in (outside, asker):
                client.settimeout(SECONDS)
                assert client.recv(1) == b"x"


def test_a_new_listener_is_served_and_an_old_one_closed(
    running: Reloading, log: FakeLog, ports: tuple[int, int]
) -> None:
    """What the new configuration has besides is opened, what it has no more is closed; who came in
    there stays, and the totals keep what was counted there.
    """
    one, two = (("127.0.0.1", port) for port in ports)
    with connect(one) as client, datagrams() as asker:
        assert echoed(client)
        asker.sendto(b"x", one)
        assert asker.recv(1) == b"x"
        running.reload(on_loopback("one", ports[0]), on_loopback("two", ports[1]))
        with connect(two) as other:
            assert echoed(other)
        running.reload(on_loopback("two", ports[1]))
        with pytest.raises(ConnectionRefusedError):
            connect(one)
        asker.sendto(b"x", two)
        assert asker.recv(1) == b"x"
        assert echoed(client)
    ended = ListeningEnded.MESSAGE_ID
    eventually(lambda: [each.message_id for each in log.taken].count(ended) == 2, "both are told")
    eventually(lambda: running.server.counters().datagrams_received == 2)
    assert running.server.counters().accepted == 2


def test_a_handler_comes_and_goes(running: Reloading, log: FakeLog, ports: tuple[int, int]) -> None:
    """A listener that gets a handler by a reload serves new connections by it, and keeps the old
    ones; its threads begin with the first, and end with the reload that has no use for it.
    """
    address = ("127.0.0.1", ports[0])
    handled = on_loopback("one", ports[0], service="python:tests.support.handlers:upper")
    with connect(address) as old:
        assert echoed(old)
        running.reload(handled)
        assert running.server.handled == 0
        with connect(address) as new:
            new.sendall(b"hello")
            assert new.recv(5) == b"HELLO"
            assert running.server.live == 2
            running.reload(on_loopback("one", ports[0]))
            new.sendall(b"still")
            assert new.recv(5) == b"STILL"
            with connect(address) as third:
                assert echoed(third)
        assert echoed(old)
    eventually(lambda: not running.server.handled, "the handler has returned")
    running.reload(on_loopback("one", ports[0]))
    assert not [each for each in threading.enumerate() if each.name.startswith("handler one")]
    closed = Closed.MESSAGE_ID
    eventually(lambda: [each.message_id for each in log.taken].count(closed) == 3, "all are told")
    assert running.server.counters().closed.total == 3
    assert running.server.counters().bytes_sent == 5 * 5


def test_a_handler_fails_for_one_client(
    running: Reloading, log: FakeLog, ports: tuple[int, int]
) -> None:
    """Its connection ends, its traceback is in the log, and the next client is served."""
    address = ("127.0.0.1", ports[0])
    running.reload(on_loopback("one", ports[0], service="python:tests.support.handlers:fail"))
    for said in (b"one", b"two"):
        with connect(address) as client:
            client.sendall(said)
            assert client.recv(1) == b""
    failed = ServiceFailed.MESSAGE_ID
    eventually(lambda: [each.message_id for each in log.taken].count(failed) == 2, "both are told")
    assert any("raise ValueError(connection.recv())" in each.traceback() for each in log.taken)


def test_new_settings_reach_every_thread(running: Reloading, ports: tuple[int, int]) -> None:
    """A listener that stays keeps its sockets and gets its new rules and time-outs."""
    address = ("127.0.0.1", ports[0])
    with connect(address) as client, datagrams() as asker:
        assert echoed(client)
        running.reload(on_loopback("one", ports[0], deny=("127.0.0.1",), idle_seconds=0.1))
        with connect(address) as late:
            assert late.recv(1) == b""
        asker.sendto(b"x", address)
        assert client.recv(1) == b""
        eventually(lambda: running.server.counters().refused.total == 1)
        eventually(lambda: running.server.counters().datagrams_received == 1)
        assert running.server.counters().datagrams_sent == 0
