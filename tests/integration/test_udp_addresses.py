"""Answers leave from the address and by the interface that was asked: hosts with several."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from operator import attrgetter
from typing import Any

import pytest

from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.events.refusals import Refused, RefusedAgain
from netsrvd.sockets import activation
from netsrvd.sockets.activation import ActivatedSocket
from tests.integration.conftest import Network
from tests.support.inherited import as_systemd
from tests.support.patience import SECONDS
from tests.support.peers import nothing_more
from tests.support.serving import Served, Serving, listener

ANYBODY = {"allow": ("any",), "flow_seconds": 0.2}


KINDS = {
    "own IPv4": ("0.0.0.0", False),
    "own IPv6": ("::", False),
    "passed IPv4": ("0.0.0.0", True),
    "passed dual-stack": ("::", True),
}
IPV4_ASKED = [("10.9.0.9", "10.9.0.1"), ("10.9.0.9", "10.9.0.2"), ("10.9.0.9", "10.9.1.1")]
IPV6_ASKED = [("fd09::9", "fd09::1"), ("fd09::9", "fd09::2"), ("fd09::9", "fd09:1::1")]
LINK_LOCAL = [("169.254.9.9", "169.254.9.1"), ("fe80::9", "fe80::1")]


def reached_by(kind: str, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those pairs of addresses whose family a kind of socket serves."""
    families = {"own IPv4": "4", "passed IPv4": "4", "own IPv6": "6", "passed dual-stack": "46"}
    return [pair for pair in pairs if ("6" if ":" in pair[0] else "4") in families[kind]]


ASKED = [
    pytest.param(kind, *pair, id=f"{kind}-{pair[1]}")
    for kind in KINDS
    for pair in reached_by(kind, IPV4_ASKED + IPV6_ASKED)
]
LINKED = [
    pytest.param(kind, *pair, id=f"{kind}-{pair[1]}")
    for kind in KINDS
    for pair in reached_by(kind, LINK_LOCAL)
]


@pytest.fixture(params=["echo", "limited echo", "handler", "timed"])
def serve(
    network: Network, serving: Serving, request: pytest.FixtureRequest
) -> Callable[..., Served]:
    """Begin to serve a kind of socket on the server; `before` is called with its port when the
    socket is there, but not adopted yet. The answers are made at once, without a look at what came
    or with one, or later by a handler.
    """
    how: dict[str, Any] = {
        "echo": {"unlimited": ("any",)},
        "limited echo": {},
        "handler": {"handler": attrgetter("payload")},
        "timed": {"service": "echoplus", "protocols": ("udp",)},
    }[request.param]

    def begin(kind: str, before: Callable[[int], object] = lambda _: None) -> Served:
        host, passed = KINDS[kind]
        with network.server.entered():
            if not passed:
                udp = serving.udp(host=host, start=False, **how, **ANYBODY)
                before(udp.local[1])
                udp.start()
                return udp
            sock = as_systemd(socket.SOCK_DGRAM, host)
            before(sock.getsockname()[1])
            [opened] = activation.adopt([ActivatedSocket(sock, "echo")], (listener(),), {})
            return serving.udp(opened.sock, **how, **ANYBODY)

    return begin


@pytest.mark.parametrize(("kind", "host", "asked"), ASKED)
def test_the_answer_comes_from_whom_was_asked(
    kind: str,
    host: str,
    asked: str,
    network: Network,
    serve: Callable[..., Served],
    serving: Serving,
) -> None:
    """On a host with two addresses on one interface, and another one on a second, the answer comes
    from the address that was asked, which is in the record, too.
    """
    udp = serve(kind)
    with network.asker(host) as asker:
        for payload in (b"1", b"2"):
            asker.sendto(payload, (asked, udp.local[1]))
            answer, address = asker.recvfrom(10)
            assert (answer, address[0]) == (payload, asked)
    began, *_ = serving.told(FlowBegan)  # another one follows a silence
    assert (began.local_address, began.peer_address) == (asked, host)


@pytest.mark.parametrize(("kind", "host", "asked"), ASKED + LINKED)
def test_so_does_the_answer_to_what_came_first(
    kind: str, host: str, asked: str, network: Network, serve: Callable[..., Served]
) -> None:
    """The datagram that made systemd start the daemon came before anybody asked the kernel to keep
    its address; it is answered like the next one.
    """
    linked = (host, asked) in LINK_LOCAL
    with network.asker(host, "c0" if linked else "") as asker:

        def ask(port: int) -> None:
            scope = (0, network.scope("c0")) if linked and ":" in asked else ()
            asker.sendto(b"first", (asked, port, *scope))

        udp = serve(kind, ask)
        assert asker.recvfrom(10)[1][0].partition("%")[0] == asked
        ask(udp.local[1])
        assert asker.recvfrom(10)[1][0].partition("%")[0] == asked


@pytest.mark.parametrize(("kind", "host", "asked"), LINKED)
def test_the_answer_takes_the_link_that_was_asked(
    kind: str,
    host: str,
    asked: str,
    network: Network,
    serve: Callable[..., Served],
    serving: Serving,
) -> None:
    """On two links with the same link-local addresses each peer gets its own answer."""
    udp = serve(kind)
    with ExitStack() as stack:
        askers = {
            name: stack.enter_context(network.asker(host, name))
            for name in ("c0", "c1", "c0", "c1")
        }
        for _ in range(3):
            for name, asker in askers.items():
                scope = (0, network.scope(name)) if ":" in asked else ()
                asker.sendto(name.encode(), (asked, udp.local[1], *scope))
            for name, asker in askers.items():
                answer, address = asker.recvfrom(10)
                assert (answer.decode(), address[0].partition("%")[0]) == (name, asked)
                assert nothing_more(asker)
                asker.settimeout(SECONDS)
        for name, asker in askers.items():  # those who are known, one at a time
            scope = (0, network.scope(name)) if ":" in asked else ()
            asker.sendto(b"alone", (asked, udp.local[1], *scope))
            assert asker.recv(10) == b"alone"
    peers = {began.peer_address for began in serving.told(FlowBegan, 2)}
    assert peers == ({f"{host}%s0", f"{host}%s1"} if ":" in host else {host})


GROUPS = [
    ("own IPv4", "10.9.0.9", "10.9.0.255"),
    ("own IPv4", "10.9.0.9", "255.255.255.255"),
    ("own IPv4", "10.9.0.9", "224.0.0.1"),
    ("own IPv6", "fd09::9", "ff02::1"),
    ("passed IPv4", "10.9.0.9", "10.9.0.255"),
    ("passed dual-stack", "10.9.0.9", "255.255.255.255"),
    ("passed dual-stack", "fd09::9", "ff02::1"),
]


CALLED = {
    "10.9.0.255": "a broadcast address",
    "255.255.255.255": "the broadcast address",
    "224.0.0.1": "a multicast address",
    "ff02::1": "a multicast address",
}
"""What the record of a refusal calls the destination."""


@pytest.mark.parametrize(("kind", "host", "group"), GROUPS)
def test_broadcast_and_multicast_are_never_answered(
    kind: str,
    host: str,
    group: str,
    network: Network,
    serve: Callable[..., Served],
    serving: Serving,
) -> None:
    """A datagram to many hosts is refused, told once and counted, while others are answered."""
    udp = serve(kind)
    with network.asker(host, "c0") as asker:
        scope = (0, network.scope("c0")) if group.startswith("ff02:") else ()
        for _ in range(3):
            asker.sendto(b"everybody", (group, udp.local[1], *scope))
        refused = serving.only(Refused)
        asker.sendto(b"you", ("fd09::1" if ":" in host else "10.9.0.1", udp.local[1]))
        assert asker.recv(100) == b"you"
        assert nothing_more(asker)
    assert (refused.reason, refused.local_address) == ("destination", group)
    assert refused.rule == f"{group} is {CALLED[group]}"
    serving.stop_listening()
    assert serving.only(RefusedAgain).times == 2
    assert [flow.datagrams_sent for flow in serving.so_far(FlowEnded)] == [1]


@pytest.mark.parametrize("kind", ["passed dual-stack", "passed IPv4"])
def test_what_looks_like_no_broadcast_is_not_answered_either(
    kind: str, network: Network, serve: Callable[..., Served], serving: Serving
) -> None:
    """Where the kernel does not say that a datagram was sent to a network's broadcast address (on
    a dual-stack socket, or before it was asked to) it takes no answer from there either.
    """
    with network.asker("10.9.0.9", "c0") as asker:
        udp = serve(kind, lambda port: asker.sendto(b"everybody", ("10.9.0.255", port)))
        asker.sendto(b"you", ("10.9.0.1", udp.local[1]))
        assert asker.recv(100) == b"you"
        assert nothing_more(asker)
    flows = {flow.local_address: flow for flow in serving.told(FlowEnded, 2)}
    assert (flows["10.9.0.255"].datagrams_sent, flows["10.9.0.255"].datagrams_unsent) == (0, 1)


ROUTES = {
    "10.9.0.11": ("blackhole", "EINVAL: Invalid argument"),
    "10.9.0.12": ("unreachable", "EHOSTUNREACH: No route to host"),
    "10.9.0.13": ("prohibit", "EACCES: Permission denied"),
    "10.9.0.14": ("throw", "ENETUNREACH: Network is unreachable"),
}


def test_an_unreachable_peer_is_alone_with_it(
    network: Network, serving: Serving, serve: Callable[..., Served]
) -> None:
    """Where the routes let no answer through to some peers, all others in the batch have theirs,
    and the summary of each peer says what happened.
    """
    good = [f"10.9.0.{last}" for last in (9, 10, 15, 16, 17)]
    hosts = [host for pair in zip(good, [*ROUTES, ""], strict=True) for host in pair if host]
    with ExitStack() as stack:
        for host, (kind, _) in ROUTES.items():
            network.server.ip(f"route add {kind} {host}/32")
            stack.callback(network.server.ip, f"route del {kind} {host}/32")
        askers = {host: stack.enter_context(network.asker(host)) for host in hosts}

        def ask(port: int) -> None:
            for asker in askers.values():
                asker.sendto(b"hello", ("10.9.0.1", port))

        udp = serve("own IPv4", ask)
        for host in good:
            assert askers[host].recv(10) == b"hello"
        assert all(nothing_more(askers[host]) for host in ROUTES)
        flows = {flow.peer_address: flow for flow in serving.told(FlowEnded, len(hosts))}
    for host in hosts:
        _, error = ROUTES.get(host, ("", ""))
        assert (flows[host].error, flows[host].datagrams_unsent) == (error, bool(error))
    assert udp.counters.datagrams_unsent == len(ROUTES)
