"""TCP connections from accept to close, in their event loop."""

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netsrvd import tcp
from netsrvd.connection import RECEIVE_BYTES, Connection
from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.events.refusals import Refused
from netsrvd.services import echo
from netsrvd.services.base import shared
from netsrvd.tcp import LOCALS_KEPT
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed, exchange, nothing_more, read_exactly, reset
from tests.support.serving import Serving, adopted, listener
from tests.support.waiting import wait_event

LARGEST_MESSAGE = 150_000


def test_200_kilobytes_and_the_end_come_back(serving: Serving) -> None:
    """200 kB followed by shutdown(WR) give 200 kB and then the end, and the record counts them."""
    data = os.urandom(200_000)
    with connect(serving.tcp().local) as client:
        client.sendall(data[:100_000])
        assert exchange(client, [data[100_000:]]) == data
    closed = serving.only(Closed)
    assert (closed.reason, closed.bytes_received, closed.bytes_sent) == ("client", 200_000, 200_000)


def test_everything_comes_back_to_a_client_that_reads_late(serving: Serving) -> None:
    """What the client has not read when it shuts down its side is still sent, to the last byte."""
    tcp = serving.tcp(options={"SO_SNDBUF": 4096})
    with connect(tcp.local, SO_RCVBUF=4096) as client:
        data = os.urandom(RECEIVE_BYTES)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        [live] = eventually(serving.connections)
        eventually(lambda: live.send_buffer is not None, "a backlog stands")
        assert read_exactly(client, len(data)) == data
        assert client.recv(1) == b""
    assert serving.only(Closed).reason == "client"


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    sizes=st.lists(st.integers(0, LARGEST_MESSAGE), max_size=4),
    cuts=st.lists(st.integers(0, 4 * LARGEST_MESSAGE), max_size=6),
    seed=st.binary(min_size=1, max_size=8),
)
def test_every_byte_comes_back_in_order(
    serving: Serving, sizes: list[int], cuts: list[int], seed: bytes
) -> None:
    """Messages of any sizes, cut into any pieces, come back as one stream in order."""
    data = (seed * (sum(sizes) // len(seed) + 1))[: sum(sizes)]
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    local = serving.tcp().local
    try:
        with connect(local) as client:
            assert exchange(client, [data[a:b] for a, b in pairwise(edges) if a < b]) == data
    finally:
        serving.stop_listening()


def test_a_client_that_never_reads_is_held_and_ended(serving: Serving) -> None:
    """Who sends and never reads has at most one read of backlog here, and is ended by the write
    time-out; his neighbour is served all the while.
    """
    local = serving.tcp(write_seconds=0.3).local
    with connect(local) as greedy, connect(local) as neighbour:
        assert echoed(greedy)
        greedy.setblocking(False)
        [live] = eventually(lambda: [one for one in serving.connections() if one.bytes_sent])
        began, backlogs = monotonic(), [0]
        while not serving.so_far(Closed) and monotonic() - began < SECONDS:
            if select.select([], [greedy], [], 0.01)[1]:
                try:
                    greedy.send(bytes(RECEIVE_BYTES))
                except ConnectionError:
                    break
            backlogs.append(len(live.send_buffer or b""))
            assert echoed(neighbour)
        closed = serving.told(Closed)[0]
        assert closed.reason == "write"
        assert closed.bytes_received - closed.bytes_sent <= RECEIVE_BYTES
        assert 0 < max(backlogs) <= RECEIVE_BYTES
        assert 0.3 <= closed.seconds < SECONDS


def test_a_slow_reader_is_not_ended(serving: Serving) -> None:
    """The write time-out counts from when the client last took something."""
    local = serving.tcp(write_seconds=2, options={"SO_SNDBUF": 4096}).local
    with connect(local, SO_RCVBUF=4096) as client:
        data, received, began = os.urandom(RECEIVE_BYTES), b"", monotonic()
        client.sendall(data)
        while monotonic() - began < 4:
            select.select([], [], [], 0.2)  # this client's own pace
            received += client.recv(2048)
        assert len(received) < len(data)
        assert received + read_exactly(client, len(data) - len(received)) == data
    assert serving.only(Closed).reason == "client"


def test_a_slow_reader_of_a_large_buffer_is_not_ended(serving: Serving) -> None:
    """What the client takes out of the kernel's buffer counts, though the kernel does not report
    room for more until a third of that buffer is free.
    """
    options = {"SO_SNDBUF": 1 << 20}
    local = serving.tcp(write_seconds=2, options=options, service="chargen").local
    with connect(local, SO_RCVBUF=4096) as client:
        [live] = eventually(serving.connections)
        assert client.recv(2048)
        sent = 0
        while sent != live.bytes_sent:  # until the kernel takes no more
            sent = live.bytes_sent
            select.select([], [], [], 0.1)
        began = monotonic()
        while monotonic() - began < 4:
            select.select([], [], [], 0.05)  # this client's own pace
            assert client.recv(2048)
        assert not serving.so_far(Closed)
        assert live.bytes_sent - sent < 1 << 20


def test_a_silent_client_is_ended(serving: Serving) -> None:
    """Who is silent for the idle time-out is ended, counted from what he last sent."""
    with connect(serving.tcp(idle_seconds=2).local) as client:
        for _ in range(4):
            select.select([client], [], [], 0.6)
            assert echoed(client)
        assert client.recv(1) == b""
    closed = serving.only(Closed)
    assert closed.reason == "idle"
    assert 4 < closed.seconds < SECONDS


def test_time_outs_of_many_take_several_turns(
    serving: Serving, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that others are served meanwhile."""
    monkeypatch.setattr(tcp, "TIMEOUTS_PER_TURN", 2)
    close, turns = Connection.close, list[float]()

    def noted(self: Connection, *arguments: Any) -> None:
        turns.append(serving.tcp_loop.now)
        close(self, *arguments)

    monkeypatch.setattr(Connection, "close", noted)
    served = serving.tcp(idle_seconds=100)
    for _ in range(7):
        stack.enter_context(connect(served.local))
    serving.told(Accepted, 7)

    def time_out() -> None:
        for each in served.listener.connections.values():
            each.active_at -= 100
        served.listener._sweep_at = 0.0
        served.listener.look_again()

    serving.tcp_loop.call_and_wait(time_out)
    assert {each.reason for each in serving.told(Closed, 7)} == {"idle"}
    assert [turns.count(each) for each in sorted({*turns})] == [2, 2, 2, 1]


def test_no_time_out_is_never(serving: Serving) -> None:
    """A time-out of 0 ends nobody, even if the other one is short and often looked at."""
    with connect(serving.tcp(idle_seconds=0, write_seconds=0.04).local) as client:
        assert not select.select([client], [], [], 0.15)[0]
        assert echoed(client)


def half_close(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    sock.close()


ENDS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "close": (socket.socket.close, "client"),
    "half-close": (half_close, "client"),
    "reset": (reset, "reset"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_record_says_how_it_ended(end: str, serving: Serving) -> None:
    """The client's way to leave stands in the record, with all that the connection was."""
    tcp = serving.tcp()
    client = connect(tcp.local)
    peer = client.getsockname()
    assert echoed(client, b"12345")
    leave, reason = ENDS[end]
    leave(client)
    closed = serving.only(Closed)
    assert closed.reason == reason
    assert (closed.peer_address, closed.peer_port) == peer
    assert (closed.local_address, closed.local_port) == tcp.local
    assert (closed.bytes_received, closed.bytes_sent, closed.error) == (5, 5, "")
    assert 0 < closed.seconds < SECONDS


def test_a_reset_while_data_waits_is_noticed(serving: Serving) -> None:
    """Who breaks off while there is a backlog for him is closed at once, not by the time-out."""
    client = connect(serving.tcp(options={"SO_SNDBUF": 4096}).local, SO_RCVBUF=4096)
    client.sendall(bytes(RECEIVE_BYTES))
    [live] = eventually(serving.connections)
    eventually(lambda: live.send_buffer is not None, "a backlog stands")
    reset(client)
    closed = serving.only(Closed)
    assert closed.reason == "reset"
    assert closed.bytes_sent < closed.bytes_received


def test_each_connection_has_a_beginning_and_an_end(serving: Serving) -> None:
    """Accepted connections are the closed and the live ones, each record with its id, and the
    counters are their sums.
    """
    tcp = serving.tcp()
    clients = [connect(tcp.local) for _ in range(30)]
    for number, client in enumerate(clients):
        assert echoed(client, bytes(number + 1))
    for number, client in enumerate(clients[:20]):
        list(ENDS.values())[number % 3][0](client)
    closed, accepted = serving.told(Closed, 20), serving.so_far(Accepted)
    live = {each.connection_id for each in serving.connections()}
    assert len({event.connection for event in accepted}) == len(accepted) == 30
    assert {event.connection for event in closed} | live == {e.connection for e in accepted}
    assert len(live) == serving.live == 10
    by_id = {event.connection: event.peer_port for event in accepted}
    assert all(by_id[event.connection] == event.peer_port for event in closed)
    for client in clients[20:]:
        client.close()
    sent = sum(event.bytes_sent for event in serving.told(Closed, 30))
    counters = tcp.counters
    assert (counters.accepted, counters.closed.total) == (30, 30)
    assert counters.bytes_received == counters.bytes_sent == sent == sum(range(1, 31))


def test_a_refused_client_is_closed_at_once(serving: Serving) -> None:
    """Who may not come in gets the end at once and has one record; he never counts as accepted."""
    tcp = serving.tcp(allow=("192.0.2.0/24",))
    with connect(tcp.local) as client:
        assert client.recv(1) == b""
        refused = serving.only(Refused)
        assert (refused.peer_address, refused.peer_port) == client.getsockname()
    assert (refused.reason, refused.rule) == ("access", "no entry of allow contains it")
    assert (tcp.counters.refused.total, tcp.counters.accepted) == (1, 0)
    assert not serving.so_far(Accepted)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_mapped_peers_are_shown_as_ipv4(host: str, serving: Serving) -> None:
    """On a dual-stack socket an IPv4 client has IPv4 addresses in its records."""
    tcp = serving.tcp(adopted(socket.SOCK_STREAM))
    with connect((host, tcp.local[1])) as client:
        assert echoed(client)
    for event in (*serving.told(Accepted), *serving.told(Closed)):
        assert event.peer_address == event.local_address == host


@pytest.mark.parametrize(
    ("allow", "deny", "welcome"),
    [
        (("any",), ("127.0.0.0/8",), {"::1"}),
        (("127.0.0.1",), (), {"127.0.0.1"}),
        (("any",), ("::ffff:0:0/96",), {"127.0.0.1", "::1"}),
    ],
    ids=["IPv4 denied", "IPv4 allowed", "mapped denied"],
)
def test_mapped_peers_are_judged_as_ipv4(
    allow: tuple[str, ...], deny: tuple[str, ...], welcome: set[str], serving: Serving
) -> None:
    """On a dual-stack socket an IPv4 client is judged by the IPv4 entries."""
    port = serving.tcp(adopted(socket.SOCK_STREAM), allow=allow, deny=deny).local[1]
    for host in ("127.0.0.1", "::1"):
        with connect((host, port)) as client:
            assert (echoed(client) if host in welcome else client.recv(1) == b"") is True
    assert {event.peer_address for event in serving.so_far(Accepted)} == welcome


class Failing:
    """A service that fails where it is told to."""

    finished = discards_input = False

    def __init__(self, where: str) -> None:
        self._where = where
        self.fail("beginning")

    def fail(self, where: str) -> None:
        if self._where == where:
            raise RuntimeError(f"bad luck at the {where}")

    def greeting(self) -> bytes:
        self.fail("greeting")
        return b"!"

    def respond(self, data: bytes) -> bytes:
        self.fail("answer")
        return data * RECEIVE_BYTES * 16

    def more(self) -> bytes:
        self.fail("rest")
        return b""


@pytest.mark.parametrize("where", ["beginning", "greeting", "answer", "rest"])
def test_a_service_that_fails_ends_its_connection_alone(where: str, serving: Serving) -> None:
    """An exception of a service is reported with its traceback and ends one connection."""
    good = serving.tcp()
    bad = serving.tcp(service=lambda *_: Failing(where), options={"SO_SNDBUF": 4096})
    with connect(good.local) as neighbour, connect(bad.local, SO_RCVBUF=4096) as client:
        assert echoed(neighbour)
        client.send(b"x")
        ended = False
        while not ended:
            try:
                ended = not client.recv(1 << 20)
            except ConnectionResetError:
                ended = True
        failed, closed = serving.only(ServiceFailed), serving.only(Closed)
        assert failed.error == f"RuntimeError('bad luck at the {where}')"
        assert failed.traceback.startswith("Traceback (most recent call last):")
        assert 'raise RuntimeError(f"bad luck at the {where}")\n' in failed.traceback
        assert failed.connection == closed.connection
        assert (closed.reason, closed.error) == ("error", failed.error)
        assert echoed(neighbour)


class Farewell:
    """A service that has said all with its greeting."""

    finished, discards_input = True, False

    def greeting(self) -> bytes:
        return b"goodbye" * 100_000

    respond = more = greeting


def test_a_service_may_end_with_its_greeting(serving: Serving) -> None:
    """Where all is said with the greeting the connection ends after its last byte, without a word
    from the client, and not before it began: it may have come while the loop was busy.
    """
    tcp = serving.tcp(service=lambda *_: Farewell(), options={"SO_SNDBUF": 4096})
    free = threading.Event()
    serving.tcp_loop.call_soon_threadsafe(free.wait)
    with connect(tcp.local, SO_RCVBUF=4096) as client:
        free.set()
        assert read_exactly(client, 700_000) == b"goodbye" * 100_000
        assert client.recv(1) == b""
    closed = serving.only(Closed)
    assert (closed.reason, closed.bytes_sent) == ("finished", 700_000)
    assert closed.seconds >= 0


def test_new_settings_hold_for_live_connections(serving: Serving) -> None:
    """A live connection gets the new time-outs of its listener; others keep theirs."""
    one, other = serving.tcp(), serving.tcp(name="other")
    with connect(one.local) as client, connect(other.local) as neighbour:
        assert echoed(client)
        assert echoed(neighbour)
        one.update(listener(idle_seconds=0.1), shared(echo.Stream()))
        assert client.recv(1) == b""
        assert serving.only(Closed).reason == "idle"
        assert echoed(neighbour)


def test_who_may_no_longer_come_in_is_ended(serving: Serving) -> None:
    """A live connection whose peer the new rules keep out ends with them as its reason; those of
    other listeners and of peers who are still welcome go on.
    """
    one, other = serving.tcp(), serving.tcp(name="other")
    with (
        connect(one.local) as turned_out,
        connect(one.local, source="127.0.0.2") as welcome,
        connect(other.local) as neighbour,
    ):
        assert all(echoed(client) for client in (turned_out, welcome, neighbour))
        one.update(listener(deny=("127.0.0.1",)), shared(echo.Stream()))
        assert turned_out.recv(1) == b""
        closed = serving.only(Closed)
        assert (closed.reason, closed.error) == ("access", 'deny has "127.0.0.1"')
        assert closed.peer_address == "127.0.0.1"
        assert echoed(welcome)
        assert echoed(neighbour)


def test_new_access_holds_for_newcomers(serving: Serving) -> None:
    """Who is inside and still allowed stays when the rules change; who comes then is judged by the
    new ones.
    """
    tcp = serving.tcp()
    with connect(tcp.local) as client:
        assert echoed(client)
        tcp.update(listener(deny=("127.0.0.2",)), shared(echo.Stream()))
        with connect(tcp.local, source="127.0.0.2") as late:
            assert late.recv(1) == b""
        assert echoed(client)
        assert serving.only(Refused).rule == 'deny has "127.0.0.2"'
    assert serving.only(Closed).reason == "client"


def test_the_end_of_the_last_connection_is_told(serving: Serving) -> None:
    """After the stop of its listener a connection is served on; when the last one has ended, and
    not before, `on_empty` is called.
    """
    tcp, emptied = serving.tcp(), threading.Event()
    with connect(tcp.local) as last:
        with connect(tcp.local) as first:
            assert echoed(first)
            assert echoed(last)
            serving.stop_listening()
            serving.limit.on_empty = emptied.set
            assert echoed(first)
        serving.told(Closed)
        assert echoed(last)
        assert not emptied.is_set()
    wait_event(emptied, "the end of the last connection")
    assert serving.close_connections() == 0
    assert [event.reason for event in serving.so_far(Closed)] == ["client", "client"]


def test_what_is_left_is_cut_off(serving: Serving) -> None:
    """Connections that are still open at the end of a stop end with the reason `drain`."""
    tcp = serving.tcp()
    with connect(tcp.local) as one, connect(tcp.local) as two:
        assert echoed(one)
        assert echoed(two)
        serving.stop_listening()
        assert serving.close_connections() == 2
        assert one.recv(1) == two.recv(1) == b""
    assert [event.reason for event in serving.so_far(Closed)] == ["drain", "drain"]


def test_a_stopped_listener_refuses(serving: Serving) -> None:
    """After the stop nobody can connect, and who is inside is served on."""
    tcp = serving.tcp()
    with connect(tcp.local) as client:
        assert echoed(client)
        serving.stop_listening()
        with pytest.raises(ConnectionRefusedError):
            connect(tcp.local)
        assert echoed(client)
        assert nothing_more(client)


def test_connections_are_few_bytes_each(serving: Serving, many_descriptors: Any) -> None:
    """A connection that has nothing to say costs less than 4 KiB of this process's objects, the
    client's end and the records included.
    """
    import tracemalloc

    tcp = serving.tcp()
    with connect(tcp.local) as first:
        assert echoed(first)
    tracemalloc.start()
    try:
        clients = [connect(tcp.local) for _ in range(200)]
        serving.told(Accepted, 201)
        eventually(lambda: serving.live == 200, "all are served")
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        for client in clients:
            client.close()
    assert used / 200 < 4096


def test_connections_share_their_addresses(serving: Serving) -> None:
    """The local address is one object for all connections that came to it, and the text of a
    client's address is one for all of its connections; each is right all the same.
    """
    tcp = serving.tcp(host="0.0.0.0")
    port = tcp.local[1]
    with ExitStack() as stack:
        for local in ("127.0.0.1", "127.0.0.2") * 2:
            assert echoed(stack.enter_context(connect((local, port))))
        one, two, again, last = sorted(serving.connections(), key=lambda each: each.opened_at)
        assert one.local is again.local
        assert two.local is last.local
        assert (one.local, two.local) == (("127.0.0.1", port), ("127.0.0.2", port))
        assert one.peer[0] is again.peer[0]


def test_shared_addresses_are_bounded(serving: Serving) -> None:
    """A client that names ever new local addresses does not make the memory grow."""
    tcp = serving.tcp(host="0.0.0.0")
    most = 0
    for number in range(2, 3 * LOCALS_KEPT):
        with connect((f"127.0.0.{number}", tcp.local[1])) as client:
            assert echoed(client)
            most = max(most, len(tcp.listener._locals))
    assert most == LOCALS_KEPT
    told = [event.local_address for event in serving.told(Accepted, 3 * LOCALS_KEPT - 2)]
    assert told == [f"127.0.0.{number}" for number in range(2, 3 * LOCALS_KEPT)]
