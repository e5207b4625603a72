"""Connections that come by a proxy: whose they are, and what becomes of those that do not say."""

import select
import socket
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from netsrvd import proxy_pending
from netsrvd.events.connections import Accepted, Closed, ListenerFull
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.services import echo
from netsrvd.services.base import Client, shared
from tests.support.clients import ended
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed, nothing_more, read_exactly, reset
from tests.support.proxied import BY_HAPROXY, CLIENT, LOCAL, addresses, checked, tlv, v1, v2
from tests.support.serving import Serving, listener

BEHIND = {"proxies": ("127.0.0.1",), "allow": ("any",)}
HAPROXY = "127.0.0.2"
"""Not the address of those whom it names, one of whose ports a client here may have, too."""

LATE = {"proxy_seconds": 0.2, **BEHIND}


class Greeter(echo.Stream):
    """Says first whom it takes its client for."""

    def __init__(self, client: Client, _at: float) -> None:
        self._peer = client.peer

    def greeting(self) -> bytes:
        return f"{self._peer[0]} {self._peer[1]}\n".encode()


def named(event: Accepted | Closed | Refused) -> tuple[tuple[str, int], tuple[str, str]]:
    """Return the client and the proxy of a record."""
    return (event.peer_address, event.peer_port), (event.proxy_address, event.proxy_port)


def own(sock: socket.socket) -> tuple[str, str]:
    """Return the address of a test's own end, as the record of a proxy has it."""
    host, port = sock.getsockname()
    return host, str(port)


# --- whose they are -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [v1(), v2(block=addresses()), checked(addresses(), tlv(5, b"ABC123"))]
)
def test_the_client_that_is_named_is_the_one_that_counts(serving: Serving, header: bytes) -> None:
    """Records and the service have the named client, records the proxy in fields of its own; the
    header is no part of what was received, and what came with it is served at once.
    """
    tcp = serving.tcp(service=Greeter, **BEHIND)
    with connect(tcp.local) as sock:
        proxy = own(sock)
        sock.sendall(header + b"hello")
        assert read_exactly(sock, 20) == b"192.0.2.7 4711\nhello"
    accepted, closed = serving.only(Accepted), serving.only(Closed)
    assert named(accepted) == named(closed) == (CLIENT, proxy)
    assert f"192.0.2.7:4711 connected to 127.0.0.1:{tcp.local[1]} via 127.0.0.1:" in (
        accepted.text()
    )
    assert closed.bytes_received == 5


@pytest.mark.parametrize("name", BY_HAPROXY)
def test_a_header_may_come_in_any_two_parts(serving: Serving, stack: ExitStack, name: str) -> None:
    """Wherever it is cut, it is waited for; the second part may bring what follows."""
    header, client = BY_HAPROXY[name]
    tcp = serving.tcp(**BEHIND | {"proxies": (HAPROXY,)})
    socks = [stack.enter_context(connect(tcp.local, source=HAPROXY)) for _ in header[1:]]
    for cut, sock in enumerate(socks, 1):
        sock.sendall(header[:cut])
    serving.settle()
    assert not serving.so_far(Accepted)
    for cut, sock in enumerate(socks, 1):
        sock.sendall(header[cut:] + b"hello")
    assert all(read_exactly(sock, 5) == b"hello" for sock in socks)
    found = {named(event) for event in serving.told(Accepted, len(socks))}
    assert found == {(client, own(sock)) for sock in socks}


@pytest.mark.parametrize("name", BY_HAPROXY)
def test_a_header_may_come_byte_by_byte(serving: Serving, name: str) -> None:
    """Each of them alone."""
    header, client = BY_HAPROXY[name]
    tcp = serving.tcp(**BEHIND | {"proxies": (HAPROXY,)})
    with connect(tcp.local, source=HAPROXY) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header:
            sock.sendall(bytes((byte,)))
            serving.settle()
        assert echoed(sock)
    assert named(serving.only(Accepted))[0] == client


def test_a_part_of_a_header_is_looked_at_once(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the socket until the rest comes; the loop sleeps meanwhile."""
    looks: list[int] = []
    real = proxy_pending.PendingConnection.on_ready

    def on_ready(self: proxy_pending.PendingConnection, events: int, now: float) -> None:
        looks.append(events)
        real(self, events, now)

    monkeypatch.setattr(proxy_pending.PendingConnection, "on_ready", on_ready)
    tcp = serving.tcp(**BEHIND)
    with connect(tcp.local) as sock:
        sock.sendall(v1()[:5])
        eventually(lambda: looks, "a part of it has come")
        for _ in range(20):
            serving.settle()
        assert len(looks) <= 2
        sock.sendall(v1()[5:])
        assert echoed(sock)


def test_a_client_that_is_not_listed_is_an_ordinary_client(serving: Serving) -> None:
    """A header from elsewhere is data: nobody can take another's name."""
    tcp = serving.tcp(proxies=("127.0.0.2",))
    with connect(tcp.local) as sock:
        assert echoed(sock, v1())
    assert named(serving.only(Accepted)) == (
        ("127.0.0.1", serving.only(Closed).peer_port),
        ("", ""),
    )


def test_the_named_client_is_limited(serving: Serving, stack: ExitStack) -> None:
    """Two connections of one client by one proxy are one too many where one is allowed; another
    client of the same proxy is served, though the proxy has three by then.
    """
    tcp = serving.tcp(max_connections_per_source=1, unlimited=(), **BEHIND)
    first, second, third = (stack.enter_context(connect(tcp.local)) for _ in range(3))
    first.sendall(v1())
    assert echoed(first)
    second.sendall(v1((CLIENT[0], 4712)))
    assert ended(second)
    third.sendall(v1(("192.0.2.8", 4711)))
    assert echoed(third)
    refused = serving.only(Refused)
    assert named(refused) == ((CLIENT[0], 4712), own(second))
    assert (refused.reason, refused.source) == ("source", CLIENT[0])
    assert " via 127.0.0.1:" in refused.text()


def test_the_named_client_is_judged_by_access(serving: Serving, stack: ExitStack) -> None:
    """A proxy that is not in `allow` brings those who are, and no others; it may come itself."""
    tcp = serving.tcp(proxies=("127.0.0.1",), allow=("192.0.2.0/24",))
    welcome, stranger, proxy = (stack.enter_context(connect(tcp.local)) for _ in range(3))
    welcome.sendall(v1())
    assert echoed(welcome)
    stranger.sendall(v1(("198.51.100.1", 1)))
    assert ended(stranger)
    assert serving.only(Refused).reason == "access"
    proxy.sendall(LOCAL)
    assert echoed(proxy)
    assert tcp.counters.refused.total == 1
    assert serving.limit.used == 2


# --- those that do not say ----------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"PROXY", v2()[:-1]])
def test_a_late_header_ends_the_connection(serving: Serving, data: bytes) -> None:
    """Who has not sent all of it in time is refused, with a reason and a counter of its own."""
    tcp = serving.tcp(**LATE)
    with connect(tcp.local) as sock:
        sock.sendall(data)
        assert ended(sock)
        refused = serving.only(Refused)
        assert named(refused) == (sock.getsockname(), ("", ""))
    assert refused.reason == "proxy-late"
    assert refused.rule == "no whole header within proxy_timeout = 0.2 s"
    assert (tcp.counters.proxy_late, tcp.counters.refused.total) == (1, 1)
    assert serving.limit.used == 0


def test_a_byte_now_and_then_wins_no_time(serving: Serving) -> None:
    """The time for a header runs from the beginning, whatever comes meanwhile."""
    tcp = serving.tcp(**LATE)
    with connect(tcp.local) as sock:
        for byte in v2(block=addresses() + bytes(4000)):
            if select.select([sock], [], [], 0.005)[0]:  # this client's own pace
                break
            with suppress(ConnectionError):
                sock.sendall(bytes((byte,)))
        assert ended(sock)
    assert serving.only(Refused).reason == "proxy-late"


@pytest.mark.parametrize(
    ("data", "reason", "counter"),
    [
        (b"hello\n", "proxy-header", "proxy_wrong"),
        (b"PROXY TCP4 1.2.3.4\r\n", "proxy-header", "proxy_wrong"),
        (v2(block=addresses() + tlv(3, b"abcd")), "proxy-header", "proxy_wrong"),
        (b"PROXY UNKNOWN " + b"x" * 100, "proxy-long", "proxy_long"),
        (v2(block=addresses(), length=5000), "proxy-long", "proxy_long"),
    ],
)
def test_a_wrong_header_ends_the_connection(
    serving: Serving, data: bytes, reason: str, counter: str
) -> None:
    """With its reason and counter: one record at once, and a summary for all that follow."""
    tcp = serving.tcp(**BEHIND)
    for _ in range(3):
        with connect(tcp.local) as sock:
            sock.sendall(data)
            assert ended(sock)
    serving.stop_listening()
    refused, again = serving.only(Refused), serving.only(RefusedAgain)
    assert (refused.reason, refused.peer_address) == (reason, "127.0.0.1")
    assert (again.reason, again.times) == (reason, 2)
    assert getattr(tcp.counters, counter) == tcp.counters.refused.total == 3
    assert not serving.so_far(Accepted)


def test_an_end_within_the_header_is_a_wrong_one(serving: Serving) -> None:
    """The proxy hung up before it had said whom it came for."""
    tcp = serving.tcp(**BEHIND)
    with connect(tcp.local) as sock:
        sock.sendall(v1()[:-1])
        sock.shutdown(socket.SHUT_WR)
        assert ended(sock)
    assert serving.only(Refused).rule == "the connection ended within it"
    assert tcp.counters.proxy_wrong == 1


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("header", [b"", LOCAL, b"PROXY UNKNOWN\r\n", None])
def test_a_health_check_leaves_no_record(serving: Serving, leave: Any, header: bytes) -> None:
    """A proxy that connects and leaves, without a word or after a header that names itself, is
    counted; that is all.
    """
    tcp = serving.tcp(**BEHIND)
    for _ in range(10):
        sock = connect(tcp.local)
        sock.sendall(v1(sock.getsockname()) if header is None else header)
        leave(sock)
    eventually(lambda: tcp.counters.proxy_probes == 10, "all are counted")
    serving.settle()
    assert serving.reports.events == []
    assert serving.limit.used == 0


def test_a_proxy_that_says_something_is_served(serving: Serving) -> None:
    """As a client of its own, with its records."""
    tcp = serving.tcp(**BEHIND)
    with connect(tcp.local) as sock:
        sock.sendall(LOCAL)
        serving.settle()
        assert serving.reports.events == []
        assert echoed(sock)
        assert named(serving.only(Accepted)) == (sock.getsockname(), ("", ""))
    assert serving.only(Closed).bytes_received == 5


def test_a_proxy_that_stays_is_served(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment, not after `proxy_timeout`, so that a service that speaks first does speak."""
    monkeypatch.setattr(proxy_pending, "PROBE_SECONDS", 0.05)
    tcp = serving.tcp(service=Greeter, proxy_seconds=600, **BEHIND)
    with connect(tcp.local) as sock:
        sock.sendall(LOCAL)
        assert read_exactly(sock, 10) == b"127.0.0.1 "
        assert named(serving.only(Accepted)) == (sock.getsockname(), ("", ""))


# --- many of them, reload and stop ----------------------------------------------------------------


def test_a_flood_of_silent_ones_takes_no_more_than_their_limit(
    serving: Serving, stack: ExitStack
) -> None:
    """They count as connections: at the limit others wait in the kernel's queue, and are served
    when the time of the silent ones is over. The log has one record of them.
    """
    tcp = serving.tcp(max_connections=5, proxy_seconds=1, **BEHIND)
    silent = [stack.enter_context(connect(tcp.local)) for _ in range(5)]
    full = serving.only(ListenerFull)
    assert full.connections == 5
    waiting = stack.enter_context(connect(tcp.local))
    waiting.sendall(v1() + b"hello")
    assert read_exactly(waiting, 5) == b"hello"
    assert all(ended(sock) for sock in silent)
    assert tcp.counters.proxy_late == 5
    assert serving.only(Refused).reason == "proxy-late"


def test_a_full_listener_still_hears_who_is_inside(serving: Serving, stack: ExitStack) -> None:
    """A header that comes at the limit is heard all the same."""
    tcp = serving.tcp(max_connections=2, **BEHIND)
    one, other = (stack.enter_context(connect(tcp.local)) for _ in range(2))
    serving.only(ListenerFull)
    other.sendall(v1())
    assert echoed(other)
    one.sendall(v1())
    assert echoed(one)


def test_a_congested_log_keeps_them_waiting(serving: Serving) -> None:
    """With `when_full = "wait"` nobody comes in without a record, nor is anybody late for that."""
    tcp = serving.tcp(proxy_seconds=1, **BEHIND)
    with connect(tcp.local) as sock:
        sock.sendall(v1()[:-1])
        serving.settle()
        serving.reports.congested = True
        serving.settle()
        sock.sendall(v1()[-1:] + b"hello")
        for _ in range(60):  # its rounds take 20 ms now, together longer than proxy_timeout
            serving.settle()
        assert nothing_more(sock)
        serving.reports.congested = False
        sock.settimeout(SECONDS)
        assert read_exactly(sock, 5) == b"hello"
    assert not serving.so_far(Refused)


def test_a_reload_reaches_those_who_wait(serving: Serving, stack: ExitStack) -> None:
    """The first proxy may come by a reload; who is no longer one is turned away, as it cannot be
    told whose connection that is; a shorter time-out holds for those who wait.
    """
    tcp = serving.tcp()
    with connect(tcp.local) as sock:
        assert echoed(sock, v1())
    tcp.update(listener(**BEHIND), shared(echo.Stream()))
    serving.settle()
    waiting, own_one = (stack.enter_context(connect(tcp.local)) for _ in range(2))
    own_one.sendall(LOCAL)
    serving.settle()
    tcp.update(listener(), shared(echo.Stream()))
    assert ended(waiting)
    assert ended(own_one)
    assert serving.only(Refused).rule == "proxies no longer has it"
    tcp.update(listener(**BEHIND), shared(echo.Stream()))
    serving.settle()
    late = stack.enter_context(connect(tcp.local))
    serving.settle()
    tcp.update(listener(**LATE), shared(echo.Stream()))
    assert ended(late)
    assert tcp.counters.proxy_late == 1


def test_a_stop_ends_their_wait(serving: Serving, stack: ExitStack) -> None:
    """Who has not come in by then is not served; there is nothing to tell of it."""
    tcp = serving.tcp(**BEHIND)
    socks = [stack.enter_context(connect(tcp.local)) for _ in range(3)]
    socks[0].sendall(LOCAL)
    socks[1].sendall(v1()[:5])
    eventually(lambda: serving.limit.used == 3, "all are accepted")
    serving.settle()
    serving.stop_listening()
    assert all(ended(sock) for sock in socks)
    assert serving.reports.events == []
    assert serving.limit.used == 0
