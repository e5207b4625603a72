"""The methods of the control socket. Each reads figures of the server, in steps."""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from heapq import nlargest
from itertools import islice
from time import monotonic
from typing import Any, Protocol, TypeVar

import netsrvd
from netsrvd.access.access_list import AccessList, checked_entry
from netsrvd.addresses import shown
from netsrvd.connection import Connection
from netsrvd.control import interface
from netsrvd.control.callers import (
    INTERFACE,
    SERVICE,
    Answer,
    Caller,
    CallError,
    Reply,
    Written,
    compact,
    invalid,
)
from netsrvd.counters import Counters, Gauges, definitions
from netsrvd.flow import Flow
from netsrvd.run_state import RunNotes
from netsrvd.samples import Samples, Totals
from netsrvd.snapshot import ListenerFigures, Served, Snapshot, steps
from netsrvd.tcp import TCPListener
from netsrvd.udp import UDPListener

MOST_SOURCES = 1000
USUAL_SOURCES = 20

ITEMS_PER_STEP = 500
"""Connections, flows or sources that are looked at in one step, in less than 0.2 ms."""

ITEMS_PER_LISTENER = 20
"""To look at a listener without any takes as long as this many items."""

REPLIES_PER_STEP = 20
"""Connections, flows, listeners or sources that are written in one step, in 0.3 ms."""

One = TypeVar("One", Connection, Flow)
Entry = TypeVar("Entry")


class Looked(Served, Protocol):
    """What the methods read of the server, besides what a snapshot reads."""

    notes: RunNotes
    samples: Samples | None
    began_at: float


class Methods:
    """Answers calls that read a server. Owned by the event loop of the control socket."""

    def __init__(self, server: Looked) -> None:
        self._server = server
        self._methods: dict[str, tuple[tuple[str, ...], Callable[..., Answer]]] = {
            f"{SERVICE}.GetInfo": ((), self._get_info),
            f"{SERVICE}.GetInterfaceDescription": (("interface",), self._describe),
            f"{INTERFACE}.Status": ((), self._status),
            f"{INTERFACE}.Listeners": ((), self._listeners),
            f"{INTERFACE}.Connections": (("listener", "address"), self._connections),
            f"{INTERFACE}.Flows": (("listener", "address"), self._flows),
            f"{INTERFACE}.TopSources": (("count",), self._top_sources),
            f"{INTERFACE}.RefusedSources": (("count",), self._refused_sources),
        }

    def __call__(self, method: str, parameters: dict[str, Any], caller: Caller) -> Answer:
        """Return the answer to a call. Raises CallError."""
        if method not in self._methods:
            name = method.rpartition(".")[0]
            if name in (SERVICE, INTERFACE):
                raise CallError(f"{SERVICE}.MethodNotFound", method=method)
            raise CallError(f"{SERVICE}.InterfaceNotFound", interface=name)
        known, call = self._methods[method]
        for name in parameters.keys() - {*known}:
            raise invalid(name)
        given = {name: value for name, value in parameters.items() if value is not None}
        if method in (f"{INTERFACE}.Connections", f"{INTERFACE}.Flows") and not caller.wants_more:
            raise CallError(f"{SERVICE}.ExpectedMore")
        return call(**given)

    # --- about itself -------------------------------------------------------------------------

    def _get_info(self) -> Answer:
        yield {
            "vendor": interface.VENDOR,
            "product": interface.PRODUCT,
            "version": netsrvd.__version__,
            "url": interface.URL,
            "interfaces": [SERVICE, INTERFACE],
        }

    def _describe(self, interface: object = None) -> Answer:
        texts = {SERVICE: _VARLINK, INTERFACE: _text()}
        if not isinstance(interface, str):
            raise invalid("interface")
        if interface not in texts:
            raise CallError(f"{SERVICE}.InterfaceNotFound", interface=interface)
        yield {"description": texts[interface]}

    # --- figures ------------------------------------------------------------------------------

    def _status(self) -> Answer:
        server = self._server
        snapshot = yield from steps(server)
        totals, notes, now = snapshot.totals, server.notes, monotonic()
        samples = server.samples or Samples()
        reply = {
            "version": snapshot.version,
            "pid": os.getpid(),
            "seconds": now - server.began_at,
            "configuration": notes.configuration,
            "fault": notes.fault,
            "problems": list(notes.problems),
            "run": vars(snapshot.run),
            "connections": sum(each.gauges.connections for each in snapshot.listeners),
            "flows": sum(each.gauges.flows_live for each in snapshot.listeners),
            "totals": vars(totals),
            "rates": [
                {"seconds": each.seconds, **each.a_second()}
                for each in samples.rates(now, totals_of(snapshot, totals))
            ],
        }
        yield from _written(reply, "listeners", map(_listener, snapshot.listeners))

    def _listeners(self) -> Answer:
        snapshot = yield from steps(self._server)
        yield from _written({}, "listeners", map(_listener, snapshot.listeners))

    # --- lists --------------------------------------------------------------------------------

    def _chosen(self, listener: object) -> list[TCPListener | UDPListener]:
        """Return the listeners of a name, or all of them. Raises CallError."""
        found = self._server.listeners()
        if listener is None:
            return list(found)
        if not isinstance(listener, str):
            raise invalid("listener")
        chosen = [each for each in found if each.settings.name == listener]
        if not chosen:
            raise CallError(f"{INTERFACE}.NoSuchListener", listener=listener)
        return chosen

    def _connections(self, listener: object = None, address: object = None) -> Answer:
        is_meant = _filter(address)
        found = [
            connection
            for each in self._chosen(listener)
            if isinstance(each, TCPListener)
            for connection in self._server.connections_of(each)
        ]
        yield from _listed("connection", found, is_meant, _connection)

    def _flows(self, listener: object = None, address: object = None) -> Answer:
        is_meant = _filter(address)
        found = [
            flow
            for each in self._chosen(listener)
            if isinstance(each, UDPListener)
            for flow in each.live_flows()
        ]
        yield from _listed("flow", found, is_meant, _flow)

    def _top_sources(self, count: object = USUAL_SOURCES) -> Answer:
        most = _checked_count(count)
        found: dict[tuple[str, str, str], list[int]] = {}
        for listener in self._server.listeners():
            lives: Sequence[Connection | Flow]
            if isinstance(listener, TCPListener):
                lives, protocol = list(self._server.connections_of(listener)), "tcp"
            else:
                lives, protocol = listener.live_flows(), "udp"
            name = listener.settings.name
            for number, one in enumerate(lives, 1):
                sums = found.setdefault((one.source.name, name, protocol), [0, 0, 0])
                sums[0] += 1
                sums[1] += one.bytes_received
                sums[2] += one.bytes_sent
                if number % ITEMS_PER_STEP == 0:
                    yield None
        yield None
        widest = yield from _highest(found.items(), most, lambda item: item[1])
        names = ("source", "listener", "protocol", "live", "bytes_received", "bytes_sent")
        rows = ((*key, *sums) for key, sums in widest)
        yield from _written({}, "sources", (dict(zip(names, row, strict=True)) for row in rows))

    def _refused_sources(self, count: object = USUAL_SOURCES) -> Answer:
        most = _checked_count(count)
        found: list[tuple[int, str, str, str, str]] = []
        done = 0
        for listener in self._server.listeners():
            protocol = "tcp" if isinstance(listener, TCPListener) else "udp"
            before = len(found)
            for source, reason, times in listener.refused_sources():
                found.append((times, source, listener.settings.name, protocol, reason))
            done += len(found) - before + ITEMS_PER_LISTENER
            if done >= ITEMS_PER_STEP:
                done = 0
                yield None
        widest = yield from _highest(found, most, lambda each: each)
        names = ("times", "source", "listener", "protocol", "reason")
        yield from _written({}, "sources", (dict(zip(names, row, strict=True)) for row in widest))


_VARLINK, _text = interface.VARLINK, interface.text


def totals_of(snapshot: Snapshot, totals: Counters) -> Totals:
    """Return the sums whose growth is shown."""
    return Totals(
        totals.accepted,
        totals.refused.total + totals.datagrams_refused.total,
        totals.bytes_received,
        totals.bytes_sent,
        totals.datagrams_received,
        totals.datagrams_sent,
        snapshot.run.log_records_lost,
    )


def _highest(
    entries: Iterable[Entry], count: int, key: Callable[[Entry], Any]
) -> Generator[None, None, list[Entry]]:
    """Return the entries with the highest keys, the highest first; some are looked at in a step."""
    left, highest = iter(entries), list[Entry]()
    while some := list(islice(left, ITEMS_PER_STEP)):
        highest = nlargest(count, [*highest, *some], key=key)
        yield None
    return highest


def _checked_count(count: object) -> int:
    if type(count) is not int or not 0 < count <= MOST_SOURCES:
        raise invalid("count")
    return count


def _filter(address: object) -> Callable[[str], bool]:
    """Return what says whether a peer is in an address or network; all are in None."""
    if address is None:
        return lambda _: True
    try:
        entry = AccessList((checked_entry(address),))
    except ValueError:
        raise invalid("address") from None
    return lambda host: not entry.denied_by(host)


def _listed(
    name: str,
    found: Sequence[One],
    is_meant: Callable[[str], bool],
    shown_as: Callable[[One, float], Reply],
) -> Answer:
    """Yield a reply for each connection or flow that is meant, some in a step."""
    replies: list[Reply] = []
    for number, one in enumerate(found, 1):
        if is_meant(one.peer[0]):
            replies.append({name: shown_as(one, monotonic())})
        if len(replies) == REPLIES_PER_STEP or number % ITEMS_PER_STEP == 0:
            yield replies
            replies = []
    yield replies


def _written(reply: Reply, name: str, entries: Iterable[Reply]) -> Answer:
    """Yield a reply with these entries as its list `name`; some are made and written in a step."""
    left, texts = iter(entries), list[str]()
    while some := list(islice(left, REPLIES_PER_STEP)):
        texts.append(compact(some)[1:-1])
        yield None
    comma = "," if reply else ""
    yield Written(f'{compact(reply)[:-1]}{comma}"{name}":[{",".join(texts)}]}}')


def _listener(figures: ListenerFigures) -> dict[str, Any]:
    def own(kind: type[Counters] | type[Gauges], values: Mapping[str, Any]) -> dict[str, Any]:
        names = [each.name for each in definitions(kind) if figures.protocol in each.protocols]
        return {name: values[name] for name in names}

    return {
        "name": figures.name,
        "service": figures.service,
        "protocol": figures.protocol,
        "addresses": [each._asdict() for each in figures.addresses],
        "gauges": own(Gauges, vars(figures.gauges)),
        "counters": own(Counters, vars(figures.counters)),
    }


def _peers(one: Connection | Flow, now: float) -> dict[str, Any]:
    return {
        "peer_address": one.peer[0],
        "peer_port": one.peer[1],
        "local_address": one.local[0],
        "local_port": one.local[1],
        "proxy": shown(*one.proxy) if one.proxy else "",
        "seconds": max(0.0, now - one.opened_at),
        "idle_seconds": max(0.0, now - one.active_at),
        "bytes_received": one.bytes_received,
        "bytes_sent": one.bytes_sent,
    }


def _connection(one: Connection, now: float) -> dict[str, Any]:
    waiting = one.send_buffer
    return {
        "id": one.connection_id,
        "listener": one.listener,
        "service": one.service_name,
        **_peers(one, now),
        "send_buffer_bytes": 0 if waiting is None else len(waiting),
    }


def _flow(one: Flow, now: float) -> dict[str, Any]:
    return {
        "listener": one.settings.name,
        "service": one.settings.service,
        **_peers(one, now),
        "datagrams_received": one.received,
        "datagrams_refused": one.refused,
    }
