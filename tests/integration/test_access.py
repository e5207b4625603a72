"""Who is let in, how many and how fast: over real sockets, between hosts that are namespaces."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from netsrvd.events import Event
from netsrvd.events.connections import Accepted, Closed, ListenerFull
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.services import echo
from netsrvd.services.base import shared
from netsrvd.sockets.broadcast import is_broadcast
from tests.integration.conftest import Network
from tests.support import forged
from tests.support.clients import ended
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed, exchange, nothing_more
from tests.support.reports import Reports
from tests.support.serving import Serving, listener, opened

SERVER, SERVER6 = "10.9.0.1", "fd09::1"
ANYBODY = {"allow": ("any",), "unlimited": ()}


@pytest.fixture
def entered(network: Network) -> Iterator[None]:
    """Live on the server."""
    with network.server.entered():
        yield


def is_served(sock: socket.socket) -> bool:
    """Return whether a byte comes back."""
    try:
        sock.sendall(b"x")
        return sock.recv(1) == b"x"
    except ConnectionError:
        return False


def ends(sock: socket.socket) -> tuple[int, int]:
    """Return both ports: two connections to two listeners may come from one."""
    return sock.getsockname()[1], sock.getpeername()[1]


# --- connections ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "same", "other"),
    [
        (SERVER, ["10.9.0.9"] * 3, "10.9.0.10"),
        (SERVER6, ["fd09::9", "fd09::10", "fd09::11"], "fd09:1::9"),
    ],
    ids=["IPv4", "IPv6 /64"],
)
def test_a_source_fills_its_own_share(
    server: str,
    same: list[str],
    other: str,
    network: Network,
    entered: None,
    serving: Serving,
    stack: ExitStack,
) -> None:
    """With two connections allowed to each source the third one of an IPv4 address, or of an
    IPv6 /64, is closed at once; other sources are served; who leaves makes room.
    """
    tcp = serving.tcp(host=server, max_connections_per_source=2, **ANYBODY)
    address = (server, tcp.local[1])
    first, second = (stack.enter_context(network.caller(host, address)) for host in same[:2])
    assert echoed(first)
    assert echoed(second)
    third = stack.enter_context(network.caller(same[2], address))
    assert ended(third)
    assert echoed(stack.enter_context(network.caller(other, address)))
    refused = serving.only(Refused)
    assert (refused.reason, refused.peer_address) == ("source", same[2])
    first.close()
    serving.only(Closed)
    serving.settle()
    assert echoed(stack.enter_context(network.caller(same[2], address)))


def test_who_comes_one_after_the_other_fills_no_share(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has seen the end of one connection may come again at once, also if its record takes
    its time.
    """
    report = Reports.__call__

    def slow(self: Reports, event: Event) -> None:
        if isinstance(event, Closed):
            threading.Event().wait(0.01)
        report(self, event)

    monkeypatch.setattr(Reports, "__call__", slow)
    limits = {"max_connections_per_source": 1, "unlimited": (), "connection_rate": 0}
    local = serving.tcp(**limits).local
    for _ in range(20):
        with connect(local) as sock:
            assert exchange(sock, [b"x"]) == b"x"
    assert serving.so_far(Refused) == []


def test_a_source_that_comes_too_fast_delays_no_other(
    network: Network, entered: None, serving: Serving
) -> None:
    """76 quick connects of one host, which close a superserver for all, cost that host what is
    beyond its burst, and nobody else anything; they are one record and one summary.
    """
    limits = {"connection_rate": 1, "connection_burst": 10}
    tcp = serving.tcp(host=SERVER, **limits, **ANYBODY)
    address, served = (SERVER, tcp.local[1]), 0
    for number in range(76):
        with network.caller("10.9.0.9", address) as sock:
            served += is_served(sock)
        if number % 10 == 0:
            with network.caller("10.9.0.10", address) as neighbour:
                assert is_served(neighbour)
    assert 10 <= served <= 10 + SECONDS
    refused = serving.only(Refused)
    assert (refused.source, refused.reason) == ("10.9.0.9", "rate")
    serving.stop_listening()
    told = 1 + serving.only(RefusedAgain).times
    assert told == tcp.counters.refused.total == 76 - served


def test_the_listener_is_full_as_a_whole(serving: Serving, stack: ExitStack) -> None:
    """`max_connections` holds for all sockets of a listener together: who comes by another one
    waits, too, and is served when somebody leaves by the first.
    """
    tcp = serving.tcp(max_connections=3)
    second = opened("tcp", listener(), "::1")
    address = ("::1", second.getsockname()[1])
    tcp.call("open", second)
    inside = [stack.enter_context(connect(tcp.local)) for _ in range(3)]
    assert all(echoed(sock) for sock in inside)
    waiting = stack.enter_context(connect(address))
    waiting.send(b"x")
    assert serving.only(ListenerFull).connections == 3
    assert nothing_more(waiting)
    inside[0].close()
    waiting.settimeout(SECONDS)
    assert waiting.recv(1) == b"x"


def test_the_daemon_is_full_as_a_whole(serving: Serving, stack: ExitStack) -> None:
    """The total holds for all listeners together, to the last place; the place that a connection
    of one gives back is the other's.
    """
    serving.limit.limit = 5
    one, two = serving.tcp(), serving.tcp(name="two")
    clients = [
        stack.enter_context(connect(one.local if number % 2 else two.local)) for number in range(10)
    ]
    for client in clients:
        client.send(b"x")
    serving.told(Accepted, 5)
    eventually(lambda: serving.so_far(ListenerFull), "it is told")
    for left in range(5):
        inside = {(event.peer_port, event.local_port) for event in serving.so_far(Accepted)}
        assert len(inside) == 5 + left
        assert serving.live <= 5
        leaving = next(sock for sock in clients if ends(sock) in inside)
        clients.remove(leaving)
        assert leaving.recv(1) == b"x"
        leaving.close()
        serving.told(Accepted, 6 + left)
    assert all(client.recv(1) == b"x" for client in clients)


def test_room_in_the_daemon_is_found_by_another_listener(
    serving: Serving, stack: ExitStack
) -> None:
    """Whoever waits at one listener is served when the only place is given back at another."""
    serving.limit.limit = 1
    one, two = serving.tcp(), serving.tcp(name="two")
    inside = stack.enter_context(connect(one.local))
    assert echoed(inside)
    waiting = stack.enter_context(connect(two.local))
    waiting.send(b"x")
    eventually(lambda: "two" in {each.listener for each in serving.so_far(ListenerFull)})
    assert nothing_more(waiting)
    inside.close()
    waiting.settimeout(SECONDS)
    assert waiting.recv(1) == b"x"


def test_new_limits_count_those_inside(
    network: Network, entered: None, serving: Serving, stack: ExitStack
) -> None:
    """A reload with a lower limit ends nobody, and counts who is there."""
    tcp = serving.tcp(host=SERVER, **ANYBODY)
    address = (SERVER, tcp.local[1])
    inside = [stack.enter_context(network.caller("10.9.0.9", address)) for _ in range(3)]
    assert all(echoed(sock) for sock in inside)
    tcp.update(listener(max_connections_per_source=3, **ANYBODY), shared(echo.Stream()))
    serving.settle()
    assert ended(stack.enter_context(network.caller("10.9.0.9", address)))
    assert all(echoed(sock) for sock in inside)
    inside[0].close()
    serving.only(Closed)
    serving.settle()
    assert echoed(stack.enter_context(network.caller("10.9.0.9", address)))


# --- datagrams --------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [7, 19, 53, 862, 1023])
def test_ports_of_services_are_not_answered(
    port: int, network: Network, entered: None, serving: Serving
) -> None:
    """What an echo, a character generator or a reflector would answer is not sent to it."""
    udp = serving.udp(host=SERVER, **ANYBODY)
    with network.asker("10.9.0.9", port=port) as service, network.asker("10.9.0.9") as client:
        for asker in (service, client):
            asker.sendto(b"?", udp.local)
        assert client.recv(10) == b"?"
        assert nothing_more(service)
    refused = serving.only(Refused)
    assert (refused.reason, refused.peer_port) == ("port", port)


def test_two_daemons_do_not_answer_each_other(
    network: Network, entered: None, serving: Serving
) -> None:
    """A forged datagram from one echo listener to another one, on the same port of another host or
    on another port of this one, draws no answer.
    """
    one, two = serving.udp(host=SERVER, **ANYBODY), serving.udp(host=SERVER, **ANYBODY)
    ports = {one.local[1], two.local[1]}
    for udp in (one, two):
        udp.update(listener(**ANYBODY), echo.Datagrams(), ports)
    forged.send(two.local, one.local, b"round and round")
    with network.asker("10.9.0.9", port=one.local[1]) as namesake:
        namesake.sendto(b"round and round", one.local)
        serving.told(Refused, 2)
        assert nothing_more(namesake)
    assert {event.reason for event in serving.so_far(Refused)} == {"port"}
    assert two.counters.datagrams_received == one.counters.datagrams_sent == 0


@pytest.mark.parametrize(
    "sender", ["10.9.0.255", "127.255.255.255", "224.0.0.1", "255.255.255.255"]
)
def test_no_answer_goes_to_many(sender: str, entered: None, serving: Serving) -> None:
    """A datagram whose sender is a broadcast address of our networks, or no host's at all, is
    refused with its reason.
    """
    udp = serving.udp(host=SERVER, **ANYBODY)
    forged.send((sender, 40_000), udp.local, b"everybody")
    refused = serving.only(Refused)
    assert (refused.reason, refused.peer_address) == ("sender", sender)
    assert udp.counters.datagrams_sent == udp.counters.datagrams_unsent == 0


@pytest.mark.parametrize(
    ("limits", "size", "answered", "reason"),
    [
        ({"datagram_rate": 1, "datagram_burst": 10}, 10, 10, "rate"),
        ({"byte_rate": 1, "byte_burst": 65_536}, 1000, 65, "bytes"),
        ({"reply_rate": 1}, 1000, 65, "budget"),
    ],
)
def test_a_source_gets_so_much_at_once(
    limits: dict[str, Any],
    size: int,
    answered: int,
    reason: str,
    network: Network,
    entered: None,
    serving: Serving,
) -> None:
    """Of eighty datagrams those within the limit are answered, from whatever ports they come;
    the others are counted in their flow and told as one refusal.
    """
    udp = serving.udp(host=SERVER, **limits, **ANYBODY)
    with network.asker("10.9.0.9") as one, network.asker("10.9.0.9") as two:
        for number in range(80):
            (one if number % 2 else two).sendto(bytes(size), udp.local)
        eventually(lambda: udp.counters.datagrams_received == 80)
        sent = udp.counters.datagrams_sent
        assert answered <= sent <= answered + SECONDS
        assert udp.counters.datagrams_refused.total == 80 - sent
        with network.asker("10.9.0.10") as neighbour:
            neighbour.sendto(b"x", udp.local)
            if reason != "budget":
                assert neighbour.recv(10) == b"x"
    serving.stop_listening()
    flows = [flow for flow in serving.so_far(FlowEnded) if flow.peer_address == "10.9.0.9"]
    assert sum(flow.datagrams_refused for flow in flows) == 80 - sent
    assert serving.so_far(Refused)[0].reason == reason
    assert serving.so_far(RefusedAgain)[0].times == 79 - sent


def test_long_answers_count(network: Network, entered: None, serving: Serving) -> None:
    """The budget is of what is sent, however little was asked for it."""
    limits = {"reply_rate": 1, "reply_floor_bytes": 512, "service": "chargen"}
    udp = serving.udp(host=SERVER, **limits, **ANYBODY)
    with network.asker("10.9.0.9") as asker:
        for number in range(1000):
            asker.sendto(b"", udp.local)
            eventually(lambda n=number: udp.counters.datagrams_received > n)
    assert 65_536 <= udp.counters.bytes_sent < 65_536 + 512 + SECONDS
    assert serving.only(Refused).reason == "budget"


def test_a_reload_reaches_the_sources_of_live_peers(
    network: Network, entered: None, serving: Serving
) -> None:
    """Whoever is taken out of `unlimited` has limits from then on, though it never was silent."""
    limits = {"datagram_rate": 0.01, "datagram_burst": 1, "allow": ("any",)}
    udp = serving.udp(host=SERVER, unlimited=("10.9.0.9",), **limits)
    with network.asker("10.9.0.9") as asker:
        for unlimited, answers in ((("10.9.0.9",), 3), ((), 1), (("10.9.0.0/24",), 3)):
            settings = listener(unlimited=unlimited, **limits)
            udp.update(settings, echo.Datagrams(), frozenset())
            for _ in range(3):
                asker.sendto(b"x", udp.local)
            for _ in range(answers):
                assert asker.recv(10) == b"x"
            serving.settle()
            assert nothing_more(asker)
            asker.settimeout(SECONDS)
    serving.stop_listening()
    assert serving.only(FlowEnded).datagrams_refused == 2


def test_limits_of_a_source_come_back_with_time(
    network: Network, entered: None, serving: Serving
) -> None:
    """A source that has used up its burst is answered again at its rate."""
    limits = {"datagram_rate": 20, "datagram_burst": 1}
    udp = serving.udp(host=SERVER, **limits, **ANYBODY)
    with network.asker("10.9.0.9") as asker:
        for _ in range(2):
            asker.sendto(b"x", udp.local)
        assert asker.recv(10) == b"x"
        asker.settimeout(0.06)
        for _ in range(100):
            asker.sendto(b"y", udp.local)
            try:
                if asker.recv(10) == b"y":  # the second x was perhaps late enough, too
                    break
            except TimeoutError:
                continue
        else:
            pytest.fail("no answer any more")


def test_forged_senders_fill_no_table(entered: None, serving: Serving) -> None:
    """Thousands of senders, half of them refused, leave the flows within their limit and the log
    with a bounded number of records; a real client is served after and among them.
    """
    udp = serving.udp(host=SERVER, allow=("10.0.0.0/8",), unlimited=(), max_flows=50)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(SECONDS)
        client.bind((SERVER, 0))
        for number in range(6000):
            network = 10 if number % 2 else 172
            forged.send((f"{network}.8.{number >> 8}.{number & 255}", 40_000), udp.local, b"")
            if number % 100 == 99:  # no faster than they are read, or the kernel drops them
                received = number + 1 + number // 500
                eventually(lambda n=received: udp.counters.datagrams_received >= n)
            if number % 500 == 499:
                client.sendto(b"real", udp.local)
                assert client.recv(10) == b"real"
    eventually(lambda: udp.flows <= 50, "the oldest have left")
    assert len(serving.so_far(FlowBegan)) <= 3001 + 12
    assert len(serving.so_far(Refused)) <= 1001
    serving.stop_listening()
    counted = sum(event.times for event in serving.so_far(RefusedAgain))
    assert counted + len(serving.so_far(Refused)) == udp.counters.datagrams_refused.total


def test_the_kernel_knows_its_broadcast_addresses(entered: None, network: Network) -> None:
    """Those of each network of the host, and no address of a host, reachable or not."""
    network.server.ip("route add prohibit 10.9.3.0/24")
    try:
        assert [is_broadcast(host) for host in ("10.9.0.255", "10.9.1.255", "127.255.255.255")] == [
            *(True, True, True),
        ]
        hosts = ("10.9.0.1", "10.9.0.9", "10.9.2.255", "10.9.3.7", "192.0.2.255", "fd09::1", "::1")
        assert not any(is_broadcast(host) for host in hosts)
    finally:
        network.server.ip("route del prohibit 10.9.3.0/24")
