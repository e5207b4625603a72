"""netsrvd.snapshot"""

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

from netsrvd import snapshot
from netsrvd.counters import ByReason, Counters, RunFigures
from netsrvd.tcp import TCPListener
from netsrvd.udp import UDPListener


class FakeTCP(TCPListener):
    """A listener of which a snapshot reads figures alone."""

    __slots__ = ("connections_of",)
    live = pending = 3

    def __init__(self, moved: list[tuple[int, int]]) -> None:
        self.settings = SimpleNamespace(name="echo", service="echo", max_connections=10)
        self.counters = Counters(bytes_received=100, bytes_sent=200, closed=ByReason(idle=1))
        self.connections_of = [
            SimpleNamespace(bytes_received=received, bytes_sent=sent) for received, sent in moved
        ]


class FakeUDP(UDPListener):
    """The same of datagrams."""

    __slots__ = ()
    flows = 5

    def __init__(self) -> None:
        self.settings = SimpleNamespace(name="echo", service="echo")
        self.counters = Counters(datagrams_received=7)


def value_of(steps: Generator[None, None, snapshot.Snapshot]) -> snapshot.Snapshot:
    """Return what the rest of the steps leads to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def taken(server: Any) -> snapshot.Snapshot:
    """Return the figures now."""
    return value_of(snapshot.steps(server))


def server(*listeners: Any) -> Any:
    """Return what a snapshot reads of a server."""
    lag = SimpleNamespace(lag=SimpleNamespace(highest=lambda now: 0.25))
    return SimpleNamespace(
        figures=RunFigures(start_time=1000.5),
        log_writer=SimpleNamespace(written=11, lost=2),
        retired=Counters(accepted=50),
        limit=SimpleNamespace(limit=99),
        loops=(lag, lag),
        listeners=lambda: listeners,
        sockets=(),
        connections_of=lambda listener: listener.connections_of,
    )


def test_the_bytes_of_live_connections_are_counted() -> None:
    """They are added to those of connections that have ended, and the listener's stay."""
    listener = FakeTCP([(1, 2), (3, 4)])
    [found] = taken(server(listener)).listeners
    assert (found.counters.bytes_received, found.counters.bytes_sent) == (104, 206)
    assert (found.gauges.connections, found.gauges.connections_pending) == (2, 3)
    assert listener.counters.bytes_received == 100


def test_a_connection_that_ends_meanwhile_is_counted_once() -> None:
    """Totals do not fall and nothing is counted twice, whatever ends between two steps."""
    listener = FakeTCP([(1, 1)] * 2500)
    steps = snapshot.steps(server(listener))
    next(steps)
    for each in listener.connections_of:
        each.bytes_received += 1
        listener.counters.bytes_received += each.bytes_received
    listener.connections_of = []
    before = value_of(steps).listeners[0].counters.bytes_received
    after = taken(server(listener)).listeners[0].counters.bytes_received
    assert (before, after) == (100 + 1000 + 2 * 1500, 100 + 2 * 2500)


def test_a_listener_that_is_removed_meanwhile_is_counted_once() -> None:
    """A reload between two steps moves its counts to those of the listeners that are gone."""
    found = server(FakeTCP([(1, 1)] * 2500))
    steps = snapshot.steps(found)
    next(steps)
    found.retired = Counters(accepted=50, bytes_received=2600)
    found.listeners = list
    assert value_of(steps).totals.bytes_received == 2600
    assert taken(found).totals.bytes_received == 2600


def test_no_step_looks_at_more_than_a_thousand_connections() -> None:
    """With 10,000 connections there are ten steps."""
    steps = snapshot.steps(server(FakeTCP([(1, 1)] * 10_000)))
    assert len(list(steps)) == 10


def test_small_listeners_share_a_step() -> None:
    """A pause follows each step: 5000 of them would take longer than `netsrvd status` waits."""
    steps = snapshot.steps(server(*[FakeTCP([(1, 1)])] * 1000))
    assert 50 <= len(list(steps)) <= 200


def test_totals_have_what_removed_listeners_counted() -> None:
    """The sums are those of the run."""
    totals = taken(server(FakeTCP([]), FakeUDP())).totals
    assert (totals.accepted, totals.datagrams_received) == (50, 7)


def test_samples_have_the_labels_of_their_figure() -> None:
    """A listener has figures of its protocol alone; a count by reason is one sample a reason."""
    found = list(snapshot.samples(taken(server(FakeTCP([]), FakeUDP()))))
    by_name: dict[str, list[Any]] = {}
    for each in found:
        by_name.setdefault(each.definition.name, []).append((each.labels, each.value))
    assert by_name["start_time"] == [({}, 1000.5)]
    assert by_name["log_records_lost"] == [({}, 2)]
    assert by_name["tcp_lag"] == [({}, 0.25)]
    assert by_name["flows_live"] == [({"listener": "echo", "protocol": "udp"}, 5)]
    assert len(by_name["bytes_received"]) == 2
    idle = {"listener": "echo", "protocol": "tcp", "reason": "idle"}
    assert (idle, 1) in by_name["closed"]
