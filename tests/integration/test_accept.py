"""What keeps connections from being taken: errors of accept, and a listener that is full."""

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from typing import Any

import pytest

from netsrvd.connection import RECEIVE_BYTES, Connection
from netsrvd.errnos import CONNECTION_ERRNOS
from netsrvd.event_loop import EventLoop
from netsrvd.events.connections import (
    Accepted,
    AcceptFailing,
    AcceptRecovered,
    Closed,
    ListenerBelowLimit,
    ListenerFull,
)
from netsrvd.events.refusals import Refused
from netsrvd.proxy_pending import PendingConnection
from netsrvd.services import base, echo
from netsrvd.tcp import ACCEPTS_PER_TURN, BURST_SECONDS
from tests.integration.conftest import open_descriptors
from tests.support.faulty import FaultySocket
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed, nothing_more
from tests.support.proxied import LOCAL
from tests.support.serving import Served, Serving, listener, opened
from tests.support.waiting import wait_event

PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EIO}
ERRORS = sorted(CONNECTION_ERRNOS | PASSING - {errno.EINTR})


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_error_of_accept_is_told_and_survived(
    number: int, serving: Serving, hurry: None
) -> None:
    """Whatever accept(2) may return for one connection, or for want of something, is told when it
    begins and when it ends; then everybody who waits is served.

    (Told once, unless this machine is slower than the pauses: tests/unit has a clock of its own.)
    """
    faulty = FaultySocket(opened("tcp", listener()))
    faulty.faults = [number] * 3
    tcp = serving.tcp(faulty)
    with connect(tcp.local) as client:
        assert echoed(client)
        began, *_ = serving.told(AcceptFailing)
        eventually(lambda: sum(over.errors for over in serving.so_far(AcceptRecovered)) == 3)
        assert began.error.startswith(f"{errno.errorcode[number]}: ")
        assert began.pause_ms == (10 if number in PASSING else 0)
        assert tcp.counters.accept_errors == 3
        assert echoed(client)


def test_trouble_may_come_again(serving: Serving, hurry: None) -> None:
    """New trouble after the end of the old one is told anew."""
    faulty = FaultySocket(opened("tcp", listener()))
    tcp = serving.tcp(faulty)
    for times in (1, 2):
        faulty.faults = [errno.ECONNABORTED]
        with connect(tcp.local) as client:
            assert echoed(client)
        serving.told(AcceptRecovered, times)
        assert len(serving.so_far(AcceptFailing)) == times


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
def test_a_socket_that_is_no_good_ends_the_thread(number: int, serving: Serving) -> None:
    """An error that can only be a bug is not survived: the process is to end."""
    faulty = FaultySocket(opened("tcp", listener()))
    faulty.faults = [number]
    tcp = serving.tcp(faulty)
    with suppress(ConnectionError):
        connect(tcp.local).close()
    name, error = serving.expect_failure()
    assert name == "tcp"
    assert isinstance(error, OSError)
    assert error.errno == number


@contextmanager
def descriptors_for(count: int) -> Iterator[None]:
    """Let this process open `count` more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, open_descriptors())) + 1 + count
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def test_running_out_of_descriptors_is_survived(
    serving: Serving, stack: ExitStack, many_descriptors: None
) -> None:
    """With 500 clients and descriptors for 20 the daemon serves 20, tells once that it cannot take
    more, turns the others away after a second with the one that it has kept for this, does not
    burn the processor, and serves whoever comes when there are descriptors again.
    """
    tcp = serving.tcp(start=False)
    clients = [stack.enter_context(connect(tcp.local)) for _ in range(500)]
    started = time.monotonic()
    with descriptors_for(20):
        tcp.start()
        began = serving.only(AcceptFailing)
        errors, used, since = tcp.counters.accept_errors, processor_seconds(), time.monotonic()
        eventually(lambda: tcp.counters.refused.total == 480, "the others are turned away")
        seconds, used = time.monotonic() - since, processor_seconds() - used
        assert tcp.counters.accept_errors >= errors + 6
        assert serving.live == len(serving.so_far(Accepted)) == 20
        assert all(echoed(client) for client in clients[:20])
        assert all(client.recv(1) == b"" for client in clients[20:])
    assert began.error == "EMFILE: Too many open files"
    assert began.pause_ms == 100
    assert 0.5 < seconds < SECONDS
    assert used < 0.5 * seconds  # most of it is this thread's looking
    with connect(tcp.local) as client:
        assert echoed(client)
    ended = serving.only(AcceptRecovered)
    most = 10 + (time.monotonic() - started) / 0.1  # one after each pause
    assert ended.errors == tcp.counters.accept_errors < most
    assert serving.only(AcceptFailing) is began
    assert serving.only(Refused).reason == "descriptors"


def test_a_full_listener_has_others_wait(serving: Serving, stack: ExitStack) -> None:
    """With `max_connections` inside, further clients wait in the kernel's queue and are served in
    order as others leave; that it was full is told once, and once that it is no longer.
    """
    tcp = serving.tcp(max_connections=10)
    clients = [stack.enter_context(connect(tcp.local)) for _ in range(25)]
    for client in clients:
        client.send(b"x")
    serving.told(Accepted, 10)
    full = serving.only(ListenerFull)
    assert (full.connections, full.limit) == (10, "its max_connections = 10")
    for left in range(15):
        assert clients[left].recv(1) == b"x"
        assert nothing_more(clients[left + 10])
        clients[left].close()
        serving.told(Accepted, left + 11)
        assert serving.live <= 10
        clients[left + 10].settimeout(SECONDS)
    assert serving.only(ListenerFull) is full
    assert not serving.so_far(ListenerBelowLimit)
    for client in clients[15:]:
        assert client.recv(1) == b"x"
        client.close()
    relieved = serving.only(ListenerBelowLimit)
    assert relieved.connections <= 9
    assert 0 < relieved.seconds < SECONDS
    assert serving.only(ListenerFull) is full


def served(stack: ExitStack, tcp: Served) -> socket.socket:
    """Return a client that is accepted in a turn of its own, in which the limit is seen."""
    client: socket.socket = stack.enter_context(connect(tcp.local))
    assert echoed(client)
    return client


def test_relief_is_told_without_a_newcomer(serving: Serving, stack: ExitStack) -> None:
    """That a full listener has room again is told as soon as it has, though nobody comes."""
    tcp = serving.tcp(max_connections=40)
    clients = [served(stack, tcp) for _ in range(40)]
    serving.only(ListenerFull)
    for client in clients[:3]:
        client.close()
    serving.told(Closed, 3)
    with connect(tcp.local) as other:
        assert echoed(other)
    assert not serving.so_far(ListenerBelowLimit)
    for client in clients[3:]:
        client.close()
    assert serving.only(ListenerBelowLimit).connections <= 36


def test_relief_of_the_daemon_is_told_by_each_listener(serving: Serving, stack: ExitStack) -> None:
    """Also by one without a connection, when those of another one have ended."""
    serving.limit.limit = 20
    one, two = serving.tcp(), serving.tcp()
    clients = [served(stack, one) for _ in range(20)]
    with connect(two.local):
        serving.told(ListenerFull, 2)
    clients[0].close()
    serving.told(Closed, 2)
    eventually(lambda: two.listener._sweep_at == inf)  # it has nothing else to look at
    assert not serving.so_far(ListenerBelowLimit)
    for client in clients[1:6]:
        client.close()
    relieved = serving.told(ListenerBelowLimit, 2)
    assert min(each.connections for each in relieved) == 0


def test_a_higher_limit_lets_the_waiting_in(serving: Serving, stack: ExitStack) -> None:
    """New settings with more room are in force at once, without anybody leaving; those with less
    end nobody.
    """
    tcp = serving.tcp(max_connections=1)
    first, second = (stack.enter_context(connect(tcp.local)) for _ in range(2))
    second.send(b"x")
    serving.only(ListenerFull)
    assert nothing_more(second)
    second.settimeout(SECONDS)
    for limit in (5, 1):
        changed = listener(max_connections=limit)
        tcp.update(changed, base.shared(echo.Stream()))
        if limit == 5:
            assert second.recv(1) == b"x"
            serving.only(ListenerBelowLimit)
    serving.told(ListenerFull, 2)
    assert echoed(first)
    assert echoed(second)


def test_waiting_for_the_log_takes_nobody(serving: Serving, stack: ExitStack) -> None:
    """While the log is congested nobody new is taken; those inside are served on."""
    tcp, udp = serving.tcp(), serving.udp()
    inside = stack.enter_context(connect(tcp.local))
    assert echoed(inside)
    serving.reports.congested = True
    asker = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    asker.connect(udp.local)
    serving.settle()
    outside = stack.enter_context(connect(tcp.local))
    outside.send(b"x")
    asker.send(b"x")
    assert echoed(inside)
    assert nothing_more(outside)
    assert nothing_more(asker)
    assert len(serving.so_far(Accepted)) == 1
    serving.reports.congested = False
    for client in (outside, asker):
        client.settimeout(SECONDS)
        assert client.recv(1) == b"x"


@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)], ids=["client", "proxy"])
def test_a_connection_that_cannot_be_watched_is_told_and_closed(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, proxies: tuple[str, ...]
) -> None:
    """Where epoll(7) takes no more descriptors, one connection ends with the reason; whoever comes
    afterwards is served.
    """
    real, faults = EventLoop.add, [errno.ENOSPC]

    def add(self: EventLoop, descriptor: int, watched: Any, *events: int) -> None:
        if faults and isinstance(watched, Connection | PendingConnection):
            raise OSError(faults[0], os.strerror(faults.pop()))
        real(self, descriptor, watched, *events)

    monkeypatch.setattr(EventLoop, "add", add)
    served = serving.tcp(proxies=proxies)
    with connect(served.local) as client:
        assert client.recv(1) == b""
    if proxies:
        refused = serving.only(Refused)
        assert refused.reason == "descriptors"
        assert "max_user_watches" in refused.rule
    else:
        closed = serving.only(Closed)
        assert closed.reason == "network"
        assert "No space left on device" in closed.error
    eventually(lambda: serving.limit.used == 0, "its place is free")
    with connect(served.local) as client:
        if proxies:
            client.sendall(LOCAL)
        assert echoed(client)


class Counting(base.Stream):
    """Notes how many connections had been accepted when something came."""

    def __init__(self, accepted: Callable[[], int]) -> None:
        self._accepted = accepted
        self.noted: list[int] = []

    def respond(self, data: bytes) -> bytes:
        self.noted.append(self._accepted())
        return data


def test_a_crowd_that_comes_delays_nobody_inside(serving: Serving, stack: ExitStack) -> None:
    """However many wait to be accepted, a client inside is answered after a burst of them."""
    counting = Counting(lambda: len(serving.so_far(Accepted)))
    served = serving.tcp(service=lambda *_: counting)
    inside = stack.enter_context(connect(served.local))
    assert echoed(inside)
    serving.settle()  # by then the next events come in the order in which they happen
    held, free = threading.Event(), threading.Event()
    serving.tcp_loop.call_soon_threadsafe(lambda: (held.set(), free.wait()))
    wait_event(held, "the pause of the loop")
    for _ in range(4 * ACCEPTS_PER_TURN):
        stack.enter_context(connect(served.local))
    inside.send(b"x")
    free.set()
    assert inside.recv(1) == b"x"
    assert counting.noted[0] == 1
    assert counting.noted[1] <= 1 + ACCEPTS_PER_TURN
    serving.told(Accepted, 1 + 4 * ACCEPTS_PER_TURN)


class Held(base.Stream):
    """Takes what comes, a while for each piece; notes at each how many had been accepted."""

    def __init__(self, accepted: Callable[[], int]) -> None:
        self._accepted = accepted
        self.begun, self.gate = threading.Event(), threading.Event()
        self.noted: list[int] = []

    def respond(self, data: bytes) -> bytes:
        self.noted.append(self._accepted())
        self.begun.set()
        wait_event(self.gate, "the end")
        time.sleep(2 * BURST_SECONDS)
        return b""


def test_a_busy_loop_still_accepts(serving: Serving, stack: ExitStack) -> None:
    """However long a turn serves those inside, each turn accepts somebody who waits."""
    held = Held(lambda: len(serving.so_far(Accepted)))
    served = serving.tcp(service=lambda *_: held, options={"SO_RCVBUF": 1 << 20})
    busy = stack.enter_context(connect(served.local, SO_SNDBUF=1 << 20))
    busy.send(b"x")
    wait_event(held.begun, "the first piece")
    busy.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while sent < 5 * RECEIVE_BYTES:
            sent += busy.send(bytes(RECEIVE_BYTES))
    assert sent > 3 * RECEIVE_BYTES
    stack.enter_context(connect(served.local))
    held.gate.set()
    serving.told(Accepted, 2)
    eventually(lambda: serving.connections()[0].bytes_received == sent + 1, "all is taken")
    assert held.noted[0] == 1
    assert held.noted[2] == 2
