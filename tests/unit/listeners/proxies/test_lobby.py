"""netsrvd.listeners.proxies.lobby: what depends on time and on errors; tests/wire has the rest"""

import os
import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from netsrvd.counters import Counters
from netsrvd.listeners.contracts import Refusal
from netsrvd.listeners.proxies.lobby import OWN_SECONDS, Guest, Lobby
from netsrvd.listeners.refusals import Peer
from netsrvd.settings import ListenerSettings
from tests.support.proxied import CLIENT, LOCAL, v1, v2

PROXY = ("10.0.0.1", 40_000)


class Broken(socket.socket):
    """A connection that can be looked at, but breaks off when something is taken from it."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_PEEK:
            return super().recv(size, flags)
        super().recv(size)
        raise ConnectionResetError


class Hall:
    """A lobby, and what has left it."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.entered: list[tuple[Peer, Peer | None]] = []
        self.dismissed: list[Refusal | None] = []
        settings = ListenerSettings("lab", proxies=("10.0.0.1",), proxy_seconds=5.0)
        self.lobby = Lobby(settings, self.counters, self._enter, self._dismiss)
        self.socks: list[socket.socket] = []

    def admit(self, now: float = 100.0, kind: type[socket.socket] = socket.socket) -> socket.socket:
        """Admit a connection of the proxy; return the proxy's end."""
        near, far = socket.socketpair()
        self.socks += [kind(fileno=near.detach()), far]
        self.lobby.admit(self.socks[-2], PROXY, now)
        return far

    def readmit(
        self, since: float, data: bytes = b"", *, has_header: bool = False
    ) -> socket.socket:
        """Readmit a connection of the proxy, which came in another process; return its end."""
        near, far = socket.socketpair()
        self.socks += [near, far]
        self.lobby.readmit(Guest(near, "lab", PROXY, since, data, has_header=has_header))
        return far

    def _enter(self, sock: socket.socket, peer: Peer, proxy: Peer | None, now: float) -> None:
        self.entered.append((peer, proxy))

    def _dismiss(
        self, sock: socket.socket, peer: Peer, why: Refusal | None, now: float, proxy: None
    ) -> None:
        self.dismissed.append(why)
        sock.close()


@pytest.fixture
def hall() -> Iterator[Hall]:
    made = Hall()
    yield made
    made.lobby.close(0.0)
    for sock in made.socks:
        sock.close()


def test_it_is_looked_at_when_the_first_wait_ends(hall: Hall) -> None:
    """An empty lobby has nothing to wait for; else the next look is at the end of a wait."""
    assert hall.lobby.due_at == inf
    hall.admit(100.0)
    hall.admit(103.0)
    assert hall.lobby.due_at == 105.0
    hall.lobby.serve(104.999)
    assert hall.dismissed == []
    hall.lobby.serve(105.0)
    assert hall.dismissed == [("proxy-late", "no whole header within proxy_timeout = 5 s")]
    assert hall.lobby.due_at == 108.0
    assert hall.counters.proxy_late == 1


def test_a_proxy_of_its_own_has_a_moment(hall: Hall) -> None:
    """From its header on, however late in its time that came."""
    far = hall.admit(100.0)
    far.send(LOCAL)
    hall.lobby.serve(104.9)
    assert hall.lobby.due_at == 104.9 + OWN_SECONDS
    hall.lobby.serve(104.9 + OWN_SECONDS - 0.001)
    assert hall.entered == []
    hall.lobby.serve(104.9 + OWN_SECONDS)
    assert hall.entered == [(PROXY, None)]
    assert hall.lobby.due_at == inf


def test_what_breaks_off_with_a_part_of_its_header_is_wrong(hall: Hall) -> None:
    """A reset between the look and the taking is seen with the next look, and ends nothing else."""
    far = hall.admit(kind=Broken)
    far.send(v1()[:5])
    hall.lobby.serve(100.1)
    assert hall.dismissed == []
    far.close()
    hall.lobby.serve(100.2)
    assert (hall.entered, len(hall.dismissed)) == ([], 1)


def test_what_breaks_off_with_its_header_has_come_in(hall: Hall) -> None:
    """The worker will see the reset, as it would a moment later."""
    far = hall.admit(kind=Broken)
    far.send(v1())
    hall.lobby.serve(100.1)
    assert hall.entered == [(CLIENT, PROXY)]


def test_nothing_but_the_header_is_taken(hall: Hall) -> None:
    """What follows it is left on the socket, to the byte."""
    far = hall.admit()
    far.send(v1()[:9])
    hall.lobby.serve(100.1)
    far.send(v1()[9:] + b"hello")
    hall.lobby.serve(100.2)
    assert hall.entered == [(CLIENT, PROXY)]
    assert hall.socks[0].recv(100) == b"hello"


def test_guests_are_counted_until_they_leave(hall: Hall) -> None:
    """Those without a header and those who speak for themselves."""
    assert hall.lobby.guests == 0
    first, second = hall.admit(), hall.admit()
    assert hall.lobby.guests == 2
    first.send(v2(command=0x20, form=0x00, block=b""))
    hall.lobby.serve(100.1)
    assert hall.lobby.guests == 2
    for far in (first, second):
        far.close()
    hall.lobby.serve(100.2)
    assert hall.lobby.guests == 0


def test_who_leaves_for_another_process_is_not_ours(hall: Hall) -> None:
    """All guests go, are not dismissed, and nothing is looked at any more."""
    far, own = hall.admit(100.0), hall.admit(101.0)
    far.send(v1()[:9])
    own.send(LOCAL)
    hall.lobby.serve(102.0)
    one, two = hall.lobby.leave()
    assert (one.listener, one.since, one.data, one.has_header) == ("lab", 100.0, v1()[:9], False)
    assert (two.since, two.has_header) == (102.0, True)
    assert hall.lobby.guests == 0
    assert hall.lobby.due_at == inf
    hall.lobby.close(103.0)
    assert (hall.dismissed, hall.entered) == ([], [])
    assert [guest.sock.fileno() >= 0 for guest in (one, two)] == [True, True]
    hall.lobby = Hall().lobby


def test_who_comes_from_another_process_goes_on_waiting(hall: Hall) -> None:
    """The rest of the header lets it in; a proxy of its own, and one that is late, have the time
    that they would have had.
    """
    first = hall.readmit(96.0, v1()[:9])
    hall.readmit(98.0)
    hall.readmit(99.8, has_header=True)
    first.send(v1()[9:])
    hall.lobby.serve(100.0)
    assert hall.entered == [(CLIENT, PROXY)]
    hall.lobby.serve(100.31)
    assert hall.entered == [(CLIENT, PROXY), (PROXY, None)]
    hall.lobby.serve(102.9)
    assert hall.dismissed == []
    hall.lobby.serve(103.0)
    assert hall.counters.proxy_late == 1
    assert not hall.socks[0].getblocking()


@pytest.mark.parametrize("data", [b"", LOCAL, b"nonsense\r\n", v1() + b"x"])
def test_who_has_left_is_not_heard_of(hall: Hall, data: bytes) -> None:
    """Also if somebody else has the descriptor, as systemd has it at a restart: epoll(7) would go
    on telling of it.
    """
    far = hall.readmit(100.0)
    other = os.dup(hall.socks[0].fileno())
    far.send(data)
    far.close()
    for now in (100.1, 100.2, 100.3):
        hall.lobby.serve(now)
    assert hall.lobby.guests == 0
    assert hall.lobby._epoll.poll(0) == []
    os.close(other)


def test_all_are_heard_before_any_is_late(hall: Hall) -> None:
    """However many they are: those of the process before may all have waited for too long."""
    for _ in range(1100):
        hall.readmit(90.0).send(v1())
    for _ in range(1100 // 16 + 1):
        hall.lobby.serve(100.0)
    assert (len(hall.entered), hall.dismissed) == (1100, [])


def test_a_connection_that_epoll_refuses_is_turned_away(
    hall: Hall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused with the error, and the next one waits for its header as usual."""
    with (tmp_path / "file").open("w") as file:  # epoll_ctl(2) says EPERM to a file
        monkeypatch.setattr(Broken, "fileno", lambda _: file.fileno())
        hall.admit(100.0, Broken)
        monkeypatch.undo()
    [refusal] = hall.dismissed
    assert refusal is not None
    assert refusal[0] == "descriptors"
    assert refusal[1].startswith("it cannot be watched, EPERM: ")
    assert hall.lobby.guests == 0
    hall.admit(101.0).sendall(v1())
    hall.lobby.serve(102.0)
    assert hall.entered == [(CLIENT, PROXY)]
