"""One server hands its live connections over to another, and no client notices."""

import itertools
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from netsrvd import handover
from netsrvd.connection import Connection
from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.refusals import Refused
from netsrvd.handover import Restored
from netsrvd.log.records import Record
from netsrvd.server import Pending
from netsrvd.services import chargen
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.sockets.activation import ActivatedSocket
from tests.support import server
from tests.support.fdstore import Store
from tests.support.inherited import as_systemd
from tests.support.logs import FakeLog
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed, nothing_more, read_exactly
from tests.support.proxied import CLIENT, v1
from tests.support.serving import listener

TALKERS = 24
HUGE = 64 << 20
"""More than all buffers of two ends hold."""


def tcp(name: str, **more: Any) -> ListenerSettings:
    """Return the settings of a listener for the service of its name."""
    return listener(name=name, service=name, protocols=("tcp",), **more)


class Life:
    """One process of the daemon, in this one."""

    def __init__(
        self, listeners: tuple[ListenerSettings, ...], passed: list[ActivatedSocket]
    ) -> None:
        self.server = server.build(Settings(listeners=listeners), passed)

    def begin(self, restored: Restored | None = None) -> None:
        """Start as the daemon does."""
        self.server.start(paused=True)
        if restored:
            self.server.restore(restored)
        self.server.resume()

    def end(self) -> int:
        """Close what is left, and return how many they were."""
        closed = self.server.close_connections()
        self.server.stop_log()
        return closed


class Daemon:
    """A daemon on two ports whose sockets are somebody else's, and that can be restarted."""

    def __init__(self, log: FakeLog) -> None:
        self.log = log
        self.store: Any = Store()
        self.listeners = (tcp("echo"), tcp("chargen"))
        self.passed = {each.name: as_systemd(socket.SOCK_STREAM) for each in self.listeners}
        self.life = Life(self.listeners, self._passed())
        self.life.begin()

    def address(self, name: str = "echo") -> tuple[str, int]:
        host, port = self.passed[name].getsockname()
        return host, port

    def _passed(self) -> list[ActivatedSocket]:
        names = {each.name for each in self.listeners}
        return [
            ActivatedSocket(socket.socket(fileno=os.dup(sock.fileno())), name)
            for name, sock in self.passed.items()
            if name in names
        ]

    def halt(self, most: int = 10_000) -> int:
        """Hand at most `most` connections over and end; return how many were cut off."""
        ending = self.life.server
        pending: Pending = []
        ending.stop_listening(0.0, pending)
        detached: list[Connection] = []
        ending.detach(detached)
        saved, left = handover.select(detached, most)
        ending.reattach(left)
        handover.save(saved, pending, ending.drops, self.store)
        return self.life.end()

    def go_on(self) -> Restored:
        """Begin the next life with what is in the store."""
        restored = self.begin_next()
        handover.clear(self.store, {name for name, _ in restored.pending})
        return restored

    def begin_next(self) -> Restored:
        """Begin it, with all still in the store."""
        self.life = Life(self.listeners, self._passed())
        restored = handover.restore(self.store.passed_on())
        self.life.begin(restored)
        return restored

    def restart(self) -> None:
        self.halt()
        self.go_on()

    def end(self) -> None:
        server.stop(self.life.server)
        self.store.close()
        for sock in self.passed.values():
            sock.close()

    # --- what it told -------------------------------------------------------------------------

    def records(self, kind: type) -> list[dict[str, str]]:
        """Return the fields of the records of one kind, of all lives."""
        return [dict(each.fields) for each in self._of(kind)]

    def _of(self, kind: type) -> list[Record]:
        return [each for each in tuple(self.log.taken) if each.message_id == kind.MESSAGE_ID]

    def told(self, kind: type, count: int = 1) -> list[dict[str, str]]:
        """Wait for `count` records of one kind; return the fields of all of that kind."""
        eventually(lambda: len(self._of(kind)) >= count, f"{count} {kind.__name__}")
        return self.records(kind)


@pytest.fixture
def daemon(log: FakeLog) -> Iterator[Daemon]:
    made = Daemon(log)
    yield made
    made.end()


class Talker:
    """A client that sends numbered lines without a pause, and reads what comes back."""

    def __init__(self, address: tuple[str, int], over: threading.Event) -> None:
        self.sock = connect(address)
        self.port = str(self.sock.getsockname()[1])
        self.sent = self.got = b""
        self.rounds = 0
        self._over = over
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def _talk(self) -> None:
        for number in itertools.count():
            if self._over.is_set():
                break
            line = f"{self.port} {number}\n".encode() * (1 + number % 50)
            self.sent += line
            self.sock.sendall(line)
            self.got += read_exactly(self.sock, len(line))
            self.rounds = number
        self.sock.shutdown(socket.SHUT_WR)
        while data := self.sock.recv(65536):
            self.got += data

    def join(self) -> None:
        self._thread.join(2 * SECONDS)
        assert not self._thread.is_alive()
        self.sock.close()


def test_talkers_do_not_notice(daemon: Daemon) -> None:
    """Through restarts each line of each client comes back, none missing, none twice; each has one
    record at its beginning and one at its end, with the same id and what all lives together moved.
    """
    over = threading.Event()
    talkers = [Talker(daemon.address(), over) for _ in range(TALKERS)]
    for _ in range(5):
        before = [each.rounds for each in talkers]
        eventually(
            lambda: all(each.rounds > then for each, then in zip(talkers, before, strict=True)),  # noqa: B023
            "a line of everybody's",
        )
        daemon.restart()
    over.set()
    for each in talkers:
        each.join()
        assert each.got == each.sent
    ends = daemon.told(Closed, TALKERS)
    begins = daemon.records(Accepted)
    assert len(begins) == len(ends) == TALKERS
    ids = {each["NETSRVD_PEER_PORT"]: each["NETSRVD_CONNECTION"] for each in begins}
    assert len({*ids.values()}) == TALKERS
    by_port = {each["NETSRVD_PEER_PORT"]: each for each in ends}
    for each in talkers:
        end = by_port[each.port]
        assert end["NETSRVD_CONNECTION"] == ids[each.port]
        assert end["NETSRVD_REASON"] == "client"
        figures = end["NETSRVD_BYTES_RECEIVED"], end["NETSRVD_BYTES_SENT"]
        assert figures == (str(len(each.sent)),) * 2


def sent_until_stuck(daemon: Daemon, sock: socket.socket) -> bytes:
    """Send until nothing more is taken, since a part of the answer waits; return what was sent."""
    data, sent = memoryview(os.urandom(HUGE)), 0
    sock.setblocking(False)

    def is_stuck() -> bool:
        nonlocal sent
        with suppress(BlockingIOError):
            sent += sock.send(data[sent : sent + 65536])
            return False
        return bool(daemon.life.server.connections()[0].send_buffer)

    eventually(is_stuck, "an answer that is half sent")
    assert sent < HUGE
    sock.settimeout(SECONDS)
    return bytes(data[:sent])


def test_what_was_half_sent_is_sent_to_the_end(daemon: Daemon) -> None:
    """A client that did not read gets all of it from the next process, in order."""
    with connect(daemon.address(), SO_RCVBUF=65536) as sock:
        sent = sent_until_stuck(daemon, sock)
        for _ in range(3):
            daemon.restart()
        sock.shutdown(socket.SHUT_WR)
        assert read_exactly(sock, len(sent)) == sent
        assert sock.recv(1) == b""
    [end] = daemon.told(Closed)
    figures = end["NETSRVD_BYTES_RECEIVED"], end["NETSRVD_BYTES_SENT"]
    assert figures == (str(len(sent)),) * 2


def test_a_half_closed_client_gets_the_rest_and_the_end(daemon: Daemon) -> None:
    """Whether its end was seen by the process before or is found by the next one."""
    with connect(daemon.address(), SO_RCVBUF=65536) as sock:
        sent = sent_until_stuck(daemon, sock)
        sock.shutdown(socket.SHUT_WR)
        daemon.restart()
        assert read_exactly(sock, len(sent)) == sent
        assert sock.recv(1) == b""
    assert daemon.told(Closed)[0]["NETSRVD_REASON"] == "client"


def test_what_comes_in_between_is_answered_by_the_next_one(daemon: Daemon) -> None:
    """A client that speaks or comes while nobody serves waits, and then has its answer."""
    with connect(daemon.address()) as live, ExitStack() as stack:
        assert echoed(live)
        daemon.halt()
        live.sendall(b"in between")
        new = stack.enter_context(connect(daemon.address()))
        new.sendall(b"came in between")
        daemon.go_on()
        assert live.recv(100) == b"in between"
        assert new.recv(100) == b"came in between"
    daemon.told(Closed, 2)
    assert len(daemon.records(Accepted)) == 2


def test_who_left_in_between_has_its_record(daemon: Daemon) -> None:
    """In order or by a reset, with or without a last word: the next process tells it, once."""
    polite, rude, silent = (connect(daemon.address()) for _ in range(3))
    with polite, rude, silent:
        assert all(map(echoed, (polite, rude, silent)))
        daemon.halt()
        polite.sendall(b"bye")
        rude.sendall(b"x")
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    ports = {each["NETSRVD_PEER_PORT"]: each for each in daemon.told(Accepted, 3)}
    daemon.go_on()
    ends = daemon.told(Closed, 3)
    assert len(ends) == 3
    assert {each["NETSRVD_PEER_PORT"] for each in ends} == {*ports}
    assert sorted(each["NETSRVD_REASON"] for each in ends) == ["client", "client", "reset"]
    received = sorted(int(each["NETSRVD_BYTES_RECEIVED"]) for each in ends)
    assert received[0] == len(b"hello")
    assert received[-1] == len(b"hellobye")


def test_a_stream_without_an_end_has_no_seam(daemon: Daemon) -> None:
    """Character by character it goes on where it was cut."""
    with connect(daemon.address("chargen")) as sock:
        got = read_exactly(sock, 100_003)
        for count in (1, 77_777, 1_000_000):
            daemon.restart()
            got += read_exactly(sock, count)
    rounds = len(got) // len(chargen.PATTERN) + 1
    assert got == (chargen.PATTERN * rounds)[: len(got)]


def test_who_does_not_fit_is_cut_and_the_others_live(daemon: Daemon) -> None:
    """A store that is too small keeps what it has room for; each has the record of its end."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon.address())) for _ in range(4)]
        assert all(map(echoed, clients))
        assert daemon.halt(most=3) == 1
        daemon.go_on()
        assert daemon.life.server.live == 3
        ended = 0
        for client in clients:
            with suppress(AssertionError, OSError):
                assert echoed(client)
                continue
            ended += 1
        assert ended == 1
    ends = daemon.told(Closed, 4)
    assert sorted(each["NETSRVD_REASON"] for each in ends) == ["client"] * 3 + ["drain"]


def test_a_store_that_lost_some_tells_whom(daemon: Daemon) -> None:
    """A connection whose socket did not arrive has its record, with the reason `lost`."""
    with connect(daemon.address()) as one, connect(daemon.address()) as other:
        assert echoed(one)
        assert echoed(other)
        daemon.halt()
        os.close(daemon.store.stored.pop(0)[0])
        assert daemon.go_on().lost == 1
        [end] = daemon.told(Closed)
        assert end["NETSRVD_REASON"] == "lost"
        assert end["NETSRVD_BYTES_SENT"] == "5"
        lost, kept = (one, other) if end["NETSRVD_PEER_PORT"] == port(one) else (other, one)
        assert lost.recv(1) == b""
        assert echoed(kept)


def port(sock: socket.socket) -> str:
    return str(sock.getsockname()[1])


def test_limits_hold_across_a_restart(daemon: Daemon) -> None:
    """Who was handed over counts against the limits of the next process; nobody new comes in
    until one of them leaves.
    """
    with connect(daemon.address()) as one, connect(daemon.address()) as two:
        assert echoed(one)
        assert echoed(two)
        daemon.listeners = tuple(tcp(each.name, max_connections=2) for each in daemon.listeners)
        daemon.restart()
        with connect(daemon.address()) as waiting:
            waiting.sendall(b"hello")
            assert echoed(one)
            assert echoed(two)
            assert nothing_more(waiting)
            one.close()
            waiting.settimeout(SECONDS)
            assert read_exactly(waiting, 5) == b"hello"


def test_rules_of_the_next_process_end_who_may_no_longer_be_there(daemon: Daemon) -> None:
    """As a reload does it: with the rule in the record."""
    with connect(daemon.address()) as sock:
        assert echoed(sock)
        daemon.listeners = (tcp("echo", deny=("127.0.0.1",)), daemon.listeners[1])
        daemon.restart()
        assert sock.recv(1) == b""
    [end] = daemon.told(Closed)
    assert (end["NETSRVD_REASON"], end["NETSRVD_BYTES_SENT"]) == ("access", "5")


def test_who_came_to_a_listener_that_is_gone_is_served_on(daemon: Daemon) -> None:
    """Under its old name, until the end, which is told."""
    with connect(daemon.address("chargen")) as sock:
        got = read_exactly(sock, 1000)
        daemon.listeners = daemon.listeners[:1]
        daemon.restart()
        got += read_exactly(sock, 1_000_000)
        assert got.startswith(chargen.PATTERN)
    [end] = daemon.told(Closed)
    assert end["NETSRVD_LISTENER"] == "chargen"


def test_a_handover_that_fails_is_none(daemon: Daemon) -> None:
    """The connections are served again as if nothing had been, and drained."""
    with connect(daemon.address()) as sock:
        assert echoed(sock)
        ending = daemon.life.server
        ending.stop_listening(0.0)
        detached: list[Connection] = []
        ending.detach(detached)
        daemon.store.fails = {"barrier": TimeoutError("no answer")}
        with pytest.raises(TimeoutError):
            handover.save(detached, [], {}, daemon.store)
        ending.reattach(detached)
        assert not ending.is_empty
        assert echoed(sock)
    eventually(lambda: ending.is_empty, "the end of the drain")
    assert daemon.life.end() == 0
    daemon.store.fails = {}
    daemon.life = Life(daemon.listeners, daemon._passed())
    daemon.life.begin()
    assert daemon.told(Closed)[0]["NETSRVD_REASON"] == "client"


def stale_watches() -> list[str]:
    """Return what epoll(7) of this process watches that is not the open file of that number."""
    stale = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # what it is listed by
            if str(entry.readlink()) == "anon_inode:[eventpoll]":
                lines = Path("/proc/self/fdinfo", entry.name).read_text(encoding="ascii")
                stale += [each for each in lines.splitlines() if "tfd:" in each and is_stale(each)]
    return stale


def is_stale(line: str) -> bool:
    """Return whether a line of proc_pid_fdinfo(5) names another file than its number now is."""
    fields = dict(each.split(":", 1) for each in re.sub(r":\s+", ":", line).split() if ":" in each)
    try:
        return os.fstat(int(fields["tfd"])).st_ino != int(fields["ino"], 16)
    except OSError:
        return True


def test_an_end_while_the_store_still_has_the_connection_is_one(daemon: Daemon) -> None:
    """The store has a descriptor of each connection until it is told to forget it, so that epoll(7)
    would go on reporting one that has ended here, for ever and as another one's.
    """
    with connect(daemon.address()) as sock:
        assert echoed(sock)
        daemon.halt()
        daemon.begin_next()
        assert echoed(sock)
    daemon.told(Closed)
    assert stale_watches() == []
    with connect(daemon.address()) as other:
        assert echoed(other)
        handover.clear(daemon.store)
        assert echoed(other)
    assert len(daemon.told(Closed, 2)) == 2


def test_a_connection_that_is_served_again_is_watched_once(daemon: Daemon) -> None:
    """After a handover that failed systemd may still have a descriptor of it for a while; nothing
    of it is left with epoll(7) when it ends.
    """
    with connect(daemon.address()) as sock, ExitStack() as stack:
        assert echoed(sock)
        ending = daemon.life.server
        detached: list[Connection] = []
        ending.detach(detached)
        for each in detached:
            stack.callback(os.close, os.dup(each.descriptor))
        ending.reattach(detached)
        assert echoed(sock)
        sock.close()
        daemon.told(Closed)
        assert stale_watches() == []


# --- behind a proxy -----------------------------------------------------------------------------


def behind(daemon: Daemon, **more: Any) -> None:
    """Restart the daemon with a listener whose clients come by a proxy."""
    daemon.listeners = (tcp("echo", proxies=("127.0.0.1",), allow=("any",), **more),)
    daemon.restart()


def waiting(daemon: Daemon) -> None:
    """Return as soon as there is a connection that is not served, as its header is missing."""
    running = daemon.life.server
    eventually(lambda: not running.is_empty and not running.live, "one without its header")


@pytest.mark.parametrize("at", [0, 1, len(v1()) - 1])
def test_a_header_may_be_split_by_restarts(daemon: Daemon, at: int) -> None:
    """One part goes to each process; the client that it names is let in by the last one."""
    behind(daemon)
    with connect(daemon.address()) as sock:
        sock.sendall(v1()[:at])
        waiting(daemon)
        daemon.restart()
        waiting(daemon)
        daemon.restart()
        sock.sendall(v1()[at:] + b"hello")
        assert read_exactly(sock, 5) == b"hello"
    [end] = daemon.told(Closed)
    assert (end["NETSRVD_PEER_ADDRESS"], end["NETSRVD_PROXY_ADDRESS"]) == (CLIENT[0], "127.0.0.1")
    assert len(daemon.records(Accepted)) == 1


def test_who_waits_across_a_restart_waits_as_one_who_just_came(daemon: Daemon) -> None:
    """The next process has accepted the connection, as far as anybody can tell: its wait begins
    there, by the settings of that process, which tells its end.
    """
    behind(daemon, proxy_seconds=600)
    with connect(daemon.address()) as sock:
        waiting(daemon)
        behind(daemon, proxy_seconds=0.3)
        assert sock.recv(1) == b""
    [refused] = daemon.told(Refused)
    assert refused["NETSRVD_REASON"] == "proxy-late"
    assert daemon.records(Accepted) == []


def test_the_next_process_may_know_other_proxies(daemon: Daemon) -> None:
    """Whoever waited for a header is turned away where it is no longer to send one."""
    behind(daemon)
    with connect(daemon.address()) as sock:
        waiting(daemon)
        daemon.listeners = (tcp("echo"),)
        daemon.restart()
        assert sock.recv(1) == b""
    with connect(daemon.address()) as sock:
        assert echoed(sock)
    daemon.told(Closed)
    assert len(daemon.records(Accepted)) == 1
