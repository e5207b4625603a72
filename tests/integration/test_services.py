"""Each service over real sockets: what clients get whatever they do, under the policies of all."""

import select
import socket
import struct
from collections.abc import Callable
from time import monotonic, time
from typing import Any

import pytest

from netsrvd import connection
from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.events.refusals import Refused
from netsrvd.packets import stamp
from netsrvd.services import SERVICES, chargen
from netsrvd.settings import TIMED_SERVICES
from tests.integration.conftest import Network
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, datagrams, nothing_more, read_exactly
from tests.support.service_client import FakeClient
from tests.support.serving import Serving

MEGABYTE = 1 << 20

QUOTE = b"Be strict when sending and tolerant when receiving.\r\n"


@pytest.fixture
def needed(tmp_path: Any) -> dict[str, Any]:
    """The settings without which some service would not be there."""
    (tmp_path / "quotes").write_bytes(QUOTE)
    return {"quotes": str(tmp_path / "quotes"), "active_listeners": ("echo",)}


def is_now(seconds: bytes) -> bool:
    """Return whether that is the time of RFC 868, give or take two seconds."""
    said = (struct.unpack("!I", seconds)[0] - 2_208_988_800) % (1 << 32)
    return bool(abs(said - time()) < 2)


SAYS: dict[str, Callable[[bytes, tuple[str, int]], bool]] = {
    "daytime": lambda text, _: len(text) == 27 and text.endswith(b"\r\n"),
    "time": lambda text, _: is_now(text),
    "qotd": lambda text, _: text == QUOTE,
    "active": lambda text, me: text == b"echo %s:%d\r\n" % (me[0].encode(), me[1]),
    "whoami": lambda text, me: text == b"%s:%d\n" % (me[0].encode(), me[1]),
    "close": lambda text, _: text == b"",
}
"""Services that say all at once, and what a client with a certain address must have got."""


VALID = {"stamp": stamp.make_request(1, bytes(8), 1)}
"""Datagrams that services do not refuse which refuse an empty one."""


def rest(sock: socket.socket) -> bytes:
    """Return all that comes to the end, which must be an orderly one."""
    found = b""
    while data := sock.recv(1 << 16):
        found += data
    return found


# --- TCP: those who say all at once ------------------------------------------------------------


@pytest.mark.parametrize("name", SAYS)
def test_a_client_that_sends_nothing_is_told_all(
    name: str, serving: Serving, needed: dict[str, Any]
) -> None:
    """It gets the words and the end without having said anything; the record counts the bytes."""
    with connect(serving.tcp(service=name, **needed).local) as client:
        said = rest(client)
        assert SAYS[name](said, client.getsockname())
    closed = serving.only(Closed)
    assert (closed.service, closed.reason) == (name, "finished")
    assert (closed.bytes_received, closed.bytes_sent) == (0, len(said))
    assert serving.only(Accepted).service == name


@pytest.mark.parametrize("name", SAYS)
def test_a_client_that_sends_a_megabyte_first_is_told_all(
    name: str, serving: Serving, needed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody asked it to send is thrown away, and no reset for it takes the words away before
    the client reads them.
    """
    monkeypatch.setattr(connection, "LINGER_SECONDS", SECONDS)
    with connect(serving.tcp(service=name, **needed).local) as client:
        client.sendall(bytes(MEGABYTE))
        [live] = eventually(serving.connections)
        eventually(lambda: live.bytes_received == MEGABYTE, "all was thrown away")
        assert SAYS[name](rest(client), client.getsockname())
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert serving.only(Closed).bytes_received == MEGABYTE


@pytest.mark.parametrize("name", SAYS)
def test_a_client_that_has_ended_its_side_is_told_all(
    name: str, serving: Serving, needed: dict[str, Any]
) -> None:
    """A half-close before the words is no reason to keep them back."""
    with connect(serving.tcp(service=name, **needed).local) as client:
        client.send(b"\r\n")
        client.shutdown(socket.SHUT_WR)
        assert SAYS[name](rest(client), client.getsockname())
    assert serving.only(Closed).reason in {"finished", "client"}


def test_long_words_and_much_input_do_not_block_each_other(serving: Serving) -> None:
    """A client that sends a megabyte before it reads gets a list that no buffer holds, whole."""
    name, peer = "x" * 63, ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65_535)
    serving.server_view.live = lambda: [FakeClient(peer, listener=name)] * 500
    small: dict[str, Any] = {"options": {"SO_SNDBUF": 4096}, "active_listeners": (name,)}
    with connect(serving.tcp(service="active", **small).local, SO_RCVBUF=4096) as client:
        [live] = eventually(serving.connections)
        eventually(lambda: live.send_buffer is not None, "a backlog stands")
        client.sendall(bytes(MEGABYTE))
        eventually(lambda: live.bytes_received == MEGABYTE, "all was thrown away")
        assert live.send_buffer is not None
        assert rest(client) == f"{name} [{peer[0]}]:{peer[1]}\r\n".encode() * 500


def test_a_client_that_stays_is_parted_from(serving: Serving, needed: dict[str, Any]) -> None:
    """Who has been told all and does not go has his connection ended two seconds later."""
    with connect(serving.tcp(service="close", **needed).local) as client:
        assert client.recv(1) == b""
        closed = serving.only(Closed)
    assert closed.reason == "finished"
    assert 2 <= closed.seconds < SECONDS


def test_active_tells_who_is_connected_now(serving: Serving, needed: dict[str, Any]) -> None:
    """Those of the listeners that the configuration names, and of no other."""
    shown, hidden = serving.tcp(name="lab"), serving.tcp(name="secret")
    tcp = serving.tcp(service="active", **needed | {"active_listeners": ("lab",)})
    with connect(shown.local) as one, connect(shown.local) as two, connect(hidden.local):
        eventually(lambda: serving.live == 3, "all are there")
        lines = [b"lab 127.0.0.1:%d\r\n" % each.getsockname()[1] for each in (one, two)]
        with connect(tcp.local) as client:
            assert rest(client) == b"".join(lines)


# --- TCP: chargen and discard -------------------------------------------------------------------


def test_chargen_and_a_client_that_sends_without_reading(serving: Serving) -> None:
    """A megabyte is taken from a client that reads nothing meanwhile; then it still finds the
    pattern without a gap.
    """
    tcp = serving.tcp(service="chargen", options={"SO_SNDBUF": 4096})
    with connect(tcp.local, SO_RCVBUF=4096) as client:
        [live] = eventually(serving.connections)
        eventually(lambda: live.send_buffer is not None, "the client's buffer is full")
        client.sendall(bytes(MEGABYTE))
        eventually(lambda: live.bytes_received == MEGABYTE, "all was thrown away")
        wanted = chargen.PATTERN * 30
        assert read_exactly(client, len(wanted)) == wanted


def test_chargen_and_a_client_that_never_reads(serving: Serving) -> None:
    """It is ended by the write time-out, also while it sends all the time."""
    tcp = serving.tcp(service="chargen", write_seconds=0.3)
    with connect(tcp.local) as client:
        began = monotonic()
        while not serving.so_far(Closed) and monotonic() - began < SECONDS:
            select.select([], [client], [], 0.01)
            try:
                client.send(b"x")
            except ConnectionError:
                break
        closed = serving.only(Closed)
    assert closed.reason == "write"
    assert 0.3 <= closed.seconds < SECONDS
    assert closed.bytes_received > 0


def test_chargen_goes_on_after_a_half_close(serving: Serving) -> None:
    """A client that only reads is served until it closes; breaking off is the normal end."""
    with connect(serving.tcp(service="chargen").local) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_exactly(client, MEGABYTE)
    assert serving.only(Closed).reason in {"client", "reset"}


def test_discard_takes_everything_and_says_nothing(serving: Serving) -> None:
    """A megabyte and the end come in, nothing but the end goes out."""
    with connect(serving.tcp(service="discard").local) as client:
        client.sendall(bytes(MEGABYTE))
        client.shutdown(socket.SHUT_WR)
        assert rest(client) == b""
    closed = serving.only(Closed)
    assert (closed.reason, closed.bytes_received, closed.bytes_sent) == ("client", MEGABYTE, 0)


# --- UDP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["daytime", "time", "whoami"])
@pytest.mark.parametrize("question", [b"", b"\n", bytes(100)], ids=len)
def test_short_answers_fit_any_question(
    name: str, question: bytes, serving: Serving, needed: dict[str, Any]
) -> None:
    """An empty datagram has the whole answer, and so has any other (RFC 867, 868)."""
    udp = serving.udp(service=name, **needed)
    with datagrams() as asker:
        asker.sendto(question, udp.local)
        assert SAYS[name](asker.recv(1000), asker.getsockname())
        assert nothing_more(asker)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("qotd", QUOTE), ("active", b"echo 127.0.0.1:"), ("chargen", chargen.PATTERN)],
)
def test_long_answers_are_cut_to_the_question(
    name: str, answer: bytes, serving: Serving, needed: dict[str, Any]
) -> None:
    """Nobody has more sent to whoever he says he is than he sends himself."""
    udp, tcp = serving.udp(service=name, **needed), serving.tcp()
    with connect(tcp.local), datagrams() as asker:
        eventually(lambda: serving.live, "somebody is there")
        for size in (0, 1, 20, 40, 1000):
            asker.sendto(bytes(size), udp.local)
            said = asker.recv(2000)
            assert len(said) <= size
            assert said[: len(answer)] == answer[: len(said)]


def test_a_floor_lets_a_quote_through(serving: Serving, needed: dict[str, Any]) -> None:
    """With `reply_floor` an empty datagram has a whole quote, and a whole list."""
    with datagrams() as asker:
        quotes = serving.udp(service="qotd", reply_floor_bytes=512, **needed)
        asker.sendto(b"", quotes.local)
        assert asker.recv(1000) == QUOTE
        with connect(serving.tcp().local) as present:
            eventually(lambda: serving.live, "somebody is there")
            roll = serving.udp(service="active", reply_floor_bytes=512, **needed)
            asker.sendto(b"", roll.local)
            assert SAYS["active"](asker.recv(1000), present.getsockname())


@pytest.mark.parametrize("name", ["discard", "close"])
def test_a_silent_service_leaves_a_record(
    name: str, serving: Serving, needed: dict[str, Any]
) -> None:
    """No answer, not even an empty one, and a summary that says so."""
    udp = serving.udp(service=name, flow_seconds=0.1, **needed)
    with datagrams() as asker:
        asker.sendto(b"anybody?", udp.local)
        ended = serving.only(FlowEnded)
        assert nothing_more(asker)
    assert serving.only(FlowBegan).service == ended.service == name
    assert (ended.datagrams_received, ended.datagrams_sent, ended.bytes_received) == (1, 0, 8)
    assert ended.datagrams_unsent == ended.datagrams_refused == 0


def test_a_link_local_client_is_told_no_zone(network: Network, serving: Serving) -> None:
    """The interface of this host, by which it came, is not its business; it is in the record."""
    with network.server.entered():
        udp = serving.udp(service="whoami", host="::", allow=("any",), flow_seconds=0.1)
    with network.asker("fe80::9", "c0") as asker:
        asker.sendto(b"", ("fe80::1", udp.local[1], 0, network.scope("c0")))
        assert asker.recv(100) == b"[fe80::9]:%d\n" % asker.getsockname()[1]
    assert serving.only(FlowBegan).peer_address == "fe80::9%s0"


# --- the policies of all ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_a_stranger_is_told_nothing(name: str, serving: Serving, needed: dict[str, Any]) -> None:
    """Whatever the service, who is not allowed to come gets the end, or no answer, and a record."""
    rules = {"service": name, "allow": ("192.0.2.0/24",), **needed}
    udp = serving.udp(**rules)
    with datagrams() as asker:
        asker.sendto(bytes(100), udp.local)
        assert serving.only(Refused).reason == "access"
        serving.settle()
        assert nothing_more(asker)
    if name not in TIMED_SERVICES:  # which have no form for TCP
        with connect(serving.tcp(**rules).local) as client:
            assert rest(client) == b""
        assert [each.reason for each in serving.told(Refused, 2)] == ["access", "access"]
    assert not serving.so_far(Accepted)
    assert not serving.so_far(FlowBegan)


@pytest.mark.parametrize("name", SERVICES)
def test_a_source_has_its_limits(name: str, serving: Serving, needed: dict[str, Any]) -> None:
    """Whatever the service, the second connection or datagram of a source that may have one is
    refused.
    """
    rules = {"unlimited": (), "connection_rate": 0.01, "connection_burst": 1}
    rules |= {"datagram_rate": 0.01, "datagram_burst": 1, "service": name, **needed}
    udp = serving.udp(**rules)
    with datagrams() as asker:
        asker.sendto(VALID.get(name, b""), udp.local)
        asker.sendto(b"", udp.local)
        assert serving.only(Refused).reason == "rate"
    assert len(serving.so_far(FlowBegan)) == 1
    if name in TIMED_SERVICES:  # which have no form for TCP
        return
    tcp = serving.tcp(**rules)
    with connect(tcp.local):
        serving.told(Accepted)
        with connect(tcp.local) as second:
            assert rest(second) == b""
    assert [each.reason for each in serving.told(Refused, 2)] == ["rate", "rate"]
    assert len(serving.so_far(Accepted)) == 1


@pytest.mark.parametrize("name", SERVICES)
def test_datagrams_of_services_are_not_answered(
    name: str, serving: Serving, needed: dict[str, Any]
) -> None:
    """Whatever the service, it does not talk to another one for ever."""
    udp = serving.udp(service=name, refused_ports=("1024-65535",), **needed)
    with datagrams() as asker:
        asker.sendto(bytes(100), udp.local)
        assert serving.only(Refused).reason == "port"
        assert nothing_more(asker)


@pytest.mark.parametrize("name", ["echo", "discard"])
def test_a_silent_client_is_ended(name: str, serving: Serving, needed: dict[str, Any]) -> None:
    """Where the service waits for the client, the idle time-out ends it; the others never wait."""
    with connect(serving.tcp(service=name, idle_seconds=0.1, **needed).local) as client:
        assert client.recv(1) == b""
    assert serving.only(Closed).reason == "idle"
