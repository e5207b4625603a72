"""netsrvd.proxy_pending: what depends on time and on errors; tests/integration has the rest"""

import os
import select
import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from netsrvd.contracts import Peer, Refusal
from netsrvd.counters import Counters
from netsrvd.event_loop import READ, EventLoop
from netsrvd.proxy_pending import PROBE_SECONDS, TIMEOUTS_PER_TURN, PendingConnections
from netsrvd.settings import ListenerSettings
from tests.support.proxied import CLIENT, LOCAL, v1
from tests.support.reports import Failures, Reports

PROXY = ("10.0.0.1", 40_000)
SETTINGS = ListenerSettings("lab", proxies=("10.0.0.1",), proxy_seconds=5.0)


class Broken(socket.socket):
    """A connection that can be looked at, but breaks off when something is taken from it."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_PEEK:
            return super().recv(size, flags)
        super().recv(size)
        raise ConnectionResetError


class Waiting:
    """Connections that wait in a loop of the test's own thread, and what became of them."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.admitted: list[tuple[Peer, Peer | None]] = []
        self.rejected: list[Refusal | None] = []
        self.loop = EventLoop("test", Failures())
        self.report = Reports()
        self.pending = PendingConnections(
            self.loop,
            SETTINGS,
            self.counters,
            self.report,
            admit=self._admit,
            reject=self._reject,
        )
        self.socks: list[socket.socket] = []

    def add(self, now: float = 100.0, kind: type[socket.socket] = socket.socket) -> socket.socket:
        """Have a connection of the proxy wait; return the proxy's end."""
        near, far = socket.socketpair()
        self.socks += [kind(fileno=near.detach()), far]
        self.pending.add(self.socks[-2], PROXY, now)
        return far

    def turn(self, now: float) -> None:
        """Do what one turn of the loop does at this time."""
        for descriptor, events in self.loop._epoll.poll(0):
            if found := self.loop._watched[descriptor]:
                found.on_ready(events, now)
        self.pending.run_due(now)

    @property
    def due_at(self) -> float:
        """When there is something to do, as it tells the loop."""
        return self.pending.run_due(0.0)

    def _admit(self, sock: object, peer: Peer, proxy: Peer | None, now: float) -> None:
        self.admitted.append((peer, proxy))

    def _reject(
        self, sock: socket.socket, peer: Peer, why: Refusal | None, now: float, proxy: None
    ) -> None:
        self.rejected.append(why)
        sock.close()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.pending.close(0.0)
    made.loop.join(0)
    for sock in made.socks:
        sock.close()


def test_its_deadline_is_when_the_first_wait_ends(waiting: Waiting) -> None:
    """Without connections there is none; else it is that of the one that came first."""
    assert waiting.due_at == inf
    waiting.add(100.0)
    waiting.add(103.0)
    assert waiting.due_at == 105.0
    waiting.turn(104.999)
    assert waiting.rejected == []
    waiting.turn(105.0)
    assert waiting.rejected == [("proxy-late", "no whole header within proxy_timeout = 5 s")]
    assert waiting.due_at == 108.0
    assert waiting.counters.proxy_late == 1


def test_no_wait_is_longer_than_a_connection_may_last(waiting: Waiting) -> None:
    """With `max_connection_seconds` below `proxy_timeout` the refusal names that setting."""
    waiting.add(100.0)
    settings = SETTINGS._replace(max_connection_seconds=2.0)
    waiting.pending.update(settings, lambda _: True, 100.5)
    assert waiting.due_at == 102.0
    waiting.turn(102.0)
    rule = "no whole header within max_connection_seconds = 2 s"
    assert waiting.rejected == [("proxy-late", rule)]


def test_a_proxy_that_speaks_for_itself_has_a_moment(waiting: Waiting) -> None:
    """From its header on, however late in its time that came."""
    far = waiting.add(100.0)
    far.send(LOCAL)
    waiting.turn(104.9)
    assert waiting.due_at == 104.9 + PROBE_SECONDS
    waiting.turn(104.9 + PROBE_SECONDS - 0.001)
    assert waiting.admitted == []
    waiting.turn(104.9 + PROBE_SECONDS)
    assert waiting.admitted == [(PROXY, None)]
    assert waiting.due_at == inf


def test_one_that_speaks_for_itself_does_not_hold_others_up(waiting: Waiting) -> None:
    """Of two deadlines the earlier one counts, whichever came first."""
    waiting.add(100.0)
    waiting.add(104.8).send(LOCAL)
    waiting.turn(104.8)
    assert waiting.due_at == 105.0
    waiting.turn(105.0)
    assert len(waiting.rejected) == 1
    assert waiting.due_at == 104.8 + PROBE_SECONDS


def test_what_breaks_off_with_a_part_of_its_header_is_wrong(waiting: Waiting) -> None:
    """It has a record; an end without a word has none."""
    far, silent = waiting.add(), waiting.add()
    far.send(v1()[:5])
    waiting.turn(100.1)
    assert waiting.rejected == []
    far.close()
    silent.close()
    waiting.turn(100.2)
    assert waiting.admitted == []
    assert waiting.rejected == [("proxy-header", "the connection ended within it"), None]
    assert (waiting.counters.proxy_wrong, waiting.counters.proxy_probes) == (1, 1)


def test_what_breaks_off_with_its_whole_header_is_admitted(waiting: Waiting) -> None:
    """The service will see the reset, as it would a moment later."""
    far = waiting.add(kind=Broken)
    far.send(v1())
    waiting.turn(100.1)
    assert waiting.admitted == [(CLIENT, PROXY)]


def test_nothing_but_the_header_is_taken(waiting: Waiting) -> None:
    """What follows it is left on the socket, to the byte; before it is whole nothing is taken."""
    far = waiting.add()
    far.send(v1()[:9])
    waiting.turn(100.1)
    assert waiting.socks[0].recv(100, socket.MSG_PEEK) == v1()[:9]
    far.send(v1()[9:] + b"hello")
    waiting.turn(100.2)
    assert waiting.admitted == [(CLIENT, PROXY)]
    assert waiting.socks[0].recv(100) == b"hello"


def test_connections_are_counted_until_their_wait_ends(waiting: Waiting) -> None:
    """Those without a header and those that speak for themselves."""
    assert waiting.pending.count == 0
    first, second = waiting.add(), waiting.add()
    assert waiting.pending.count == 2
    first.send(LOCAL)
    waiting.turn(100.1)
    assert waiting.pending.count == 2
    for far in (first, second):
        far.close()
    waiting.turn(100.2)
    assert waiting.pending.count == 0


def test_a_connection_that_is_detached_is_as_it_was_accepted(waiting: Waiting) -> None:
    """Nothing is taken off its socket, it is not watched any more, and its wait does not end."""
    far, own = waiting.add(100.0), waiting.add(101.0)
    far.send(v1()[:9])
    own.send(LOCAL)
    waiting.turn(101.1)
    one, two = waiting.pending.detach()
    assert (one.recv(100), two.recv(100)) == (v1()[:9], LOCAL)
    assert waiting.pending.count == 0
    assert waiting.due_at == inf
    far.send(b"more")
    assert waiting.loop._epoll.poll(0) == []
    waiting.turn(200.0)
    assert (waiting.rejected, waiting.admitted) == ([], [])


@pytest.mark.parametrize("data", [b"", LOCAL, b"nonsense\r\n", v1() + b"x"])
def test_one_that_has_left_is_not_heard_of(waiting: Waiting, data: bytes) -> None:
    """Also if another process has the descriptor, as systemd has it at a restart: epoll(7) would
    go on reporting it.
    """
    far = waiting.add(100.0)
    other = os.dup(waiting.socks[0].fileno())
    far.send(data)
    far.close()
    for now in (100.1, 100.2, 100.3):
        waiting.turn(now)
    assert waiting.pending.count == 0
    assert waiting.loop._epoll.poll(0) == []
    os.close(other)


def test_timeouts_are_bounded_in_a_turn(waiting: Waiting) -> None:
    """The others are due at once again: neither established clients nor these wait for long."""
    for _ in range(3 * TIMEOUTS_PER_TURN):
        waiting.add(90.0)
    for turns in (1, 2, 3):
        waiting.turn(100.0)
        assert len(waiting.rejected) == turns * TIMEOUTS_PER_TURN
        assert (waiting.due_at == inf) == (turns == 3)


def test_a_header_that_has_come_is_read_before_its_connection_is_late(waiting: Waiting) -> None:
    """Though the loop was busy, and comes to its event after the deadline only."""
    waiting.add(90.0).send(v1())
    waiting.pending.run_due(100.0)
    assert (waiting.admitted, waiting.rejected) == ([(CLIENT, PROXY)], [])


def test_nothing_is_read_or_ended_while_the_log_has_no_room(waiting: Waiting) -> None:
    """With `when_full = "wait"`; then all that has come meanwhile counts, also an end."""
    first, second = waiting.add(100.0), waiting.add(100.0)
    waiting.add(100.0)
    waiting.report.congested = True
    first.send(v1())
    second.send(v1()[:5])
    second.close()
    waiting.turn(100.1)
    waiting.turn(200.0)
    assert (waiting.admitted, waiting.rejected) == ([], [])
    waiting.report.congested = False
    waiting.turn(200.1)
    assert waiting.admitted == [(CLIENT, PROXY)]
    assert [refusal[0] for refusal in waiting.rejected if refusal] == ["proxy-header", "proxy-late"]
    assert waiting.due_at == inf


def test_an_event_of_another_connection_ends_nothing(waiting: Waiting) -> None:
    """A descriptor may be used anew in the turn in which its old connection has hung up."""
    waiting.add()
    [one] = waiting.pending._waiting.values()
    one.on_ready(READ | select.EPOLLRDHUP | select.EPOLLHUP, 100.0)
    assert (waiting.rejected, waiting.pending.count) == ([], 1)


def test_a_connection_that_epoll_refuses_is_rejected(
    waiting: Waiting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record has the error; the next one waits for its header as usual."""
    with (tmp_path / "file").open("w") as file:  # epoll_ctl(2) says EPERM to a file
        monkeypatch.setattr(Broken, "fileno", lambda _: file.fileno())
        waiting.add(100.0, Broken)
        monkeypatch.undo()
    [refusal] = waiting.rejected
    assert refusal is not None
    assert refusal[0] == "descriptors"
    assert refusal[1].startswith("it cannot be watched, EPERM: ")
    assert waiting.pending.count == 0
    waiting.add(101.0).sendall(v1())
    waiting.turn(102.0)
    assert waiting.admitted == [(CLIENT, PROXY)]


def test_a_reload_rejects_peers_that_are_no_proxies_any_more(waiting: Waiting) -> None:
    """Those that still are go on waiting."""
    waiting.add(100.0)
    waiting.pending.update(SETTINGS, lambda host: host == PROXY[0], 101.0)
    assert (waiting.rejected, waiting.pending.count) == ([], 1)
    waiting.pending.update(SETTINGS, lambda _: False, 101.0)
    assert waiting.rejected == [("access", "proxies no longer has it")]
    assert waiting.pending.count == 0
