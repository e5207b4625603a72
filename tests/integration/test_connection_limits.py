"""Limits of connections, of a listener and of the daemon; connections of another process."""

import os
import socket
from contextlib import ExitStack
from math import inf
from time import monotonic, process_time, sleep
from typing import Any

import pytest

from netsrvd import tcp
from netsrvd.connection import Connection
from netsrvd.event_loop import READ
from netsrvd.events.connections import Accepted, Closed, ListenerFull
from netsrvd.events.refusals import Refused
from netsrvd.handover import ConnectionState
from netsrvd.services.base import shared
from netsrvd.services.echo import Stream
from tests.support.patience import eventually
from tests.support.peers import connect, echoed, nothing_more
from tests.support.proxied import v1
from tests.support.serving import Served, Serving


def waits(serving: Serving, client: socket.socket) -> bool:
    """Return whether a client that has sent something is not served, though the loop has turned."""
    client.send(b"x")
    serving.settle()
    serving.settle()
    found = nothing_more(client)
    client.settimeout(10)
    return found


def sleeps() -> bool:
    """Return whether the loops do nothing for a while."""
    before = process_time()
    sleep(0.3)
    return process_time() - before < 0.15


def test_listeners_share_the_limit_of_the_daemon(serving: Serving) -> None:
    """A connection of one that ends lets one of another in, at once; the limit is told by each."""
    serving.limit.limit = 1
    one, two = serving.tcp(), serving.tcp()
    first = connect(one.local)
    assert echoed(first)
    with connect(two.local) as second:
        assert waits(serving, second)
        assert {each.limit for each in serving.told(ListenerFull)} == {
            "the daemon's max_connections = 1"
        }
        first.close()
        assert second.recv(1) == b"x"
        assert serving.limit.used == 1


@pytest.mark.parametrize(("burst_seconds", "count"), [(1000.0, tcp.ACCEPTS_PER_TURN), (-1.0, 1)])
def test_no_more_are_accepted_in_a_turn_than_one_burst(
    serving: Serving,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    burst_seconds: float,
    count: int,
) -> None:
    """However many wait: established clients are served in between. A turn that is late already
    accepts one, so that new clients are not kept out for ever.
    """
    monkeypatch.setattr(tcp, "BURST_SECONDS", burst_seconds)
    served = serving.tcp(start=False)
    for _ in range(2 * tcp.ACCEPTS_PER_TURN):
        stack.enter_context(connect(served.local))

    def turn() -> int:
        served.listener._is_paused = False
        [listening] = served.listener._sockets.values()
        listening.on_ready(READ, monotonic())
        return len(served.listener.connections)

    assert serving.tcp_loop.call_and_wait(turn) == count
    served.start()
    assert len(serving.told(Accepted, 2 * tcp.ACCEPTS_PER_TURN)) == 2 * tcp.ACCEPTS_PER_TURN


def test_a_pause_leaves_what_comes_in_the_queue(serving: Serving) -> None:
    """Nothing is accepted or told; when it is over it is; established clients are served."""
    served = serving.tcp()
    with connect(served.local) as before, connect(served.local) as early:
        assert echoed(before)
        assert echoed(early)
        served.call("pause", paused=True)
        with connect(served.local) as late:
            assert waits(serving, late)
            assert echoed(before)
            assert len(serving.so_far(Accepted)) == 2
            served.start()
            assert late.recv(1) == b"x"


def test_a_pause_does_not_turn_round_and_round(serving: Serving) -> None:
    """A client in the queue is no event for a socket that is not watched."""
    served = serving.tcp()
    served.call("pause", paused=True)
    with connect(served.local):
        serving.settle()
        assert ready(serving) == []


def ready(serving: Serving) -> list[tuple[int, int]]:
    """Return what epoll(7) has to say to a loop that has nothing to do."""
    loop = serving.tcp_loop
    found: list[tuple[int, int]] = loop.call_and_wait(lambda: loop._epoll.poll(0, 10))
    return found


class Successor:
    """A listener that goes on with connections that another process accepted."""

    def __init__(self, serving: Serving, **changes: Any) -> None:
        self.serving = serving
        self.served: Served = serving.tcp(**changes)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._count = 0

    def restore(self, *, keeps: bool = False, **values: Any) -> tuple[socket.socket, int]:
        """Restore a connection; return its client and, with `keeps`, a descriptor of the store."""
        client = connect(self._listening.getsockname())
        sock, _ = self._listening.accept()
        kept = os.dup(sock.fileno()) if keeps else -1
        self._count += 1
        state = {
            "connection_id": f"a-{self._count}",
            "service_name": "echo",
            "peer": client.getsockname(),
            "local": self._listening.getsockname(),
            "opened_at": monotonic() - 5.0,
            "active_at": monotonic() - 5.0,
            "bytes_received": 10,
            "bytes_sent": 10,
            "send_buffer": None,
            "eof_received": False,
        }
        made = ConnectionState("echo", state | values).connection(self.served.listener, sock)
        self.served.call("restore", made, shared(Stream()))
        return client, kept

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def successor(serving: Serving, stack: ExitStack) -> Successor:
    made = Successor(serving)
    stack.callback(made.close)
    return made


def test_restored_connections_share_their_addresses(
    serving: Serving, successor: Successor, stack: ExitStack
) -> None:
    """As those do that it has accepted: the local address, and the text of the client's."""
    clients = [stack.enter_context(successor.restore()[0]) for _ in range(2)]
    assert all(map(echoed, clients))
    one, two = serving.connections()
    assert one.local is two.local
    assert one.peer[0] is two.peer[0]
    assert {one.peer, two.peer} == {client.getsockname() for client in clients}
    assert {one.local} == {client.getpeername() for client in clients}


def test_a_restored_connection_counts_against_all_limits(
    serving: Serving, stack: ExitStack
) -> None:
    """That of its listener and that of the daemon, though they may be exceeded; new ones wait until
    enough have ended. It has no record of its beginning, and one of its end.
    """
    successor = Successor(serving, max_connections=2)
    stack.callback(successor.close)
    clients = [successor.restore()[0] for _ in range(3)]
    assert successor.served.listener.live == serving.limit.used == 3
    for client in clients:
        assert echoed(client)
    with connect(successor.served.local) as late:
        assert waits(serving, late)
        clients.pop().close()
        serving.told(Closed, 1)
        assert waits(serving, late)
        clients.pop().close()
        assert late.recv(2) == b"xx"
    assert [each.connection for each in serving.told(Closed, 2)][:2] == ["a-3", "a-2"]
    assert len(serving.so_far(Accepted)) == 1
    clients.pop().close()


def test_a_restored_connection_counts_against_the_limit_of_its_source(
    serving: Serving, stack: ExitStack
) -> None:
    """Its address has one less for new ones."""
    successor = Successor(serving, max_connections_per_source=2, unlimited=())
    stack.callback(successor.close)
    client, _ = successor.restore()
    with (
        client,
        connect(successor.served.local) as second,
        connect(successor.served.local) as third,
    ):
        assert echoed(second)
        assert third.recv(1) == b""
    assert serving.only(Refused).reason == "source"


def test_a_restored_connection_times_out_by_its_last_byte(
    serving: Serving, stack: ExitStack
) -> None:
    """A client that was silent for long before the restart is not silent for as long again."""
    successor = Successor(serving, idle_seconds=5.5)
    stack.callback(successor.close)
    began = monotonic()
    client, _ = successor.restore()
    assert client.recv(1) == b""
    assert monotonic() - began < 5.0
    closed = serving.only(Closed)
    assert closed.reason == "idle"
    assert closed.seconds >= 5.0
    client.close()


def test_a_restored_connection_that_ends_is_not_heard_of(
    serving: Serving, successor: Successor
) -> None:
    """Though systemd has a descriptor of it, too: epoll(7) would go on reporting it."""
    client, kept = successor.restore(keeps=True)
    client.shutdown(socket.SHUT_WR)
    serving.only(Closed)
    assert ready(serving) == []
    os.close(kept)
    client.close()


def test_a_connection_that_is_detached_is_not_heard_of(serving: Serving) -> None:
    """Nothing is read from it, whatever comes, until it is reattached: then that is answered."""
    served = serving.tcp()
    with connect(served.local) as client:
        assert echoed(client)
        found: list[Connection] = served.call("detach")
        client.sendall(b"meanwhile")
        assert ready(serving) == []
        serving.settle()
        for each in found:
            served.call("reattach", each)
        assert client.recv(100) == b"meanwhile"


def test_a_restored_client_that_may_not_come_in_any_more_is_ended(
    serving: Serving, stack: ExitStack
) -> None:
    """By the rules of the new process, which the record names."""
    successor = Successor(serving, deny=("127.0.0.1",))
    stack.callback(successor.close)
    client, _ = successor.restore()
    assert client.recv(1) == b""
    closed = serving.only(Closed)
    assert (closed.reason, closed.bytes_received) == ("access", 10)
    client.close()


def test_the_last_connection_is_told(serving: Serving, stack: ExitStack) -> None:
    """Those of all listeners count, and those that wait for a PROXY header."""
    told: list[int] = []
    one, two = serving.tcp(), serving.tcp(proxies=("127.0.0.1",))
    first, second = connect(one.local), connect(two.local)
    stack.enter_context(first)
    stack.enter_context(second)
    assert echoed(first)
    eventually(lambda: serving.limit.used == 2)
    serving.limit.on_empty = lambda: told.append(1)
    first.close()
    serving.only(Closed)
    assert told == []
    second.close()
    eventually(lambda: told == [1])


def test_a_connection_that_is_about_to_end_is_not_detached(serving: Serving) -> None:
    """Its service has said all: what another process would go on with is not there."""
    served, echo = serving.tcp(service="time"), serving.tcp()
    with connect(served.local) as client, connect(echo.local) as other:
        assert echoed(other)
        assert len(client.recv(100)) == 4
        assert client.recv(1) == b""
        assert served.call("detach") == []
        assert len(served.listener.connections) == 1
        [found] = echo.call("detach")
        echo.call("reattach", found)


def test_an_address_that_is_not_served_is_reset(serving: Serving) -> None:
    """As by a host that does not listen there, though the socket of systemd does."""
    served = serving.tcp(host="0.0.0.0")
    served.call("restrict", served.sock, frozenset({"127.0.0.2"}))
    port = served.local[1]
    with connect(("127.0.0.2", port)) as client:
        assert echoed(client)
    with pytest.raises(ConnectionResetError), connect(("127.0.0.1", port)) as client:
        client.recv(1)  # unless the reset was quicker than connect(2)
    assert serving.only(Refused).reason == "configuration"


def test_a_listener_without_connections_sleeps(serving: Serving) -> None:
    """It looks for time-outs only while there are connections."""
    served = serving.tcp(idle_seconds=60)
    with connect(served.local) as client:
        assert echoed(client)
        assert serving.tcp_loop._next_at < inf
    serving.only(Closed)
    eventually(lambda: serving.tcp_loop._next_at == inf, "the loop has no deadline")


def test_a_connection_that_ends_before_it_is_tried_again_ends_nothing_else(
    serving: Serving,
) -> None:
    """It waits for the kernel's memory, and its client leaves; its descriptor is another's then."""
    served = serving.tcp()
    with connect(served.local) as client:
        assert echoed(client)
        [connection] = served.listener.connections.values()
        served.call("retry_later", connection)
    serving.only(Closed)
    eventually(lambda: not served.listener._retries)
    serving.settle()
    with connect(served.local) as client:
        assert echoed(client)


def test_a_connection_that_has_sent_all_is_not_tried_again(serving: Serving) -> None:
    """As after a handover that failed: it is watched for input, and the loop sleeps."""
    served = serving.tcp()
    with connect(served.local) as client:
        assert echoed(client)
        [connection] = served.listener.connections.values()
        served.call("retry_later", connection)
        eventually(lambda: not served.listener._retries)
        assert sleeps()
        assert echoed(client)


def test_a_connection_that_waited_for_its_header_leaves_nothing_to_watch(serving: Serving) -> None:
    """It came from the process before, and systemd has its descriptor for longer than we do."""
    served = serving.tcp(proxies=("127.0.0.1",), allow=("192.0.2.0/24",))
    with socket.create_server(("127.0.0.1", 0)) as other:
        client = connect(other.getsockname())
        sock, _ = other.accept()
    with sock.dup():
        served.call("restore_pending", sock, monotonic())
        with client:
            client.sendall(v1() + b"x")
            assert client.recv(1) == b"x"
        serving.only(Closed)
        assert sleeps()
    assert not served.listener._stored
