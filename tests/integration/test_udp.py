"""Datagrams over loopback: what comes back, what is counted, what is told."""

import errno
import os
import socket
from contextlib import ExitStack
from operator import attrgetter

import pytest

from netsrvd.errnos import RECEIVED_ERRNOS
from netsrvd.events.flows import (
    DatagramsDropped,
    DropsEnded,
    FlowBegan,
    FlowEnded,
    ReceiveFailing,
    ReceiveRecovered,
)
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.linux import mmsg
from netsrvd.services import chargen, echo
from netsrvd.udp import UDPSocket
from tests.support.faulty import FaultyCall
from tests.support.patience import SECONDS, eventually
from tests.support.peers import datagrams, nothing_more
from tests.support.serving import Served, Serving, adopted, listener

SHORT = {"flow_seconds": 0.2}

SEVERAL = {"flow_seconds": 1}
"""For flows of which datagrams come one after the other."""

PASSING = {errno.ENOMEM, errno.ENOBUFS, errno.ENETDOWN, errno.EPERM, errno.EIO, errno.ENOTCONN}
"""Errors after which the socket is left alone for a moment: a shortage, and what nobody expects."""


def asked(udp: Served, *payloads: bytes, host: str = "127.0.0.1") -> socket.socket:
    """Return a new peer that has sent these datagrams."""
    peer = datagrams(host)
    for payload in payloads:
        peer.sendto(payload, (host, udp.local[1]))
    return peer


def plant(monkeypatch: pytest.MonkeyPatch, name: str, faults: list[int]) -> None:
    """Have a system call fail with these errors, one a call, by whichever of its two ways."""
    for each in (name, f"{name}_short"):
        call = FaultyCall(getattr(mmsg, each))
        call.faults = faults
        monkeypatch.setattr(mmsg, each, call)


def ended(serving: Serving, count: int = 1) -> list[FlowEnded]:
    """Return the summaries of `count` flows, in the order of the peers' ports."""
    return sorted(serving.told(FlowEnded, count), key=attrgetter("peer_port"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size", [0, 1, 1472, 65_507])
def test_datagrams_come_back_whole(host: str, size: int, serving: Serving) -> None:
    """A datagram of any size, the empty and the largest one included, comes back as it was."""
    udp, payload = serving.udp(host=host), os.urandom(size)
    with asked(udp, payload, host=host) as peer:
        assert peer.recvfrom(70_000)[0] == payload
        assert nothing_more(peer)


def test_the_largest_datagram_of_ipv6_comes_back(serving: Serving) -> None:
    """IPv6 has room for 20 bytes more, which no header of its own takes."""
    payload = os.urandom(65_527)
    with asked(serving.udp(host="::1"), payload, host="::1") as peer:
        assert peer.recv(70_000) == payload


def test_a_truncated_datagram_is_counted_and_never_answered(serving: Serving) -> None:
    """Of a batch in which some datagrams are longer than the buffer, the others come back."""
    udp = serving.udp(payload_bytes=100, start=False, **SHORT)
    sizes = [101, 50, 65_507, 100, 0, 102]
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    with asked(udp, *payloads) as peer:
        udp.start()
        for size, payload in zip(sizes, payloads, strict=True):
            if size <= 100:
                assert peer.recv(70_000) == payload
        [flow] = ended(serving)
        assert nothing_more(peer)
    assert (flow.datagrams_received, flow.datagrams_truncated, flow.datagrams_sent) == (6, 3, 3)
    assert (flow.bytes_received, flow.bytes_sent) == (3 * 100 + 150, 150)
    counters = udp.counters
    assert (counters.datagrams_truncated, counters.datagrams_sent) == (3, 3)


def test_a_truncated_datagram_alone_is_never_answered(serving: Serving) -> None:
    """Nor is one that comes by itself, from a peer that is known."""
    udp = serving.udp(payload_bytes=100)
    with asked(udp, b"known") as peer:
        assert peer.recv(100) == b"known"
        peer.sendto(bytes(101), udp.local)
        eventually(lambda: udp.counters.datagrams_received == 2, "it has come")
        peer.sendto(b"next", udp.local)
        assert peer.recv(200) == b"next"
        assert nothing_more(peer)
    serving.stop_listening()
    assert (udp.counters.datagrams_truncated, udp.counters.datagrams_sent) == (1, 2)


def test_batches_of_many_peers_go_back_to_each(serving: Serving) -> None:
    """300 datagrams of 60 peers that wait at once come back to whom they came from, in order."""
    udp = serving.udp(start=False, options={"SO_RCVBUF": 1 << 20}, **SEVERAL)
    with ExitStack() as stack:
        peers = [stack.enter_context(datagrams()) for _ in range(60)]
        for turn in range(5):
            for number, peer in enumerate(peers):
                peer.sendto(b"%d %d" % (number, turn), udp.local)
        udp.start()
        for number, peer in enumerate(peers):
            assert [peer.recv(100) for _ in range(5)] == [
                b"%d %d" % (number, turn) for turn in range(5)
            ]
        flows = ended(serving, 60)
        assert [flow.peer_port for flow in flows] == sorted(peer.getsockname()[1] for peer in peers)
    assert {(flow.datagrams_received, flow.datagrams_sent) for flow in flows} == {(5, 5)}
    counters = udp.counters
    assert (counters.flows, counters.datagrams_received, counters.datagrams_sent) == (60, 300, 300)


def test_listeners_share_buffers_and_nothing_else(serving: Serving) -> None:
    """Datagrams of all sizes that come to several listeners in turn have each its own answer, by
    its own service, from its own address, and each listener counts its own.
    """
    ways = [
        (serving.udp(host=host, service=service), host, service)
        for host in ("127.0.0.1", "::1")
        for service in ("echo", "whoami", "chargen", "discard")
    ]
    sizes = [1, 60_000, 0, 1472, 9000]
    with ExitStack() as stack:
        peers = [stack.enter_context(datagrams(host)) for _, host, _ in ways]
        for size in sizes:
            for number, ((served, _, _), peer) in enumerate(zip(ways, peers, strict=True)):
                peer.sendto(bytes([number]) * size, served.local)
            for number, ((served, host, service), peer) in enumerate(zip(ways, peers, strict=True)):
                if service == "discard":
                    continue
                answer, address = peer.recvfrom(70_000)
                assert address[:2] == (host, served.local[1])
                if service == "echo":
                    assert answer == bytes([number]) * size
                elif service == "whoami":
                    assert str(peer.getsockname()[1]).encode() in answer
                else:
                    assert answer == chargen.PATTERN[: len(answer)]
        serving.settle()
        assert all(nothing_more(peer) for peer in peers)
    for served, _, service in ways:
        counters = served.counters
        assert (counters.datagrams_received, counters.bytes_received) == (5, sum(sizes))
        assert counters.datagrams_sent == (0 if service == "discard" else 5)


def test_a_flow_is_told_twice(serving: Serving) -> None:
    """The first datagram of a peer and its silence are told, with exact counts; one that comes
    later begins a new flow.
    """
    udp = serving.udp(**SEVERAL)
    with asked(udp, b"one", b"", b"three") as peer:
        began = serving.only(FlowBegan)
        port = peer.getsockname()[1]
        assert (began.peer_address, began.peer_port) == ("127.0.0.1", port)
        assert (began.local_address, began.local_port) == udp.local
        [flow] = ended(serving)
        assert (flow.reason, flow.peer_port, flow.error) == ("silent", port, "")
        assert (flow.datagrams_received, flow.datagrams_sent) == (3, 3)
        assert flow.bytes_received == flow.bytes_sent == 8
        assert 0 <= flow.seconds < SECONDS
        assert udp.flows == 0
        peer.sendto(b"again", udp.local)
        _, last = serving.told(FlowEnded, 2)
    assert last.datagrams_received == 1
    assert len(serving.so_far(FlowBegan)) == 2


def test_a_stop_sums_flows_up(serving: Serving) -> None:
    """It does not wait for their silence."""
    udp = serving.udp()
    with asked(udp, b"one", b"two"):
        serving.told(FlowBegan)
        serving.settle()
        serving.stop_listening()
    flow = serving.only(FlowEnded)
    assert (flow.reason, flow.datagrams_received) == ("stop", 2)


def test_the_oldest_flow_makes_room(serving: Serving) -> None:
    """When the table is full the peer known for longest leaves it, summed up."""
    udp = serving.udp(max_flows=2)
    with ExitStack() as stack:
        peers = []
        for name in (b"a", b"b", b"c"):
            peers.append(stack.enter_context(asked(udp, name)))
            assert peers[-1].recv(10) == name
        [flow] = ended(serving)
        assert (flow.reason, flow.peer_port) == ("full", peers[0].getsockname()[1])
        assert udp.flows == 2
        peers[1].sendto(b"still known", udp.local)
        assert peers[1].recv(100) == b"still known"
        assert len(serving.so_far(FlowBegan)) == 3


def test_counts_are_exact_when_the_table_is_too_small(serving: Serving) -> None:
    """Also what happens to a datagram whose flow has to leave within the same batch is counted."""
    udp = serving.udp(max_flows=1, payload_bytes=10, start=False)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(asked(udp, b"short", b"much too long"))
        udp.start()
        eventually(lambda: udp.counters.datagrams_received == 40)
        assert udp.flows == 1
        serving.stop_listening()
        flows = ended(serving, 20)
    assert [flow.datagrams_truncated for flow in flows] == [1] * 20
    assert [flow.datagrams_sent for flow in flows] == [1] * 20
    assert udp.counters.datagrams_truncated == 20


def test_a_refused_peer_is_told_once(serving: Serving) -> None:
    """Datagrams of a peer that may not come in are one record and one summary, and no answer."""
    udp = serving.udp(allow=("192.0.2.0/24",), refusal_seconds=0.2)
    with asked(udp, *[b"let me in"] * 20) as peer:
        refused = serving.only(Refused)
        assert (refused.reason, refused.rule) == ("access", "no entry of allow contains it")
        again = serving.only(RefusedAgain)
        assert nothing_more(peer)
    assert (again.source, again.reason, again.times) == ("127.0.0.1", "access", 19)
    counters = udp.counters
    assert (counters.datagrams_refused.total, counters.bytes_received, counters.bytes_sent) == (
        *(20, 180, 0),
    )
    assert not serving.so_far(FlowBegan)


def test_refused_and_welcome_share_a_batch(serving: Serving) -> None:
    """In one batch each datagram is judged by its own peer; mapped ones by the IPv4 entries."""
    udp = serving.udp(adopted(socket.SOCK_DGRAM), deny=("127.0.0.1",), start=False)
    with ExitStack() as stack:
        refused, welcome = (
            [stack.enter_context(asked(udp, b"?", host=host)) for _ in range(10)]
            for host in ("127.0.0.1", "::1")
        )
        udp.start()
        for peer in welcome:
            assert peer.recvfrom(10) == (b"?", ("::1", udp.local[1], 0, 0))
        assert all(nothing_more(peer) for peer in refused)
    assert {event.peer_address for event in serving.so_far(Refused)} == {"127.0.0.1"}
    assert {event.peer_address for event in serving.so_far(FlowBegan)} == {"::1"}


def test_new_access_holds_for_known_flows(serving: Serving) -> None:
    """A peer that the new rules judge differently begins anew; others go on as they are."""
    udp = serving.udp(adopted(socket.SOCK_DGRAM))
    with asked(udp, b"1") as four, asked(udp, b"1", host="::1") as six:
        assert four.recv(10) == six.recv(10) == b"1"
        changed = listener(deny=("127.0.0.0/8",))
        udp.update(changed, echo.Datagrams(), ())
        [flow] = ended(serving)
        assert (flow.reason, flow.peer_address) == ("reload", "127.0.0.1")
        for peer, host in ((four, "127.0.0.1"), (six, "::1")):
            peer.sendto(b"2", (host, udp.local[1]))
        assert six.recv(10) == b"2"
        assert nothing_more(four)
        assert serving.only(Refused).peer_address == "127.0.0.1"


@pytest.mark.parametrize(
    "number",
    [*(errno.EPERM, errno.ENOBUFS, errno.EAGAIN, errno.EMSGSIZE, errno.ENOMEM, errno.ENETDOWN)],
    ids=errno.errorcode.get,
)
def test_an_error_of_sending_concerns_one_datagram(
    number: int, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that the kernel does not take is counted with its error; the next ones leave."""
    plant(monkeypatch, "_sendmmsg", [number])
    udp = serving.udp(start=False, **SHORT)
    with asked(udp, b"lost", b"second", b"third") as peer:
        udp.start()
        assert [peer.recv(100), peer.recv(100)] == [b"second", b"third"]
        [flow] = ended(serving)
    assert (flow.datagrams_received, flow.datagrams_unsent, flow.datagrams_sent) == (3, 1, 2)
    assert flow.error.startswith(f"{errno.errorcode[number]}: ")
    assert (udp.counters.datagrams_unsent, udp.counters.datagrams_sent) == (1, 2)
    assert udp.counters.bytes_sent == flow.bytes_sent == len(b"secondthird")


@pytest.mark.parametrize("number", sorted(RECEIVED_ERRNOS | PASSING), ids=errno.errorcode.get)
def test_an_error_of_receiving_is_told_and_survived(
    number: int, serving: Serving, hurry: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error instead of a datagram is told when it begins and when it ends; then all is well.

    (Told once, unless this machine is slower than the pauses: tests/unit has a clock of its own.)
    """
    plant(monkeypatch, "_recvmmsg", [number] * 3)
    udp = serving.udp()
    with asked(udp, b"hello") as peer:
        assert peer.recv(10) == b"hello"
    began, *_ = serving.told(ReceiveFailing)
    eventually(lambda: sum(over.errors for over in serving.so_far(ReceiveRecovered)) == 3)
    pause = "trying again every 10 ms" if number in PASSING else "going on"
    assert began.text().endswith(f": {began.error}; {pause}")
    assert began.error.startswith(f"{errno.errorcode[number]}: ")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR], ids=errno.errorcode.get)
def test_nothing_to_receive_is_no_error(
    number: int, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wake-up without a datagram (its checksum was wrong, a signal came) passes unsaid."""
    plant(monkeypatch, "_recvmmsg", [number] * 3)
    with asked(serving.udp(), b"hello") as peer:
        assert peer.recv(10) == b"hello"
    assert not serving.so_far(ReceiveFailing)


def test_a_socket_that_is_no_good_ends_the_thread(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that can only be a bug is not survived: the process is to end."""
    plant(monkeypatch, "_recvmmsg", [errno.EBADF])
    udp = serving.udp()
    with asked(udp, b"hello"):
        name, error = serving.expect_failure()
    assert name == "udp"
    assert isinstance(error, OSError)
    assert error.errno == errno.EBADF


def test_what_the_kernel_drops_is_told_and_counted(serving: Serving) -> None:
    """Datagrams that found the socket's buffer full are told when that begins, and counted to the
    last one when it ends.
    """
    udp = serving.udp(options={"SO_RCVBUF": 4096}, **SHORT)
    serving.reports.congested = True
    serving.settle()
    with asked(udp, *[bytes(500)] * 300) as peer:
        serving.reports.congested = False
        serving.only(DatagramsDropped)
        over = serving.only(DropsEnded)
        assert peer.recv(1000) == bytes(500)
    received = udp.counters.datagrams_received
    assert over.datagrams_dropped == udp.counters.datagrams_dropped == 300 - received
    assert over.datagrams_dropped > 200


def test_the_end_of_drops_is_told_though_nobody_is_served(serving: Serving) -> None:
    """A flood of those who may not come leaves no flow that is still to be looked at."""
    udp = serving.udp(options={"SO_RCVBUF": 4096}, allow=("192.0.2.0/24",), **SHORT)
    serving.reports.congested = True
    serving.settle()
    with asked(udp, *[bytes(500)] * 300):
        serving.reports.congested = False
        assert serving.only(DropsEnded).datagrams_dropped > 200
    assert udp.flows == 0


def test_drops_are_told_by_the_end(serving: Serving) -> None:
    """What was dropped is told when the listener has stopped, however soon that is."""
    udp = serving.udp(options={"SO_RCVBUF": 4096})
    serving.reports.congested = True
    serving.settle()
    with asked(udp, *[bytes(500)] * 300) as peer:
        serving.reports.congested = False
        assert peer.recv(1000) == bytes(500)
        serving.stop_listening()
    dropped = serving.only(DropsEnded).datagrams_dropped
    assert len(serving.so_far(DatagramsDropped)) == 1
    assert dropped == udp.counters.datagrams_dropped > 200


def test_flows_are_checked_only_by_new_settings(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload for another listener takes no time with them: thousands take a fifth of a second, in
    which the kernel may drop datagrams.
    """
    udp = serving.udp()
    with datagrams() as client:
        client.sendto(b"x", udp.local)
        assert client.recv(10) == b"x"
        checked: list[UDPSocket] = []

        def noted(sock: UDPSocket) -> None:
            checked.append(sock)

        monkeypatch.setattr(UDPSocket, "recheck_access", noted)
        udp.update(udp.listener.settings, echo.Datagrams(), {udp.local[1]})
        udp.call("restrict", udp.sock, None)
        assert not checked
        udp.update(listener(allow=("any",)), echo.Datagrams(), {udp.local[1]})
        assert len(checked) == 1
