"""A snapshot of all figures of a run, taken in steps so that no client waits for it.

`steps` yields after each thousand connections, so that the event loop that takes the next step
later can serve clients meanwhile; its value is the snapshot. `samples` are the numbers of it.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

import netsrvd
from netsrvd.connection import Connection
from netsrvd.counters import ByReason, Counters, Definition, Gauges, RunFigures, definitions
from netsrvd.event_loop import EventLoop
from netsrvd.log.writer import LogWriter
from netsrvd.sockets.bind import ListeningSocket
from netsrvd.tcp import ConnectionLimit, TCPListener
from netsrvd.udp import UDPListener

CONNECTIONS_PER_STEP = 1000
"""Connections whose bytes are added in one step, which takes 0.1 ms."""

CONNECTIONS_PER_LISTENER = 100
"""A listener takes as long as this many connections."""


class Served(Protocol):
    """What is read of the server."""

    figures: RunFigures
    log_writer: LogWriter
    limit: ConnectionLimit
    """Of all connections together."""

    @property
    def retired(self) -> Counters:
        """Return what listeners have counted that were removed."""

    @property
    def loops(self) -> tuple[EventLoop, EventLoop]:
        """Return the loops of TCP and UDP."""

    def listeners(self) -> "Sequence[TCPListener | UDPListener]":
        """Return the listeners (any thread)."""

    @property
    def sockets(self) -> Sequence[ListeningSocket]:
        """Return the sockets (any thread)."""

    def connections_of(self, listener: TCPListener) -> Sequence[Connection]:
        """Return the connections of a listener, those of handlers too (any thread)."""


class Address(NamedTuple):
    """An address that a listener serves."""

    host: str
    port: int
    origin: str
    """`bound` by the daemon itself, or passed by `systemd`."""
    problem: str
    """The settings that this socket, passed by systemd, does not put into force; or nothing."""


class ListenerFigures(NamedTuple):
    """The figures of one listener and protocol."""

    name: str
    service: str
    protocol: str
    addresses: tuple[Address, ...]
    """Empty for a listener that was removed, while connections of it are live."""
    counters: Counters
    """With the bytes of live connections, too."""
    gauges: Gauges


class Snapshot(NamedTuple):
    """The figures of a run."""

    version: str
    run: RunFigures
    listeners: tuple[ListenerFigures, ...]
    retired: Counters
    """The sums of listeners that were removed by a reload."""
    totals: Counters
    """The sums of all listeners since the start of the run."""


class Sample(NamedTuple):
    """One number."""

    definition: Definition
    labels: dict[str, str]
    """`listener` and `protocol` unless it is a figure of the whole run; `reason` if it has one."""
    value: float


def steps(server: Served) -> Generator[None, None, Snapshot]:
    """Return the figures as the value of a generator, which yields between its steps.

    Totals never fall from one snapshot to the next, if the steps run in the tcp loop: a connection
    that ends meanwhile is counted once.
    """
    sockets: dict[tuple[str, str], list[ListeningSocket]] = {}
    for one in server.sockets:
        sockets.setdefault((one.listener.name, one.protocol), []).append(one)
    # Both at once: a listener that is removed meanwhile is counted in one of them.
    present, retired = server.listeners(), server.retired
    totals = retired
    listeners = []
    done = 0
    for listener in present:
        counters, gauges = listener.counters.copy(), Gauges()
        if isinstance(listener, TCPListener):
            connections = server.connections_of(listener)  # in the same step as the copy
            gauges.connections = len(connections)
            gauges.connections_pending = listener.pending
            gauges.connections_limit = listener.settings.max_connections
            for start in range(0, len(connections), CONNECTIONS_PER_STEP):
                some = connections[start : start + CONNECTIONS_PER_STEP]
                counters.bytes_received += sum([each.bytes_received for each in some])
                counters.bytes_sent += sum([each.bytes_sent for each in some])
                done += len(some)
                if done >= CONNECTIONS_PER_STEP:
                    done = 0
                    yield
        else:
            gauges.flows_live = listener.flows
        settings = listener.settings
        protocol = "tcp" if isinstance(listener, TCPListener) else "udp"
        addresses = tuple(_addresses(sockets.get((settings.name, protocol), ())))
        listeners.append(
            ListenerFigures(settings.name, settings.service, protocol, addresses, counters, gauges)
        )
        totals += counters
        done += CONNECTIONS_PER_LISTENER
        if done >= CONNECTIONS_PER_STEP:
            done = 0
            yield
    run, log = RunFigures(**vars(server.figures)), server.log_writer
    run.connections_limit = server.limit.limit
    run.log_records, run.log_records_lost = log.written, log.lost
    run.tcp_lag, run.udp_lag = (loop.lag.highest(monotonic()) for loop in server.loops)
    return Snapshot(netsrvd.__version__, run, tuple(listeners), retired, totals)


def samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Yield each number of a snapshot: those of a metric one after the other."""
    for figures in (RunFigures, Gauges, Counters):
        for definition in definitions(figures):
            if figures is RunFigures:
                yield from _values(definition, snapshot.run, {})
                continue
            for each in snapshot.listeners:
                if each.protocol in definition.protocols:
                    labels = {"listener": each.name, "protocol": each.protocol}
                    owner = each.gauges if figures is Gauges else each.counters
                    yield from _values(definition, owner, labels)


def _values(definition: Definition, owner: object, labels: dict[str, str]) -> Iterator[Sample]:
    value = vars(owner)[definition.name]
    if isinstance(value, ByReason):
        for reason, count in value.items():
            yield Sample(definition, {**labels, definition.label: reason}, count)
    else:
        yield Sample(definition, labels, value)


def _addresses(sockets: Iterable[ListeningSocket]) -> Iterator[Address]:
    for one in sockets:
        try:
            host, port = one.address()
        except OSError:  # a reload has closed it meanwhile
            continue
        yield Address(host, port, one.origin, one.problem)
