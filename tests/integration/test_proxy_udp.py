"""Datagrams that come by a proxy: whose they are, what comes back, and which are refused."""

import gc
import os
import socket
from contextlib import ExitStack
from operator import attrgetter
from typing import Any

import pytest

from netsrvd import proxy_datagrams
from netsrvd.counters import Counters
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.services import echo
from tests.support.patience import eventually
from tests.support.peers import datagrams, nothing_more
from tests.support.proxied import LOCAL, addresses, checked, datagram, v1, v2
from tests.support.serving import Serving, listener

BEHIND = {"proxies": ("127.0.0.1", "::1"), "allow": ("any",)}
ONE, TWO = ("192.0.2.7", 4711), ("192.0.2.7", 4712)


@pytest.fixture
def proxy(stack: ExitStack) -> socket.socket:
    return stack.enter_context(datagrams())


def own(sock: socket.socket) -> tuple[str, str]:
    """Return the address of a test's own end, as the record of a proxy has it."""
    host, port = sock.getsockname()[:2]
    return host, str(port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("client", [ONE, ("2001:db8::7", 4711)])
@pytest.mark.parametrize("size", [0, 1, 5, 1400, 65_000])
@pytest.mark.parametrize("how", [{}, {"handler": attrgetter("payload")}], ids=["echo", "handler"])
def test_the_payload_comes_back_without_the_header(
    serving: Serving, host: str, client: tuple[str, int], size: int, how: dict[str, Any]
) -> None:
    """To the proxy, whatever families it and the client have; records have both."""
    udp, payload = serving.udp(host=host, **how, **BEHIND), os.urandom(size)
    with datagrams(host) as sock:
        sock.sendto(datagram(payload, client), udp.local)
        assert sock.recv(70_000) == payload
        assert nothing_more(sock)
        serving.stop_listening()
        for record in (serving.only(FlowBegan), serving.only(FlowEnded)):
            assert (record.peer_address, record.peer_port) == client
            assert (record.proxy_address, record.proxy_port) == own(sock)
    ended = serving.only(FlowEnded)
    assert ended.bytes_received == ended.bytes_sent == size
    assert udp.counters.bytes_received == size


def test_a_header_with_a_checksum_is_checked(serving: Serving, proxy: socket.socket) -> None:
    """In a datagram as on a connection."""
    udp, header = serving.udp(**BEHIND), checked(addresses(), form=0x12)
    proxy.sendto(header[:-1] + bytes((header[-1] ^ 1,)) + b"bad", udp.local)
    proxy.sendto(header + b"good", udp.local)
    assert proxy.recv(100) == b"good"
    assert serving.only(Refused).rule == "its checksum is wrong"


def test_each_named_client_is_a_flow(serving: Serving, proxy: socket.socket) -> None:
    """Though they all come from one address and port; so is the proxy itself."""
    udp = serving.udp(**BEHIND)
    for _ in range(3):
        for client in (ONE, TWO):
            proxy.sendto(datagram(b"hello", client), udp.local)
        proxy.sendto(LOCAL + b"itself", udp.local)
    assert sorted(proxy.recv(100) for _ in range(9)) == [b"hello"] * 6 + [b"itself"] * 3
    assert udp.flows == 3
    serving.stop_listening()
    ended = sorted(serving.told(FlowEnded, 3), key=attrgetter("peer_port"))
    named = {(each.peer_address, each.peer_port): each for each in ended}
    assert set(named) == {ONE, TWO, proxy.getsockname()}
    assert {each.datagrams_received for each in ended} == {3}
    assert named[ONE].proxy_address == "127.0.0.1"
    assert named[proxy.getsockname()].proxy_address == ""


@pytest.mark.parametrize(
    ("data", "reason", "counter"),
    [
        (b"", "proxy-header", "proxy_wrong"),
        (b"hello", "proxy-header", "proxy_wrong"),
        (v1() + b"hello", "proxy-header", "proxy_wrong"),
        (v2(form=0x11, block=addresses()), "proxy-header", "proxy_wrong"),
        (datagram(b"")[:-1], "proxy-header", "proxy_wrong"),
        (v2(form=0x12, block=addresses(), length=5000), "proxy-long", "proxy_long"),
    ],
)
def test_a_datagram_without_a_header_is_refused(
    serving: Serving, proxy: socket.socket, data: bytes, reason: str, counter: str
) -> None:
    """It is not answered; the proxy has one record and a summary; its others are served."""
    udp = serving.udp(**BEHIND)
    for _ in range(3):
        proxy.sendto(data, udp.local)
    proxy.sendto(datagram(b"hello"), udp.local)
    assert proxy.recv(100) == b"hello"
    assert nothing_more(proxy)
    serving.stop_listening()
    refused, again = serving.only(Refused), serving.only(RefusedAgain)
    assert (refused.reason, refused.peer_address, refused.proxy_address) == (
        *(reason, "127.0.0.1", ""),
    )
    assert again.times == 2
    assert getattr(udp.counters, counter) == udp.counters.datagrams_refused.total == 3


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (("198.51.100.1", 4711), "access"),
        (("192.0.2.7", 53), "port"),
        (("255.255.255.255", 4711), "sender"),
    ],
)
def test_the_named_client_is_judged(
    serving: Serving, proxy: socket.socket, client: tuple[str, int], reason: str
) -> None:
    """By access and by all that keeps an answer from doing harm; the proxy only brings it."""
    udp = serving.udp(proxies=("127.0.0.1",), allow=("192.0.2.0/24",))
    for _ in range(2):
        proxy.sendto(datagram(b"refused", client), udp.local)
    proxy.sendto(datagram(b"hello"), udp.local)
    assert proxy.recv(100) == b"hello"
    serving.stop_listening()
    refused = serving.only(Refused)
    assert (refused.reason, refused.peer_address, refused.peer_port) == (reason, *client)
    assert (refused.proxy_address, refused.proxy_port) == own(proxy)
    assert serving.only(RefusedAgain).times == 1


def test_the_named_client_is_limited(serving: Serving, proxy: socket.socket) -> None:
    """Its source has what one source may have, by all its ports; another one has its own."""
    limits = {"datagram_rate": 1, "datagram_burst": 3, "unlimited": ()}
    udp = serving.udp(**limits, **BEHIND)
    for number in range(5):
        proxy.sendto(datagram(b"%d" % number, (ONE[0], 5000 + number)), udp.local)
    proxy.sendto(datagram(b"other", ("192.0.2.8", 4711)), udp.local)
    found = [proxy.recv(100) for _ in range(4)]
    assert found == [b"0", b"1", b"2", b"other"]
    refused = serving.only(Refused)
    assert (refused.reason, refused.source) == ("rate", ONE[0])
    assert (refused.proxy_address, refused.proxy_port) == own(proxy)


def test_a_client_that_is_not_listed_is_an_ordinary_client(
    serving: Serving, proxy: socket.socket
) -> None:
    """A header from elsewhere is payload: nobody can take another's name."""
    udp, sent = serving.udp(proxies=("127.0.0.2",)), datagram(b"hello")
    proxy.sendto(sent, udp.local)
    assert proxy.recv(100) == sent
    began = serving.only(FlowBegan)
    assert (began.peer_address, began.proxy_address) == ("127.0.0.1", "")


def test_a_reload_reaches_the_flows(serving: Serving, proxy: socket.socket) -> None:
    """Clients whose proxy is no longer one have ended; from then on it speaks for itself."""
    udp = serving.udp()
    proxy.sendto(datagram(b"x"), udp.local)
    assert proxy.recv(100) == datagram(b"x")
    udp.update(listener(**BEHIND), echo.Datagrams(), ())
    proxy.sendto(datagram(b"hello"), udp.local)
    assert proxy.recv(100) == b"hello"
    udp.update(listener(**BEHIND), echo.Datagrams(), ())
    serving.settle()
    assert not serving.so_far(FlowEnded)
    udp.update(listener(allow=("any",)), echo.Datagrams(), ())
    [ended] = serving.told(FlowEnded)
    assert (ended.reason, ended.peer_address) == ("reload", ONE[0])
    proxy.sendto(b"hello", udp.local)
    assert proxy.recv(100) == b"hello"


def test_a_reload_asks_anew_who_is_a_proxy(serving: Serving, proxy: socket.socket) -> None:
    """What was known of a sender is forgotten: with another proxy in its place it is a client."""
    udp = serving.udp(**BEHIND)
    proxy.sendto(datagram(b"hello"), udp.local)
    assert proxy.recv(100) == b"hello"
    udp.update(listener(proxies=("127.0.0.2",)), echo.Datagrams(), ())
    proxy.sendto(datagram(b"hello"), udp.local)
    assert proxy.recv(100) == datagram(b"hello")


def test_what_is_remembered_of_senders_is_bounded(
    serving: Serving, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many senders, proxies or not, leave no more behind than that, and are judged the same."""
    monkeypatch.setattr(proxy_datagrams, "SENDERS_KEPT", 2)
    made: list[proxy_datagrams.ProxyDatagrams] = []

    def make(counters: Counters) -> proxy_datagrams.ProxyDatagrams:
        made.append(proxy_datagrams.ProxyDatagrams(counters))
        return made[-1]

    monkeypatch.setattr("netsrvd.udp.ProxyDatagrams", make)
    udp = serving.udp(**BEHIND)
    for _ in range(5):
        sock = stack.enter_context(datagrams())
        sock.sendto(datagram(b"hello"), udp.local)
        assert sock.recv(100) == b"hello"
        sock.sendto(b"wrong", udp.local)
    eventually(lambda: udp.counters.proxy_wrong == 5, "all have been looked at")
    other = stack.enter_context(datagrams("127.0.0.2"))
    other.sendto(b"plain", udp.local)
    assert other.recv(100) == b"plain"
    eventually(lambda: udp.counters.datagrams_sent == 6)
    [kept] = made
    assert not kept.clients
    assert not kept.errors
    tables = [each for each in gc.get_referents(kept) if isinstance(each, dict)]
    assert len(tables) == 3
    assert all(len(each) <= 2 for each in tables)
