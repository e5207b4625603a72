"""What becomes of a connection that was accepted: it is let in, refused, or waits for its proxy."""

import socket
import struct
from collections.abc import Callable
from functools import partial
from itertools import cycle
from time import monotonic

from netsrvd.addresses import host_and_port, is_among
from netsrvd.counters import Counters
from netsrvd.listeners import visitor
from netsrvd.listeners.capacity import Capacity
from netsrvd.listeners.connection import Connection, Take
from netsrvd.listeners.contracts import ConnectionGate, Refusal, Report, StreamFactory
from netsrvd.listeners.proxies.lobby import NO_PROXY, Guest, Lobby
from netsrvd.listeners.refusals import NOT_CONFIGURED, Addresses, Peer, Refusals
from netsrvd.listeners.worker import Worker
from netsrvd.settings import ListenerSettings

RESET = struct.pack("ii", 1, 0)
"""struct linger: a close sends a reset (SO_LINGER in socket(7))."""


class Entrance:
    """The way from accept to the workers, of one listener. Owned by its acceptor's thread.

    A connection that `admit` is given has a place; whatever way one ends, its place is given back.
    `on_lobby` is given the descriptor of a lobby, to be watched, when there is a use for one.
    """

    __slots__ = (
        *("_capacity", "_counters", "_gate", "_identify", "_on_lobby", "_report", "_service"),
        *("_settings", "_take_over", "_turns", "_workers", "lobby", "refusals", "visitor"),
    )

    def __init__(
        self,
        settings: ListenerSettings,
        gate: ConnectionGate,
        service: StreamFactory,
        workers: list[Worker],
        capacity: Capacity,
        report: Report,
        identify: Callable[[], str],
        counters: Counters,
        on_lobby: Callable[[int], None],
        take: Take | None,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._service, self._take_over = service, take
        self._workers = workers
        self._turns = cycle(workers)
        self._capacity = capacity
        self._report = report
        self._identify = identify
        self._counters = counters
        self._on_lobby = on_lobby
        self.refusals = Refusals(report, settings, "tcp")
        self.visitor = visitor.Visitor(counters)
        self.lobby: Lobby | None = None
        self._furnish()

    def update(self, settings: ListenerSettings, service: StreamFactory, take: Take | None) -> None:
        """Let in by new settings from now on."""
        self._settings, self._service, self._take_over = settings, service, take
        self._gate.update(settings)
        self._capacity.update(settings)
        self.refusals.update(settings)
        if self.lobby:
            self.lobby.update(settings, self._gate.is_proxy, monotonic())
        self._furnish()

    def has_room(self, wake: Callable[[], None]) -> bool:
        """Return whether the workers have taken what they were given; if not, one calls `wake`."""
        return all(worker.has_room(wake) for worker in self._workers)

    def admit(
        self, sock: socket.socket, peer: Peer, now: float, addresses: Addresses = None
    ) -> None:
        """Take a connection; one of a proxy waits until its client is known.

        One that came to none of `addresses` is reset.
        """
        if self.visitor.is_it(peer):
            self._capacity.give_back()  # or it would take the last one, and be told as a crowd
            next(self._turns).take(visitor.welcomed(sock, peer))
            return
        self._capacity.live += 1
        if addresses is not None and not _is_served(sock, addresses):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._dismiss(sock, peer, NOT_CONFIGURED, now, None)
        elif self.lobby and self._gate.is_proxy(peer[0]):
            self.lobby.admit(sock, peer, now)
        else:
            self._enter(sock, peer, None, now)

    def adopt(self, connection: Connection) -> None:
        """Take a connection that the process before let in, whether there is room or not."""
        self._capacity.take_anyway()
        connection.departed = partial(self._departed, self._gate.enter(connection.peer[0]))
        next(self._turns).take(connection)

    def adopt_guest(self, guest: Guest) -> None:
        """Take a connection that waited for its header in the process before."""
        self._capacity.take_anyway()
        if self.lobby and self._gate.is_proxy(guest.peer[0]):
            self.lobby.readmit(guest)
        else:
            self._dismiss(guest.sock, guest.peer, NO_PROXY, monotonic(), None)

    def refuse(
        self, sock: socket.socket, peer: Peer, refusal: Refusal, now: float, proxy: Peer | None
    ) -> None:
        """Close a connection that has no place; tell why."""
        local = host_and_port(sock.getsockname())
        self._counters.refused += 1
        sock.close()
        self.refusals.add(refusal, peer, local, now, proxy)

    def close(self, now: float, left: list[Guest] | None) -> None:
        """Let nobody in any more. Those who wait for their headers are put into `left`.

        Without that they are turned away.
        """
        if self.lobby:
            if left is not None:
                left += self.lobby.leave()
            self.lobby.close(now)
        self.refusals.settle(now, all_of_them=True)

    def _furnish(self) -> None:
        """Have a lobby from the first proxy on."""
        if self._settings.proxies and not self.lobby:
            self.lobby = Lobby(self._settings, self._counters, self._enter, self._dismiss)
            self._on_lobby(self.lobby.fileno())

    def _enter(self, sock: socket.socket, peer: Peer, proxy: Peer | None, now: float) -> None:
        """Let a client in, or refuse it."""
        refusal = self._gate.refusal(peer[0], now)
        if refusal:
            self._dismiss(sock, peer, refusal, now, proxy)
            return
        sock.setblocking(False)
        connection = Connection(
            sock,
            self._identify(),
            peer,
            host_and_port(sock.getsockname()),
            self._settings,
            self._service,
            partial(self._departed, self._gate.enter(peer[0])),
            monotonic(),
            proxy,
        )
        self._counters.accepted += 1
        connection.is_logged = not self._gate.is_unlogged(peer[0])
        if connection.is_logged:
            self._report(connection.accepted())
        (self._take_over or next(self._turns).take)(connection)

    def _dismiss(
        self, sock: socket.socket, peer: Peer, why: Refusal | None, now: float, proxy: Peer | None
    ) -> None:
        """End a connection that has a place but did not come in; tell why if there is a reason."""
        self._capacity.live -= 1
        self._capacity.give_back()
        if why:
            self.refuse(sock, peer, why, now, proxy)
        else:
            sock.close()

    def _departed(self, source: str) -> None:
        """Tell that a connection has ended (called by workers)."""
        self._capacity.departed(self._depart, source)

    def _depart(self, source: str) -> None:
        self._capacity.live -= 1
        self._gate.leave(source)


def _is_served(sock: socket.socket, addresses: frozenset[str]) -> bool:
    return bool(addresses) and is_among(host_and_port(sock.getsockname())[0], addresses)
