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
from netsrvd.errors import NetsrvdError
from netsrvd.events import LEVELS
from netsrvd.events.life import ThreadFailed
from netsrvd.events.sockets import InterfaceLost, Listening, ListeningEnded
from netsrvd.listeners.acceptor import Acceptor
from netsrvd.listeners.connection import Connection, identities
from netsrvd.listeners.datagram import Receiver
from netsrvd.listeners.inherited import Inherited
from netsrvd.listeners.places import Places
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.listeners.visitor import Rounds
from netsrvd.reporting.reporter import Port
from netsrvd.settings import Endpoint, Settings
from netsrvd.sockets import bind, interfaces
from netsrvd.sockets.activation import bind_to_interface, shares_ports
from netsrvd.sockets.bind import Opened
from netsrvd.sockets.interfaces import Binding
from netsrvd.sockets.options import put_back
from netsrvd.staff import JOIN_SECONDS, HandlerServer, Staff
from netsrvd.tracebacks import described, traceback_of

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
        self._deaf: dict[int, str] = {}
        """The descriptors of sockets that have lost their interface, and what was said of them."""
        self._open(sockets)

    @property
    def passed(self) -> list[Opened]:
        """Return the sockets that systemd passed."""
        return [one for end, opened in self._sockets.items() if not end.port for one in opened]

    @property
    def bound(self) -> set[Endpoint]:
        """Return the endpoints that the daemon has bound itself."""
        return {end for end in self._sockets if end.port}

    @property
    def bound_sockets(self) -> list[tuple[Endpoint, Opened]]:
        """Return the sockets of these endpoints."""
        found = self._sockets.items()
        return [(end, one) for end, opened in found if end.port for one in opened]

    @property
    def is_adopted(self) -> bool:
        """Whether systemd has all sockets, and so starts a daemon whenever somebody comes."""
        return bool(self._sockets) and not any(end.port for end in self._sockets)

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
        passed: list[Opened],
        services: Services,
        places: int,
        settings: Settings,
    ) -> None:
        """Change what runs to the new settings. Returns when they are in force.

        `sockets` are those that were bound for it, `passed` the sockets of systemd's as the new
        settings have them. New threads are started first. Raises ResourceError, OSError or
        MemoryError, with `sockets` closed and nothing changed, if they cannot be had.
        """
        before, kept = self.passed, dict(self._movers)
        moved = _moved(before, passed)
        openings = self._prepare(sockets | moved, services)
        passed = [bind_to_interface(one) for one in passed]
        self._add(sockets)
        self._services = services
        self.reporter.level = LEVELS[settings.log.level]
        self._places.resize(places)
        self._rematch(before, passed)
        for endpoint in plan.close:  # after that, so that a listener that moves keeps its counts
            self._close_all(endpoint)
        own_ports = own_udp_ports(self._every_socket())
        by_name = {listener.name: listener for listener in settings.listeners}
        for (name, protocol), mover in kept.items():
            if self._movers.get((name, protocol)) is not mover:
                continue
            if name in by_name:  # the others only refuse, by their old settings
                service = services.by_name[name]
                update_mover(mover, by_name[name], service, own_ports, self.staff.handle)
        for mover in self._movers.values():
            # Before the workers are told, or a connection that is on its way to one with the old
            # settings would keep them.
            mover.duty.settle(JOIN_SECONDS)
        self.staff.update(settings)
        for serve in openings:
            serve()
        for one in passed:  # the interface of a socket that moves may not have been had
            self._movers[one.listener.name, one.protocol].restrict(one.sock, one.addresses)
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

    def look_at_interfaces(self) -> None:
        """Bind sockets anew whose interface was deleted and is there again; report what is deaf."""
        deaf: dict[int, str] = {}
        for endpoint, all_of in tuple(self._sockets.items()):
            for opened in tuple(all_of):
                interface = interfaces.needed(endpoint, opened)
                if interface and (problem := self._bound(endpoint, opened, interface)):
                    deaf[opened.sock.fileno()] = problem
                    if self._deaf.get(opened.sock.fileno()) != problem:
                        names = endpoint.listener, endpoint.protocol, *opened.address()
                        self.report(InterfaceLost(*names, interface, problem))
        self._deaf = deaf

    def _bound(self, endpoint: Endpoint, opened: Opened, interface: str) -> str:
        """Bind a socket to its interface if it is not; return why that cannot be done now."""
        state = interfaces.state(opened.sock, interface)
        if state is Binding.HELD or not opened.serves:
            return ""
        try:
            if state is Binding.LOST:
                interfaces.bind_again(opened.sock, interface)
            elif opened.origin != "bound":
                return "it is gone; stop its socket unit and the service, and start both"
            elif state is Binding.GONE:
                return "it is gone; the socket is bound anew when it is back"
            else:
                opened = self._replace(endpoint, opened)
        except (NetsrvdError, bind.FamilyMissingError, OSError) as error:
            return f"the socket cannot be bound anew: {error}"
        listener, where = opened.listener, opened.address()
        names = listener.name, listener.service, endpoint.protocol
        self.report(Listening(*names, *where, opened.origin))
        return ""

    def _replace(self, endpoint: Endpoint, opened: Opened) -> Opened:
        """Serve an endpoint by a new socket. After NetsrvdError or OSError nothing has changed."""
        new = bind.open_endpoint(endpoint, opened.listener, share=shares_ports([opened]))
        try:
            serve = self._movers[endpoint.listener, endpoint.protocol].opening(new.sock)
        except BaseException:
            new.sock.close()
            raise
        self._add({endpoint: [new]})
        serve()
        self._close(endpoint, opened)
        return new

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
        self._put_options_back({one.listener.name for one in self.passed})
        self._stop(self._movers.values(), left)
        self.staff.drain(drain_seconds)

    def stop_handling(self, drain_seconds: float, left: list[Guest]) -> None:
        """Do so for handlers alone; all others are still served, and taken."""
        by_name, movers = self._services.by_name, self._movers.items()
        handled = {name for name, service in by_name.items() if service.handler}
        self._put_options_back(handled)
        self._stop([mover for (name, _), mover in movers if name in handled], left)
        self.staff.drain_handlers(drain_seconds)

    def stop_workers(self) -> int:
        """Close the connections that are left; return how many they were."""
        return self.staff.stop()

    def stop_reporting(self) -> None:
        """Write what is still to be written, as far as the log takes it."""
        self.reporter.stop()
        self.reporter.duty.join(JOIN_SECONDS)

    def _put_options_back(self, listeners: Collection[str]) -> None:
        """Give sockets of systemd's, which outlive the daemon, the options that they had."""
        for opened in self.passed:
            if opened.listener.name in listeners:
                put_back(opened.sock, opened.originals)

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

    def _close_all(self, endpoint: Endpoint) -> None:
        """Close the sockets of an endpoint."""
        for opened in tuple(self._sockets.get(endpoint, ())):  # none where the family is missing
            where = opened.address()
            self._close(endpoint, opened)
            self.report(ListeningEnded(endpoint.listener, endpoint.protocol, *where))

    def _close(self, endpoint: Endpoint, opened: Opened) -> None:
        """Close one socket, and end the thread that has no other."""
        key = endpoint.listener, endpoint.protocol
        mover = self._movers[key]
        mover.close(opened.sock)
        mover.duty.settle(JOIN_SECONDS)
        self._sockets[endpoint].remove(opened)
        if not self._sockets[endpoint]:
            del self._sockets[endpoint]
        if key not in {(end.listener, end.protocol) for end in self._sockets}:
            mover.stop()
            mover.duty.join(JOIN_SECONDS)
            self._retired += mover.counters
            self.reporter.give_back(self._ports.pop(key))
            del self._movers[key]

    def _add(self, sockets: Sockets) -> None:
        for endpoint, opened in sockets.items():
            self._sockets.setdefault(endpoint, []).extend(opened)

    def _rematch(self, before: list[Opened], passed: list[Opened]) -> None:
        """Have the sockets of systemd's serve as they are matched now.

        One that is for another listener now comes as a duplicate of its descriptor, to a thread
        that has been built for it.
        """
        for old, new in zip(before, passed, strict=True):
            endpoint = Endpoint(old.listener.name, old.protocol)
            if new.sock is old.sock:
                opened = self._sockets[endpoint]
                opened[opened.index(old)] = new
            else:
                self._add({Endpoint(new.listener.name, new.protocol): [new]})
                self._close(endpoint, old)

    def _open(self, sockets: Sockets) -> None:
        """Take these sockets into service, by threads that are still to be started."""
        openings, _ = self._openings(sockets, self._services)
        self._add(sockets)
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
                    services.of(opened.listener),
                    own_ports,
                    self._places,
                    self.staff.workers,
                    *(port, self.identify, self.failed, self.staff.handle),
                )
                self._ports[key] = port
                built.append(self._movers[key])
            openings.append(self._movers[key].opening(opened.sock, opened.addresses))
        return openings, built

    def failed(self, name: str, error: BaseException) -> None:
        """Report the failure of a thread (called in that thread) and have the process end."""
        text = traceback_of(error)
        self.failures.append(f"thread {name} failed: {described(error)}\n{text}")
        self.reporter.put(ThreadFailed(name, described(error), text))
        self._wake()


def _moved(before: list[Opened], after: list[Opened]) -> Sockets:
    """Return those sockets of systemd's that are for another listener than before."""
    found: Sockets = {}
    for old, new in zip(before, after, strict=True):
        if new.sock is not old.sock:
            found.setdefault(Endpoint(new.listener.name, new.protocol), []).append(new)
    return found
