"""What peers of UDP cannot make grow: records, memory; services that fail, pauses."""

import socket
from contextlib import ExitStack
from typing import Any

import pytest

from netsrvd import udp
from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.event_loop import READ
from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowBegan, FlowEnded, FlowRecordsSuppressed
from netsrvd.services import base
from tests.integration.conftest import Network
from tests.support.patience import eventually
from tests.support.peers import datagrams, nothing_more
from tests.support.serving import Served, Serving, opened


def ask(served: Served, sock: socket.socket, data: bytes = b"hello") -> bytes:
    sock.sendto(data, served.local)
    return sock.recv(100)


def test_forged_senders_cannot_fill_the_log(
    serving: Serving, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many new flows a second have records; the others are answered, and counted in one."""
    monkeypatch.setattr(udp, "FLOW_RECORDS_PER_SECOND", 3)
    served = serving.udp()
    for _ in range(10):
        assert ask(served, stack.enter_context(datagrams())) == b"hello"
    served.call("stop")
    began = len(serving.so_far(FlowBegan))
    assert 3 <= began < 10  # 6 if a second has ended meanwhile
    assert began + sum(each.flows for each in serving.so_far(FlowRecordsSuppressed)) == 10
    assert len(serving.so_far(FlowEnded)) == began
    assert served.counters.flows == 10


def test_what_is_remembered_of_refused_peers_is_bounded(
    serving: Serving, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their datagrams is counted all the same, and none has a flow."""
    monkeypatch.setattr(udp, "REFUSED_PEERS_KEPT", 4)
    served = serving.udp(deny=("127.0.0.1",))
    clients = [stack.enter_context(datagrams()) for _ in range(10)]
    for client in clients * 2:
        client.sendto(b"x", served.local)
    eventually(lambda: served.counters.datagrams_refused.total == 20)
    [sock] = served.listener._sockets.values()
    assert len(sock._refused) <= 4
    assert served.flows == 0


class Failing(base.Datagrams):
    """A service that has a bug with some questions."""

    def answer(self, payload: memoryview, client: base.Client, at: float) -> bytes | None:
        """Answer what is well."""
        if payload == b"bug":
            raise ZeroDivisionError("a bug")
        return bytes(payload).upper()


def test_a_bug_in_a_service_leaves_its_datagrams_unanswered(serving: Serving) -> None:
    """The traceback of the first of a batch is told, each is counted; the others are answered."""
    served = serving.udp(start=False)
    served.listener.service = Failing()
    served.listener.is_plain_echo = False
    with datagrams() as one, datagrams() as other:
        for data in (b"bug", b"well", b"bug"):
            one.sendto(data, served.local)
        other.sendto(b"bug", served.local)
        served.start()
        assert one.recv(9) == b"WELL"
        eventually(lambda: served.counters.datagrams_unsent == 3)
        served.call("stop")
        failed = serving.only(ServiceFailed)
        assert (failed.peer_port, failed.error) == (
            one.getsockname()[1],
            "ZeroDivisionError('a bug')",
        )
        ended = {each.peer_port: each for each in serving.told(FlowEnded, 2)}
        of_one = ended[one.getsockname()[1]]
        assert (of_one.datagrams_received, of_one.datagrams_sent) == (3, 1)
        assert (of_one.datagrams_unsent, of_one.error) == (2, "ZeroDivisionError('a bug')")
        assert ended[other.getsockname()[1]].datagrams_unsent == 1


def test_a_pause_leaves_what_comes_in_the_buffer(serving: Serving) -> None:
    """It is answered when the pause is over; meanwhile the loop has nothing to do."""
    served = serving.udp()
    with datagrams() as client:
        assert ask(served, client) == b"hello"
        served.call("pause", paused=True)
        client.sendto(b"late", served.local)
        serving.settle()
        loop = serving.udp_loop
        ready: Any = loop.call_and_wait(lambda: loop._epoll.poll(0, 10))
        assert ready == []
        assert nothing_more(client)
        client.settimeout(10)
        served.start()
        assert client.recv(9) == b"late"


def test_a_reload_checks_flows_over_several_turns(
    serving: Serving, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that other datagrams are served meanwhile. Flows that are admitted go on, the others end,
    and all have the new settings.
    """
    monkeypatch.setattr(udp, "CHECKS_PER_TURN", 2)
    refusal, turns = DatagramPolicy.refusal, list[float]()

    def noted(self: DatagramPolicy, *arguments: Any) -> Any:
        turns.append(serving.udp_loop.now)
        return refusal(self, *arguments)

    served = serving.udp()
    clients = [stack.enter_context(datagrams(f"127.0.0.{last}")) for last in range(11, 18)]
    for client in clients:
        assert ask(served, client) == b"hello"
    monkeypatch.setattr(DatagramPolicy, "refusal", noted)
    settings = served.listener.settings._replace(deny=("127.0.0.12", "127.0.0.16"), backlog=9)
    served.update(settings, served.listener.service, ())
    ended = serving.told(FlowEnded, 2)
    assert {each.peer_address for each in ended} == {*settings.deny}
    assert {each.reason for each in ended} == {"reload"}
    eventually(lambda: len(turns) == 7)
    assert [turns.count(each) for each in sorted({*turns})] == [2, 2, 2, 1]
    for client in clients:
        client.sendto(b"again", served.local)
    eventually(lambda: served.counters.datagrams_received == 14)
    assert (served.counters.flows, served.flows) == (7, 5)
    assert served.counters.datagrams_refused == {**served.counters.datagrams_refused, "access": 2}
    flows = served.listener.live_flows()
    assert [flow for flow in flows if flow.settings is not settings] == []


def test_a_reload_holds_for_the_next_datagram(serving: Serving, stack: ExitStack) -> None:
    """Also for one whose flow was not checked in its turn: it is checked first."""
    served = serving.udp()
    allowed, denied = (stack.enter_context(datagrams(host)) for host in ("127.0.0.2", "127.0.0.3"))
    for client in (allowed, denied):
        assert ask(served, client) == b"hello"
    listener = served.listener
    [sock] = listener._sockets.values()
    settings = listener.settings._replace(deny=("127.0.0.3",))

    def reload_and_receive() -> None:
        listener.update(settings, listener.service, (), None)
        for client in (allowed, denied):
            client.sendto(b"again", served.local)
            sock.on_ready(READ, serving.udp_loop.now)

    listener.loop.call_and_wait(reload_and_receive)
    assert allowed.recv(9) == b"again"
    assert serving.only(FlowEnded).peer_address == "127.0.0.3"
    assert served.counters.datagrams_refused["access"] == 1
    assert (served.counters.flows, served.flows) == (2, 1)
    assert nothing_more(denied)


def test_the_oldest_flow_makes_room_after_a_reload(serving: Serving, stack: ExitStack) -> None:
    """Not that of a peer which has sent before its turn came to be checked."""
    served = serving.udp(max_flows=3)
    clients = [stack.enter_context(datagrams()) for _ in range(3)]
    for client in clients:
        assert ask(served, client) == b"hello"
    listener = served.listener
    [sock] = listener._sockets.values()
    settings = listener.settings._replace(deny=("192.0.2.1",))

    def reload_and_receive() -> None:
        listener.update(settings, listener.service, (), None)
        clients[2].sendto(b"again", served.local)
        sock.on_ready(READ, serving.udp_loop.now)

    listener.loop.call_and_wait(reload_and_receive)
    eventually(lambda: all(flow.settings is settings for flow in listener.live_flows()))
    assert ask(served, stack.enter_context(datagrams())) == b"hello"
    ended = serving.only(FlowEnded)
    assert (ended.reason, ended.peer_port) == ("full", clients[0].getsockname()[1])


@pytest.mark.parametrize("end", ["stop", "max_flows"])
def test_flows_that_are_not_checked_yet_end_like_others(
    serving: Serving, stack: ExitStack, end: str
) -> None:
    """By a stop, or by room that became less: each has its record, with that reason."""
    served = serving.udp()
    clients = [stack.enter_context(datagrams()) for _ in range(5)]
    for client in clients:
        assert ask(served, client) == b"hello"
    listener = served.listener
    [sock] = listener._sockets.values()

    def reload_and_end() -> None:
        settings = listener.settings._replace(max_flows=2)
        listener.update(settings, listener.service, (), None)
        if end == "stop":
            listener.stop()
        else:
            clients[4].sendto(b"again", served.local)
            sock.on_ready(READ, serving.udp_loop.now)

    listener.loop.call_and_wait(reload_and_end)
    reasons = [each.reason for each in serving.so_far(FlowEnded)]
    assert reasons == (["stop"] * 5 if end == "stop" else ["full"] * 3)


def test_a_socket_may_be_closed_alone(serving: Serving) -> None:
    """Its flows are summed up with that reason; the other one goes on."""
    served = serving.udp()
    other = opened("udp", served.listener.settings)
    where = other.getsockname()
    served.call("open", served.listener.prepare(other))
    with datagrams() as one, datagrams() as two:
        assert ask(served, one) == b"hello"
        two.sendto(b"x", where)
        assert two.recv(9) == b"x"
        assert served.flows == 2
        served.call("close", other)
        ended = serving.only(FlowEnded)
        assert (ended.peer_port, ended.reason) == (two.getsockname()[1], "reload")
        assert other.fileno() == -1
        assert ask(served, one) == b"hello"


def test_counts_are_the_same_by_the_short_way(serving: Serving) -> None:
    """One datagram at a time is answered by less code than many; nothing of it can be told."""
    served = serving.udp(start=False)
    with datagrams() as client:
        for _ in range(3):
            client.sendto(b"hello", served.local)
        served.start()
        assert [client.recv(9) for _ in range(3)] == [b"hello"] * 3
        for _ in range(3):
            assert ask(served, client) == b"hello"
        served.call("stop")
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_received, ended.datagrams_sent) == (6, 6)
    assert (ended.bytes_received, ended.bytes_sent) == (30, 30)
    counters = served.counters
    assert (counters.datagrams_received, counters.datagrams_sent) == (6, 6)
    assert (counters.bytes_received, counters.bytes_sent) == (30, 30)


def test_a_single_datagram_that_is_truncated_is_not_answered(serving: Serving) -> None:
    """Also of a known peer, and alone: its answer would lack a part."""
    served = serving.udp(payload_bytes=10)
    with datagrams() as client:
        assert ask(served, client) == b"hello"
        client.sendto(b"x" * 11, served.local)
        eventually(lambda: served.counters.datagrams_received == 2)
        assert ask(served, client, b"after") == b"after"
        served.call("stop")
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_truncated, ended.datagrams_sent) == (1, 2)


def test_single_datagrams_of_link_local_peers_take_their_links(
    network: Network, serving: Serving
) -> None:
    """Two links have the same addresses: each answer goes back by the one that was asked, also to
    peers that are known.
    """
    settings = {"allow": ("any",), "unlimited": ("any",)}  # or each takes the longer way
    with network.server.entered():
        served = serving.udp(host="0.0.0.0", **settings)
    with network.asker("169.254.9.9", "c0") as one, network.asker("169.254.9.9", "c1") as two:
        for number in range(3):
            for asker in (one, two):
                text = b"%d %d" % (number, asker.getsockname()[1])
                asker.sendto(text, ("169.254.9.1", served.local[1]))
                assert asker.recv(100) == text
