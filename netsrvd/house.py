"""The house as it runs: all parts and their threads, from start to stop."""

import itertools
from collections.abc import Callable, Collection, Iterable

from netsrvd.assembly import (
    Mover,
    Services,
    Sockets,
    build_mover,
    build_reporter,
    own_udp_ports,
    update_mover,
)
from netsrvd.config import changes
from netsrvd.counters import Counters
from netsrvd.duty import Duty
from netsrvd.events import LEVELS
from netsrvd.events.life import ThreadFailed
from netsrvd.events.sockets import ListeningEnded
from netsrvd.listeners.acceptor import Acceptor
from netsrvd.listeners.connection import Connection, identities
from netsrvd.listeners.datagram import Receiver
from netsrvd.listeners.inherited import Inherited
from netsrvd.listeners.places import Places
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.listeners.visitor import Rounds
from netsrvd.reporting.reporter import Port
from netsrvd.settings import Endpoint, Settings
from netsrvd.sockets.bind import Opened
from netsrvd.staff import JOIN_SECONDS, HandlerServer, Staff
from netsrvd.tracebacks import traceback_of

MoverKey = tuple[str, str]
"""A listener's name and a protocol."""


class House:
    """All the parts that run. Owned by the main thread.

    `places` is how many connections may be live in all. `wake` is called, in any thread, when a
    thread has failed or a worker has become empty.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        services: Services,
        places: int,
        log: str,
        wake: Callable[[], None],
    ) -> None:
        self._wake = wake
        self._services = services
        services.present.look = self.clients
        self.failures: list[str] = []
        self.reporter = build_reporter(settings, log, self.failed)
        self.report = self.reporter.port()
        self.staff = Staff(settings, self.reporter, wake, self.failed)
        self.staff.hire(services)
        self.identify = identities()
        self._places = Places(places)
        self._sockets: Sockets = {}
        self._movers: dict[MoverKey, Mover] = {}
        self._ports: dict[MoverKey, Port] = {}
        self._retired = Counters()
        self._rounds = Rounds(self.report)
        self._open(sockets)

    @property
    def adopted(self) -> set[MoverKey]:
        """Return the listener and protocol of each socket that systemd passed."""
        return {(end.listener, end.protocol) for end in self._sockets if not end.port}

    @property
    def is_adopted(self) -> bool:
        """Whether systemd has all sockets, and so starts a daemon whenever somebody comes."""
        return bool(self._sockets) and not any(end.port for end in self._sockets)

    def count_sockets(self, endpoints: Iterable[Endpoint]) -> int:
        """Return how many sockets these have: systemd may pass several for one."""
        return sum(len(self._sockets.get(each, ())) for each in endpoints)

    @property
    def connections(self) -> int:
        """How many TCP connections are live."""
        return self.staff.live

    @property
    def drained(self) -> bool:
        """Whether all have ended that were live, or on their way to a worker, at the stop."""
        return self.staff.drained

    def seen(self) -> int:
        """Return how often somebody has come: connections and datagrams, served or refused."""
        counters = self.counters()
        return counters.accepted + counters.refused + counters.datagrams_received

    def progress(self) -> int:
        """Return a number that changes when a byte moves, or a connection ends."""
        counters = self.counters()  # of the bytes of those that have ended
        moved = sum(one.bytes_received + one.bytes_sent for one in self.clients())
        return counters.closed + counters.bytes_received + counters.bytes_sent + moved

    @property
    def is_empty(self) -> bool:
        """Whether there is no TCP connection, be it one that is just being taken."""
        return self._places.are_all

    @property
    def flows(self) -> int:
        """How many UDP flows are live."""
        return sum(mover.flows for mover in self._movers.values() if isinstance(mover, Receiver))

    def clients(self) -> list[Connection]:
        """Return the connections that are live, to be looked at (any thread)."""
        return self.staff.connections()

    def counters(self) -> Counters:
        """Return the sums of all threads since the start."""
        parts = (*self._movers.values(), *self.staff.all)
        return sum((part.counters for part in parts), self._retired)

    def duties(self) -> list[Duty]:
        """Return all threads that must make progress, those who take new clients first."""
        parts = (*self._movers.values(), *self.staff.all, self.reporter)
        return [part.duty for part in parts]

    def is_answering(self) -> bool:
        """Return whether clients are answered: one listener a call is visited by TCP."""
        movers = self._movers.items()
        return self._rounds.is_answering(
            [(name, mover) for (name, _), mover in movers if isinstance(mover, Acceptor)]
        )

    def start(self, *, paused: bool = False) -> None:
        """Start all threads, the log first and those who take new clients last.

        With `paused` no client is taken before `resume`. Raises ResourceError if a thread cannot be
        started.
        """
        if paused:
            for mover in self._movers.values():
                mover.pause(paused=True)
        for duty in reversed(self.duties()):
            duty.start()

    def apply(
        self,
        plan: changes.Plan,
        sockets: Sockets,
        services: Services,
        places: int,
        settings: Settings,
    ) -> None:
        """Change what runs to the new settings. Returns when they are in force.

        New threads are started first. Raises ResourceError, OSError or MemoryError, with `sockets`
        closed and nothing changed, if they cannot be had.
        """
        kept = dict(self._movers)
        openings = self._prepare(sockets, services)
        self._sockets |= sockets
        self._services = services
        self.reporter.level = LEVELS[settings.log.level]
        self._places.resize(places)
        for endpoint in plan.close:  # after that, so that a listener that moves keeps its counts
            self._close(endpoint)
        own_ports = own_udp_ports(self._every_socket())
        served = (plan.keep | plan.open).items()
        for key, listener in {(end.listener, end.protocol): each for end, each in served}.items():
            if key in kept:
                service = services.by_name[listener.name]
                update_mover(kept[key], listener, service, own_ports, self.staff.handle)
        for mover in self._movers.values():
            # Before the workers are told, or a connection that is on its way to one with the old
            # settings would keep them.
            mover.duty.settle(JOIN_SECONDS)
        self.staff.update(settings)
        for serve in openings:
            serve()
        for mover in self._movers.values():
            mover.duty.settle(JOIN_SECONDS)

    def _prepare(self, sockets: Sockets, services: Services) -> list[Callable[[], None]]:
        """Start the threads for new sockets; return the calls that have the sockets served.

        If anything fails, stop those threads, close the sockets, and raise the error.
        """
        known = set(self._movers)
        handlers: list[HandlerServer] = []
        try:
            handlers = self.staff.hire(services)
            for each in handlers:
                each.duty.start()
            openings, built = self._openings(sockets, services)
            for mover in built:
                mover.duty.start()
        except BaseException:
            for key in set(self._movers) - known:
                self._remove(key)
            if handlers:
                self.staff.remove_handlers()
            for opened in itertools.chain.from_iterable(sockets.values()):
                opened.sock.close()
            raise
        return openings

    def _remove(self, key: MoverKey) -> None:
        """Stop a thread that has served nothing."""
        mover = self._movers.pop(key)
        mover.stop()
        mover.duty.join(JOIN_SECONDS)
        self.reporter.give_back(self._ports.pop(key))

    def adopt(self, inherited: Inherited) -> None:
        """Take up what another process left, before the threads start."""
        for connection in inherited.connections:
            mover = self._movers.get((connection.settings.name, "tcp"))
            if isinstance(mover, Acceptor):
                mover.adopt(connection)
            else:  # its listener is gone: it goes on until it ends
                self._places.take_anyway()
                connection.departed = self._places.give_back
                self.staff.take([connection])
        for guest in inherited.guests:
            mover = self._movers.get((guest.listener, "tcp"))
            if isinstance(mover, Acceptor):
                mover.adopt_guest(guest)
            else:  # nobody is there who could let it in
                guest.sock.close()

    def pause(self) -> None:
        """Leave alone what comes from now on; all that came before has been taken."""
        for _ in range(2):  # what a thread had seen before it heard of it, it takes in between
            for mover in self._movers.values():
                mover.pause(paused=True)
            self.settle()

    def resume(self) -> None:
        """Take what comes again."""
        for mover in self._movers.values():
            mover.pause(paused=False)

    def settle(self) -> None:
        """Return when all threads have done what they were asked to do until now."""
        for part in (*self._movers.values(), *self.staff.all):
            part.duty.settle(JOIN_SECONDS)

    def readmit(self, connections: Iterable[Connection]) -> None:
        """Serve connections again that the staff surrendered; returns when they are served."""
        self.staff.take(connections)
        for each in self.staff.all:
            each.duty.settle(JOIN_SECONDS)

    def stop_listening(self, drain_seconds: float, left: list[Guest] | None = None) -> None:
        """Take nobody new any more, and have all tell when the last connection has ended.

        Handlers are told how long they have for that. Those who wait for the headers of their
        proxies are put into `left`, whose owner closes them; without that they are turned away.
        """
        self._stop(self._movers.values(), left)
        self.staff.drain(drain_seconds)

    def stop_handling(self, drain_seconds: float, left: list[Guest]) -> None:
        """Do so for handlers alone; all others are still served, and taken."""
        by_name, movers = self._services.by_name, self._movers.items()
        self._stop([mover for (name, _), mover in movers if by_name[name].handler], left)
        self.staff.drain_handlers(drain_seconds)

    def stop_workers(self) -> int:
        """Close the connections that are left; return how many they were."""
        return self.staff.stop()

    def stop_reporting(self) -> None:
        """Write what is still to be written, as far as the log takes it."""
        self.reporter.stop()
        self.reporter.duty.join(JOIN_SECONDS)

    def _stop(self, movers: Collection[Mover], left: list[Guest] | None) -> None:
        for mover in movers:
            if isinstance(mover, Acceptor):
                mover.stop(left)
            else:
                mover.stop()
        for mover in movers:
            mover.duty.join(JOIN_SECONDS)

    def _every_socket(self) -> Iterable[Opened]:
        return itertools.chain.from_iterable(self._sockets.values())

    def _close(self, endpoint: Endpoint) -> None:
        """Close the sockets of an endpoint, and end the thread that has no other."""
        if endpoint not in self._sockets:  # the kernel lacks its address family
            return
        key = endpoint.listener, endpoint.protocol
        mover = self._movers[key]
        for opened in self._sockets.pop(endpoint):
            where = opened.address()
            mover.close(opened.sock)
            mover.duty.settle(JOIN_SECONDS)
            self.report(ListeningEnded(*key, *where))
        if key not in {(end.listener, end.protocol) for end in self._sockets}:
            mover.stop()
            mover.duty.join(JOIN_SECONDS)
            self._retired += mover.counters
            self.reporter.give_back(self._ports.pop(key))
            del self._movers[key]

    def _open(self, sockets: Sockets) -> None:
        """Take these sockets into service, by threads that are still to be started."""
        openings, _ = self._openings(sockets, self._services)
        self._sockets |= sockets
        for serve in openings:
            serve()

    def _openings(
        self, sockets: Sockets, services: Services
    ) -> tuple[list[Callable[[], None]], list[Mover]]:
        """Build the threads for these sockets that do not run yet.

        Return the calls that have the sockets served, and the threads that were built.
        """
        new = itertools.chain.from_iterable(sockets.values())
        own_ports = own_udp_ports(itertools.chain(self._every_socket(), new))
        openings, built = [], []
        for opened in itertools.chain.from_iterable(sockets.values()):
            key = opened.listener.name, opened.protocol
            if key not in self._movers:
                port = self.reporter.port()
                self._movers[key] = build_mover(
                    opened.protocol,
                    opened.listener,
                    services.by_name[opened.listener.name],
                    own_ports,
                    self._places,
                    self.staff.workers,
                    *(port, self.identify, self.failed, self.staff.handle),
                )
                self._ports[key] = port
                built.append(self._movers[key])
            openings.append(self._movers[key].opening(opened.sock))
        return openings, built

    def failed(self, name: str, error: BaseException) -> None:
        """Report the failure of a thread (called in that thread) and have the process end."""
        text = traceback_of(error)
        self.failures.append(f"thread {name} failed: {error!r}\n{text}")
        self.reporter.put(ThreadFailed(name, repr(error), text))
        self._wake()
