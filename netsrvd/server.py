"""The server: listeners, their two event loops and the log, from start to stop."""

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.config import changes
from netsrvd.connection import AnySocket, Connection, connection_ids
from netsrvd.control.listening import Control, ControlSocket
from netsrvd.counters import Counters, RunFigures
from netsrvd.errors import NetsrvdError
from netsrvd.event_loop import EventLoop
from netsrvd.events import LEVELS
from netsrvd.events.lifecycle import ThreadFailed
from netsrvd.events.sockets import InterfaceLost, Listening, ListeningEnded
from netsrvd.loop_thread import LoopThread
from netsrvd.run_state import ReloadRequests, RunNotes
from netsrvd.services import MONITORING, prepare
from netsrvd.services.base import Client, Service, Stream, StreamFactory
from netsrvd.settings import TIMED_SERVICES, Endpoint, ListenerSettings, Settings
from netsrvd.sockets import bind, interfaces
from netsrvd.sockets.activation import bind_to_interface, shares_ports
from netsrvd.sockets.bind import ListeningSocket
from netsrvd.sockets.broadcast import is_broadcast
from netsrvd.sockets.interfaces import Binding
from netsrvd.sockets.options import put_back
from netsrvd.startup import Services, Sockets, build_log_writer, own_udp_ports
from netsrvd.tcp import ConnectionLimit, SpareDescriptor, Take, TCPListener
from netsrvd.tracebacks import described, traceback_of
from netsrvd.udp import Batches, UDPListener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netsrvd.control.callers import Callers
    from netsrvd.control.methods import Methods
    from netsrvd.handlers.connections import HandlerConnections
    from netsrvd.handover import Restored
    from netsrvd.samples import Samples
    from netsrvd.services.shown import Family, Overview

JOIN_SECONDS = 5.0
"""How long to wait for a thread that was asked to end. None needs this long unless it is stuck."""

ANSWER_SECONDS = 1.0
"""How long a stop waits for datagrams that handlers are still to answer."""

LOOK_SECONDS = 0.01

Key = tuple[str, str]
"""A listener's name and a protocol."""

Call = Callable[[], None]

Pending = list[tuple[str, AnySocket]]
"""Connections that wait for a PROXY header, each with its listener's name."""

Answer = TypeVar("Answer")
Listener = TypeVar("Listener", TCPListener, UDPListener)


class Server:
    """The listeners and the threads that serve them. Owned by the main thread.

    One thread serves all of TCP, one all of UDP, one writes the log. Listeners belong to the
    threads of their loops: the main thread changes them by `EventLoop.call_and_wait` alone. Figures
    that it reads are a moment old. `wake` is called, in any thread, if a thread has failed, if the
    last connection of a stop has ended, or if a caller asks for a reload.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        services: Services,
        max_connections: int,
        log: str,
        wake: Call,
    ) -> None:
        self._wake = wake
        self._services = services
        services.server_view.live = self.connections
        services.server_view.families = self.families
        services.server_view.overview = self.overview
        self.failures: list[str] = []
        self.log_writer = build_log_writer(settings, log, self.failed)
        self.report = self.log_writer.handle()
        self.new_id = connection_ids()
        self._tcp = EventLoop("tcp", self.failed)
        self._udp = EventLoop("udp", self.failed)
        self._tcp_report, self._udp_report = self.log_writer.handle(), self.log_writer.handle()
        self.limit = ConnectionLimit(max_connections)
        """Of all connections together."""
        self._spare = SpareDescriptor()
        self._batches: Batches = {}
        self._handlers: HandlerConnections | None = None
        """None until a listener has a handler."""
        self._listeners: dict[Key, TCPListener | UDPListener] = {}
        self.retired = Counters()
        """The sums of listeners that were removed."""
        self.figures = RunFigures(reload_successful=1)
        """Of the whole run, as far as the main thread knows them; see `snapshot.py`."""
        self.drops: dict[int, int] = {}
        """For UDP sockets that were closed at the end, by their cookies, the kernel's counters of
        drops as they are counted. The main thread's."""
        self.notes = RunNotes()
        self.samples: Samples | None = None
        """None until the first sample."""
        self.began_at = monotonic()
        self.reload_requests = ReloadRequests(wake)
        self._controls: list[ControlSocket] = []
        self._control_loop = self._tcp
        self._sockets: Sockets = {}
        self._deaf: dict[int, str] = {}
        """The descriptors of sockets that have lost their interface, and what was reported."""
        opening = self._prepare(sockets, services)
        for call in itertools.chain.from_iterable(opening.values()):
            call()
        self._add(sockets)

    # --- what it is ---------------------------------------------------------------------------

    @property
    def passed(self) -> list[ListeningSocket]:
        """The sockets that systemd passed."""
        return [one for end, opened in self._sockets.items() if not end.port for one in opened]

    @property
    def bound(self) -> dict[Endpoint, ListeningSocket]:
        """The sockets that the daemon, or the process before it, has bound: one an endpoint."""
        return {end: opened[0] for end, opened in self._sockets.items() if end.port}

    @property
    def sockets(self) -> list[ListeningSocket]:
        """All sockets on which clients come, to be looked at (any thread)."""
        return [one for opened in list(self._sockets.values()) for one in list(opened)]

    @property
    def is_activated(self) -> bool:
        """Whether systemd has all sockets, and so starts a daemon when a client comes."""
        return bool(self._sockets) and not any(end.port for end in self._sockets)

    @property
    def live(self) -> int:
        """How many TCP connections are served."""
        return len(self.connections())

    @property
    def handled(self) -> int:
        """How many of them belong to Python handlers."""
        return self._handlers.live if self._handlers else 0

    @property
    def flows(self) -> int:
        """How many UDP flows there are."""
        return sum(each.flows for each in self._of(UDPListener))

    @property
    def is_empty(self) -> bool:
        """Whether there is no TCP connection, not even one that waits for a PROXY header."""
        return not self.limit.used

    def connections(self) -> list[Connection]:
        """Return the connections that are served, to be looked at (any thread)."""
        found = [
            connection
            for listener in self._of(TCPListener)
            for connection in list(listener.connections.values())
        ]
        return found + (self._handlers.connections() if self._handlers else [])

    @property
    def loops(self) -> tuple[EventLoop, EventLoop]:
        """The loops of TCP and UDP."""
        return self._tcp, self._udp

    def listeners(self) -> list[TCPListener | UDPListener]:
        """Return the listeners (any thread)."""
        return list(self._listeners.values())

    def connections_of(self, listener: TCPListener) -> list[Connection]:
        """Return the connections of a listener, those of handlers too (any thread)."""
        found = list(listener.connections.values())
        if self._handlers:
            found += [each for each in self._handlers.connections() if each.owner is listener]
        return found

    def families(self) -> "Iterator[Family | None]":
        """Return the metrics, see `metrics.families` (in the tcp loop)."""
        from netsrvd.metrics import families  # noqa: PLC0415 - most configurations need none

        return families(self)

    def overview(self) -> "Iterator[Overview | None]":
        """Return what the status page shows, see `overview.py` (in the tcp loop)."""
        from netsrvd.overview import overview  # noqa: PLC0415 - as above

        return overview(self)

    def counters(self) -> Counters:
        """Return the sums of all listeners since the start."""
        parts = tuple(self._listeners.values())
        return sum((part.counters for part in parts), self.retired)

    @property
    def has_clients(self) -> bool:
        """Whether there is a TCP connection but those of services that look at the daemon."""
        looking = sum(each.live for each in self._of(TCPListener) if _is_monitoring(each))
        return self.limit.used > looking

    def seen(self) -> int:
        """Return how often a client has come: connections and datagrams, served or refused.

        Clients of services that look at the daemon do not count.
        """
        parts = [each.counters for each in self._listeners.values() if not _is_monitoring(each)]
        counters = sum(parts, self.retired)
        return counters.accepted + counters.refused.total + counters.datagrams_received

    def progress(self) -> int:
        """Return a number that changes when a byte moves or a connection ends."""
        counters = self.counters()  # of the bytes of connections that have ended
        moved = sum(one.bytes_received + one.bytes_sent for one in self.connections())
        return counters.closed.total + counters.bytes_received + counters.bytes_sent + moved

    def threads(self) -> list[LoopThread]:
        """Return the threads that must make progress."""
        loops = [loop.thread for loop in (self._tcp, self._udp) if loop.is_running]
        return [*loops, self.log_writer.thread]

    # --- start --------------------------------------------------------------------------------

    def start(self, *, paused: bool = False) -> None:
        """Start the threads, the log first. With `paused` no client is served before `resume`.

        Raises ResourceError if a thread cannot be started.
        """
        if paused:
            self._pause(paused=True)
        self.log_writer.thread.start()
        self._start_loops({protocol for _, protocol in self._listeners})

    def serve_control(self, control: Control) -> None:
        """Answer callers on a control socket. It is called before `start`.

        The tcp loop serves it, or that of UDP if only UDP is served.
        """

        def methods() -> "Methods":
            from netsrvd.control.methods import Methods  # noqa: PLC0415 - at the first look

            return Methods(self)

        def callers(listening: bind.Socket, loop: EventLoop) -> "Callers":
            from netsrvd.control.callers import Callers  # noqa: PLC0415 - not before the start
            from netsrvd.control.calls import Calls  # noqa: PLC0415 - so here

            calls = Calls(loop, self.reload_requests, methods, is_passed=control.is_passed)
            return Callers(listening, loop, calls, self.log_writer.handle())

        protocols = {protocol for _, protocol in self._listeners}
        self._control_loop = self._udp if protocols == {"udp"} else self._tcp
        self._controls.append(ControlSocket(control, callers))
        self._controls[-1].open(self._control_loop)

    def sample(self, now: float) -> None:
        """Keep the sums of now, unless the last ones are young, so that growth can be shown."""
        from netsrvd.samples import Samples, Totals  # noqa: PLC0415 - not before clients are served

        if self.samples is None:
            self.samples = Samples()
        if not self.samples.is_due(now):
            return
        counters, connections = self.counters(), self.connections()
        totals = Totals(
            counters.accepted,
            counters.refused.total + counters.datagrams_refused.total,
            counters.bytes_received + sum([one.bytes_received for one in connections]),
            counters.bytes_sent + sum([one.bytes_sent for one in connections]),
            counters.datagrams_received,
            counters.datagrams_sent,
            self.log_writer.lost,
        )
        self.samples.add(now, totals)

    def restore(self, restored: "Restored") -> None:
        """Serve what another process left. Raises ResourceError if there is no thread for it."""
        for event in restored.notes:
            self.report(event)
        for udp in self._of(UDPListener) if restored.drops else ():
            self._udp.call_and_wait(udp.go_on_from, restored.drops, seconds=inf)
        self._start_loops({"tcp"})
        # However long it takes: systemd, which waits for READY=1, has a limit of its own.
        self._tcp.call_and_wait(self._restore, restored, seconds=inf)

    def _restore(self, restored: "Restored") -> None:
        for sock, state in restored.connections:
            listener = self._tcp_listener(state.listener, state.service_name)
            make_service = self._factory(listener.settings, state.service_name)
            listener.restore(state.connection(listener, sock), make_service)
        for name, pending in restored.pending:
            found = self._listeners.get((name, "tcp"))
            if isinstance(found, TCPListener):
                found.restore_pending(pending, monotonic())
            else:  # as by a listener that was closed
                pending.close()

    def serve_accepted(self, settings: ListenerSettings, sock: AnySocket) -> None:
        """Serve a connection that another program has accepted; `wake` when it has ended."""
        listener = self._tcp_listener(settings.name, settings.service, settings)
        self.limit.on_empty = self._wake
        listener.serve_accepted(sock)
        self._start_loops({"tcp"})

    def _tcp_listener(
        self, name: str, service_name: str, settings: ListenerSettings | None = None
    ) -> TCPListener:
        """Return the listener of a connection; one that is gone, or not needed, has no sockets."""
        found = self._listeners.get((name, "tcp"))
        if not isinstance(found, TCPListener):
            settings = settings or ListenerSettings(name, service_name)
            found = self._new_tcp(settings, self._services.of(settings))
            self._listeners[name, "tcp"] = found
        return found

    def _factory(self, settings: ListenerSettings, service_name: str) -> StreamFactory:
        """Return what makes the service of a restored connection; preparing it may raise then.

        A connection keeps its service, although its listener may have another one now.
        """
        known = self._services.by_name.get(settings.name)
        if known is not None and settings.service == service_name:
            return known.stream

        def make(client: Client, at: float) -> Stream:
            return prepare(service_name, settings, self._services.server_view).stream(client, at)

        return make

    # --- reload -------------------------------------------------------------------------------

    def reload(
        self,
        plan: changes.Plan,
        sockets: Sockets,
        passed: Sequence[ListeningSocket],
        services: Services,
        max_connections: int,
        settings: Settings,
    ) -> None:
        """Change what runs to the new settings. Return when they are in force, or will be at once.

        `sockets` are those that were bound for it, `passed` the sockets of systemd as the new
        settings have them. All that can fail comes first. Raises ResourceError, OSError or
        MemoryError, with `sockets` closed and nothing changed.
        """
        before = self.passed
        opening = self._prepare(sockets | _moved(before, passed), services)
        passed = [bind_to_interface(one) for one in passed]
        closing = [one for end in plan.close for one in self._sockets.pop(end, ())]
        ended = [ListeningEnded(one.listener.name, one.protocol, *one.address()) for one in closing]
        for old, new in zip(before, passed, strict=True):
            self._replace(old, new)
            closing += [old] if old.sock is not new.sock else []
        self._add(sockets)
        self._services = services
        self.log_writer.level = LEVELS[settings.log.level]
        own_ports = own_udp_ports(self.sockets)
        change = _Change(settings, services, opening, passed, closing, own_ports)
        self.limit.limit = max_connections
        switches = {
            "tcp": self._ask(self._tcp, partial(self._switch, "tcp", change), False),
            "udp": self._ask(self._udp, partial(self._switch, "udp", change), False),
        }
        for event in ended:
            self.report(event)
        if all(switches.values()):
            self._retire()

    def _switch(self, protocol: str, change: "_Change") -> bool:
        """Put new settings into force in one loop (in its thread); return True.

        A loop that is late may run this when the main thread goes on already.
        """
        by_name = {listener.name: listener for listener in change.settings.listeners}
        for (name, of), listener in list(self._listeners.items()):
            if of == protocol and name in by_name:  # the others refuse, by their old settings
                self._update(listener, by_name[name], change)
        for call in change.opening[protocol]:
            call()
        for one in change.passed:
            if one.protocol == protocol:
                self._listeners[one.listener.name, protocol].restrict(one.sock, one.addresses)
        for one in change.closing:
            if one.protocol == protocol:
                self._listeners[one.listener.name, protocol].close(one.sock)
        return True

    def _update(
        self,
        listener: TCPListener | UDPListener,
        settings: ListenerSettings,
        change: "_Change",
    ) -> None:
        service = change.services.by_name[settings.name]
        if isinstance(listener, UDPListener):
            listener.update(settings, service.datagrams, change.own_ports, service.handler)
            return
        listener.update(
            settings, service.stream, is_echo=_is_echo(service), take=self._take(service)
        )
        if self._handlers:
            self._handlers.update(listener, listener.denied_by)

    def _retire(self) -> None:
        """Forget listeners that have neither sockets nor connections any more."""
        for key, listener in list(self._listeners.items()):
            if listener.has_sockets:
                continue
            self._ask(listener.loop, listener.stop, None)
            if isinstance(listener, UDPListener) or not listener.live:
                del self._listeners[key]
                self.retired += listener.counters
                if self._handlers and isinstance(listener, TCPListener):
                    self._ask(self._tcp, partial(self._handlers.end_pool, key[0]), None)

    # --- pause and stop -----------------------------------------------------------------------

    def pause(self) -> None:
        """Serve no new client. All that came before has been accepted."""
        self._pause(paused=True)

    def resume(self) -> None:
        """Serve new clients again."""
        self._pause(paused=False)

    def _pause(self, *, paused: bool) -> None:
        for listener in self._listeners.values():
            self._ask(listener.loop, partial(listener.pause, paused=paused), None)

    def stop_listening(self, drain_seconds: float, pending: Pending | None = None) -> None:
        """Accept no connection and no datagram any more; `wake` when the last connection has ended.

        Connections of handlers get their deadline. Connections that wait for a PROXY header are put
        into `pending`, whose owner closes them; without that they are closed.
        """
        self._pause_udp(self._of(UDPListener))
        self._put_options_back(self._listeners)
        self._stop_udp(self._of(UDPListener))
        deadline = monotonic() + drain_seconds

        def stop() -> None:
            self._stop_tcp(self._of(TCPListener), deadline, pending)
            self.limit.on_empty = self._wake

        self._ask(self._tcp, stop, None)

    def stop_handlers(self, drain_seconds: float, pending: Pending) -> None:
        """Do so for listeners with a Python handler alone; all others go on."""
        handled = {name for name, each in self._services.by_name.items() if each.handler}
        keys = [key for key in self._listeners if key[0] in handled]
        listeners = [self._listeners[key] for key in keys]
        udp = [each for each in listeners if isinstance(each, UDPListener)]
        self._pause_udp(udp)
        self._put_options_back(keys)
        self._stop_udp(udp)
        deadline = monotonic() + drain_seconds
        tcp = [each for each in listeners if isinstance(each, TCPListener)]
        self._ask(self._tcp, partial(self._stop_tcp, tcp, deadline, pending), None)

    def _stop_tcp(
        self, listeners: Collection[TCPListener], deadline: float, pending: Pending | None
    ) -> None:
        """Close listening sockets, and take out what waits for a header (in the loop's thread).

        Both in one turn, or what comes in between would be closed.
        """
        for listener in listeners:
            if pending is not None:
                name = listener.settings.name
                pending += [(name, sock) for sock in listener.detach_pending()]
            listener.stop()
        if self._handlers:
            self._handlers.drain(deadline)

    def _ask(self, loop: EventLoop, call: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Have a loop run a call and return what it returns, or `otherwise` if the loop is late.

        It runs the call as soon as it can: what has begun goes on, as it cannot be taken back. If
        the loop is stuck for good the watchdog or a stop ends the process, and that thread with it.
        """
        try:
            return loop.call_and_wait(call)
        except TimeoutError:
            return otherwise

    def _pause_udp(self, listeners: Collection[UDPListener]) -> None:
        for listener in listeners:
            self._ask(self._udp, partial(listener.pause, paused=True), None)

    def _stop_udp(self, listeners: Collection[UDPListener]) -> None:
        """Close paused UDP sockets, once handlers have answered, but not much later."""
        until = monotonic() + ANSWER_SECONDS
        while any(each.handler and each.handler.is_busy for each in listeners):
            if monotonic() >= until:
                break
            sleep(LOOK_SECONDS)
        for listener in listeners:
            none: dict[int, int] = {}
            self.drops |= self._ask(self._udp, listener.stop, none)

    def transferable(self) -> list[Connection]:
        """Return the connections that another process could go on with."""
        return [
            connection
            for listener in self._of(TCPListener)
            for connection in listener.transferable()
        ]

    def detach(self, found: list[Connection]) -> None:
        """Add them to `found`, and serve them no more.

        Raises TimeoutError if the loop is late: it may add them when it comes to that.
        """

        def detach() -> None:
            for listener in self._of(TCPListener):
                found.extend(listener.detach())

        self._tcp.call_and_wait(detach)

    def reattach(self, connections: Iterable[Connection]) -> None:
        """Serve connections again that `detach` has given, also those that it gives late."""

        def reattach() -> None:
            for connection in connections:
                assert isinstance(connection.owner, TCPListener)
                connection.owner.reattach(connection)

        self._ask(self._tcp, reattach, None)

    def close_connections(self) -> int:
        """Close all connections and end the loops; return how many connections there were."""

        def close() -> int:
            count = sum(listener.close_all("drain") for listener in self._of(TCPListener))
            return count + (self._handlers.stop() if self._handlers else 0)

        count = self._ask(self._tcp, close, 0)
        if self._handlers:
            from netsrvd.handlers.connections import STOP_SECONDS  # noqa: PLC0415 - loaded by now

            until = monotonic() + STOP_SECONDS
            while self._handlers.live and monotonic() < until:
                sleep(LOOK_SECONDS)
            self._ask(self._tcp, self._handlers.shutdown, None)
        while self._controls:
            self._ask(self._control_loop, self._controls.pop().close, None)
        for loop in (self._tcp, self._udp):
            loop.stop()
            loop.join(JOIN_SECONDS)
        self._spare.release()
        return count

    def stop_log(self) -> None:
        """Write what is still to be written, as far as the log takes it."""
        self.log_writer.stop()
        self.log_writer.thread.join(JOIN_SECONDS)

    def failed(self, name: str, error: BaseException) -> None:
        """Report the failure of a thread (in that thread), and wake the main thread to end."""
        text = traceback_of(error)
        self.failures.append(f"thread {name} failed: {described(error)}\n{text}")
        self.log_writer.handle()(ThreadFailed(name, described(error), text))
        self._wake()

    # --- interfaces ---------------------------------------------------------------------------

    def look_at_interfaces(self) -> None:
        """Bind sockets anew whose interface was deleted and is there again; report deaf ones."""
        deaf: dict[int, str] = {}
        for endpoint, all_of in tuple(self._sockets.items()):
            for opened in tuple(all_of):
                interface = interfaces.needed(endpoint, opened)
                if interface and (problem := self._bind_again(endpoint, opened, interface)):
                    deaf[opened.sock.fileno()] = problem
                    if self._deaf.get(opened.sock.fileno()) != problem:
                        names = endpoint.listener, endpoint.protocol, *opened.address()
                        self.report(InterfaceLost(*names, interface, problem))
        self._deaf = deaf

    def _bind_again(self, endpoint: Endpoint, opened: ListeningSocket, interface: str) -> str:
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
                opened = self._open_again(endpoint, opened)
        except (NetsrvdError, bind.FamilyMissingError, OSError) as error:
            return f"the socket cannot be bound anew: {error}"
        service = self._listeners[endpoint.listener, endpoint.protocol].settings.service
        names = endpoint.listener, service, endpoint.protocol
        self.report(Listening(*names, *opened.address(), opened.origin))
        return ""

    def _open_again(self, endpoint: Endpoint, opened: ListeningSocket) -> ListeningSocket:
        """Serve an endpoint by a new socket. After NetsrvdError or OSError nothing has changed."""
        new = bind.open_endpoint(endpoint, opened.listener, share=shares_ports([opened]))
        opening = self._prepare({endpoint: [new]}, self._services)
        listener = self._listeners[endpoint.listener, endpoint.protocol]

        def change() -> None:
            for call in opening[endpoint.protocol]:
                call()
            listener.close(opened.sock)

        self._ask(listener.loop, change, None)
        self._sockets[endpoint] = [new if one is opened else one for one in self._sockets[endpoint]]
        return new

    # --- listeners ----------------------------------------------------------------------------

    def _prepare(self, sockets: Sockets, services: Services) -> dict[str, list[Call]]:
        """Make all that new sockets need; return the calls that begin to serve them, by protocol.

        If anything fails, close the sockets, and raise the error.
        """
        known = set(self._listeners)
        opening: dict[str, list[Call]] = {"tcp": [], "udp": []}
        every = list(itertools.chain.from_iterable(sockets.values()))
        try:
            if services.handled and self._handlers is None:
                self._handlers = self._new_handlers()
            self._reserve(services)
            for one in every:
                key = one.listener.name, one.protocol
                if key not in self._listeners:
                    self._listeners[key] = self._new_listener(one, services, every)
                listener = self._listeners[key]
                listener.loop.reserve(one.sock.fileno())
                if isinstance(listener, UDPListener):
                    call = partial(listener.open, listener.prepare(one.sock, one.addresses))
                else:
                    call = partial(listener.open, one.sock, one.addresses)
                opening[one.protocol].append(call)
            if self.log_writer.thread.started:
                self._start_loops({one.protocol for one in every})
        except BaseException:
            for key in set(self._listeners) - known:
                del self._listeners[key]
            for one in every:
                for loop in (self._tcp, self._udp):
                    loop.release(one.sock.fileno())
                one.sock.close()
            raise
        return opening

    def _reserve(self, services: Services) -> None:
        """Make what listeners need whose service changes."""
        for listener in self._of(UDPListener):
            if service := services.by_name.get(listener.settings.name):
                listener.reserve(service.datagrams)

    def _new_listener(
        self, one: ListeningSocket, services: Services, opening: Iterable[ListeningSocket]
    ) -> TCPListener | UDPListener:
        service = services.of(one.listener)
        if one.protocol == "tcp":
            return self._new_tcp(one.listener, service)
        own_ports = own_udp_ports(itertools.chain(self.sockets, opening))
        return UDPListener(
            self._udp,
            one.listener,
            service.datagrams,
            DatagramPolicy(one.listener, own_ports, is_broadcast),
            handler=service.handler,
            batches=self._batches,
            report=self._udp_report,
            on_failure=self.failed,
        )

    def _new_tcp(self, settings: ListenerSettings, service: Service) -> TCPListener:
        return TCPListener(
            self._tcp,
            settings,
            service.stream,
            is_echo=_is_echo(service),
            take=self._take(service),
            total=self.limit,
            spare=self._spare,
            report=self._tcp_report,
            new_id=self.new_id,
        )

    def _new_handlers(self) -> "HandlerConnections":
        from netsrvd.handlers.connections import HandlerConnections  # noqa: PLC0415 - most need none

        return HandlerConnections(self._tcp, self._tcp_report, self.failed)

    def _take(self, service: Service) -> Take | None:
        """Return what serves the connections of a service instead of the loop."""
        if service.handler is None or self._handlers is None:
            return None
        return partial(self._handlers.take, service.handler)

    def _start_loops(self, protocols: Collection[str]) -> None:
        """Start the loops that have something to do and do not run yet."""
        for loop, protocol in ((self._udp, "udp"), (self._tcp, "tcp")):
            if protocol in protocols and not loop.is_running:
                loop.start()

    # --- sockets ------------------------------------------------------------------------------

    def _of(self, kind: type[Listener]) -> list[Listener]:
        return [each for each in list(self._listeners.values()) if isinstance(each, kind)]

    def _add(self, sockets: Sockets) -> None:
        for endpoint, opened in sockets.items():
            self._sockets.setdefault(endpoint, []).extend(opened)

    def _replace(self, old: ListeningSocket, new: ListeningSocket) -> None:
        """Note how a socket of systemd is matched now."""
        endpoint = Endpoint(old.listener.name, old.protocol)
        self._sockets[endpoint].remove(old)
        if not self._sockets[endpoint]:
            del self._sockets[endpoint]
        self._add({Endpoint(new.listener.name, new.protocol): [new]})

    def _put_options_back(self, keys: Collection[Key]) -> None:
        """Give sockets of systemd, which outlive the daemon, the options that they had."""
        for opened in self.passed:
            if (opened.listener.name, opened.protocol) in keys:
                put_back(opened.sock, opened.originals)
                if opened.protocol == "udp" and opened.listener.service in TIMED_SERVICES:
                    from netsrvd import timed  # noqa: PLC0415 - loaded by the listener

                    timed.ask(opened.sock, wanted=False)


class _Change(NamedTuple):
    """What a reload changes in the loops."""

    settings: Settings
    services: Services
    opening: Mapping[str, list[Call]]
    passed: Sequence[ListeningSocket]
    closing: Sequence[ListeningSocket]
    own_ports: Collection[int]


def _is_monitoring(listener: TCPListener | UDPListener) -> bool:
    """Return whether the clients of a listener look at the daemon."""
    return listener.settings.service in MONITORING


def _is_echo(service: Service) -> bool:
    """Return whether a service returns what it receives, so that it need not be called."""
    return service.datagrams.is_echo


def _moved(before: Sequence[ListeningSocket], after: Sequence[ListeningSocket]) -> Sockets:
    """Return those sockets of systemd that are for another listener than before."""
    found: Sockets = {}
    for old, new in zip(before, after, strict=True):
        if new.sock is not old.sock:
            found.setdefault(Endpoint(new.listener.name, new.protocol), []).append(new)
    return found
