"""netsrvd's event loops in the test's process, with a report that tests can read."""

import itertools
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.addresses import host_and_port
from netsrvd.connection import Connection
from netsrvd.event_loop import EventLoop
from netsrvd.events import Event
from netsrvd.handlers.connections import HandlerConnections
from netsrvd.linux.mmsg import PAYLOAD_BYTES
from netsrvd.services import prepare
from netsrvd.services.base import ServerView, StreamFactory
from netsrvd.settings import TIMED_SERVICES, Endpoint, ListenerSettings
from netsrvd.sockets import activation, bind, broadcast
from netsrvd.tcp import ConnectionLimit, SpareDescriptor, TCPListener
from netsrvd.udp import Batches, UDPListener
from tests.support.inherited import as_systemd
from tests.support.patience import SECONDS, eventually
from tests.support.reports import Failures, Reports

Listener = TCPListener | UDPListener
Kind = TypeVar("Kind", bound=Event)


def listener(**changes: Any) -> ListenerSettings:
    """Return the settings of a listener on a port that the kernel chooses."""
    return ListenerSettings(**{"name": "echo", "port": 0, **changes})


def opened(protocol: str, settings: ListenerSettings, host: str = "127.0.0.1") -> socket.socket:
    """Return an own socket, by the four steps."""
    endpoint = Endpoint(settings.name, protocol, host, settings.port, settings.interface)
    return bind.open_endpoint(endpoint, settings).sock


def adopted(kind: int, host: str = "::") -> socket.socket:
    """Return a socket that systemd made, by default a dual-stack one, as it is adopted."""
    sock = as_systemd(kind, host)
    [one] = activation.adopt([activation.ActivatedSocket(sock, "echo")], (listener(),), {})
    return one.sock


class Served:
    """A listener in its loop, with the address of the socket that it serves."""

    def __init__(self, served: Any, sock: socket.socket) -> None:
        self.listener = served
        self.sock = sock
        self.local = host_and_port(sock.getsockname())

    @property
    def counters(self) -> Any:
        return self.listener.counters

    @property
    def flows(self) -> int:
        return int(self.listener.flows)

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the listener in its loop."""
        method = getattr(self.listener, name)
        return self.listener.loop.call_and_wait(partial(method, *arguments, **named))

    def start(self) -> None:
        """Serve what has waited until now."""
        self.call("pause", paused=False)

    def close(self) -> None:
        """Close the socket."""
        self.call("close", self.sock)

    def update(self, settings: ListenerSettings, service: Any, *more: Any) -> None:
        """Use new settings; `more` is what each kind of listener wants besides."""
        if isinstance(self.listener, TCPListener):
            self.call("update", settings, service, is_echo=False, take=more[0] if more else None)
        else:
            own_ports, *handlers = more
            self.call("update", settings, service, own_ports, handlers[0] if handlers else None)


class Serving:
    """Two event loops, and the listeners that a test asks for.

    A loop starts with its first listener, in the network namespace that the test is in then.
    The end of the `with` block stops and joins them all, and fails for a thread that failed: a
    test that plants a failure takes it out of `failures`.
    """

    def __init__(self) -> None:
        self.reports = Reports()
        self.failures = Failures()
        self.tcp_loop = EventLoop("tcp", self.failures)
        self.udp_loop = EventLoop("udp", self.failures)
        self.limit = ConnectionLimit(100_000)
        self.spare = SpareDescriptor()
        self.batches: Batches = {}
        self.handlers = HandlerConnections(self.tcp_loop, self.reports, self.failures)
        self.server_view = ServerView()
        self.server_view.live = self.connections
        self._listeners: list[Served] = []
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reports.congested = False
        self.stop_listening()
        self.close_connections()
        for loop in (self.tcp_loop, self.udp_loop):
            loop.stop()
            assert loop.join(SECONDS), loop.name
        self.spare.release()
        assert not self.failures.found

    def tcp(
        self,
        sock: socket.socket | None = None,
        *,
        service: StreamFactory | str = "echo",
        host: str = "127.0.0.1",
        handler: Callable[[Any], Any] | None = None,
        start: bool = True,
        **changes: Any,
    ) -> Served:
        """Serve one TCP socket; `changes` are settings of its listener.

        The service is one of ours, by its name, or any other.
        """
        ours = isinstance(service, str)
        settings = listener(service=service if ours else "test", **changes)
        made = TCPListener(
            self.tcp_loop,
            settings,
            prepare(service, settings, self.server_view).stream if ours else service,  # type: ignore[arg-type]
            is_echo=service == "echo",
            take=partial(self.handlers.take, handler) if handler else None,
            total=self.limit,
            spare=self.spare,
            report=self.reports,
            new_id=lambda: f"c{next(self._ids)}",
        )
        return self._served(made, sock or opened("tcp", settings, host), start=start)

    def udp(
        self,
        sock: socket.socket | None = None,
        *,
        service: str = "echo",
        host: str = "127.0.0.1",
        payload_bytes: int = PAYLOAD_BYTES,
        handler: Callable[[Any], Any] | None = None,
        start: bool = True,
        **changes: Any,
    ) -> Served:
        """Serve one UDP socket; `changes` are settings of its listener."""
        if service in TIMED_SERVICES:
            changes = {"protocols": ("udp",), **changes}
        settings = listener(service=service, **changes)
        sock = sock or opened("udp", settings, host)
        made = UDPListener(
            self.udp_loop,
            settings,
            prepare(service, settings, self.server_view).datagrams,
            DatagramPolicy(settings, {sock.getsockname()[1]}, broadcast.is_broadcast),
            handler=handler,
            batches=self.batches if payload_bytes == PAYLOAD_BYTES else {},
            report=self.reports,
            on_failure=self.failures,
            payload_bytes=payload_bytes,
        )
        return self._served(made, sock, start=start)

    def connections(self) -> list[Connection]:
        """Return the connections that the loop serves."""
        tcp = [each.listener for each in self._listeners if isinstance(each.listener, TCPListener)]
        return [one for listener in tcp for one in list(listener.connections.values())]

    @property
    def live(self) -> int:
        """How many they are."""
        return len(self.connections())

    def stop_listening(self) -> None:
        """Stop all listeners; connections go on."""
        for served in self._listeners:
            served.call("stop")

    def close_connections(self) -> int:
        """Close all connections; return how many there were."""
        count = 0
        for served in self._listeners:
            if isinstance(served.listener, TCPListener):
                count += served.call("close_all", "drain")
        return count

    def settle(self) -> None:
        """Return when the loops have done all that was waiting."""
        for loop in (self.tcp_loop, self.udp_loop):
            for _ in range(2):  # a whole turn lies between them
                loop.call_and_wait(lambda: None)

    def so_far(self, kind: type[Kind]) -> list[Kind]:
        """Return the events of one kind that were reported until now."""
        return [event for event in tuple(self.reports.events) if isinstance(event, kind)]

    def told(self, kind: type[Kind], count: int = 1) -> list[Kind]:
        """Wait for `count` events of one kind, and return all of that kind."""
        self.reports.wait_for(kind, count)
        return self.so_far(kind)

    def only(self, kind: type[Kind]) -> Kind:
        """Return the one event of its kind as soon as it is there; a second one is a failure."""
        [event] = self.told(kind)
        return event

    def expect_failure(self) -> tuple[str, BaseException]:
        """Return the name and the exception of a thread that failed, once."""
        eventually(lambda: self.failures.found, "a thread has failed")
        [failure] = self.failures.found
        self.failures.found.clear()
        return failure

    def _served(self, made: Any, sock: socket.socket, *, start: bool) -> Served:
        served = Served(made, sock)
        self._listeners.append(served)
        if not made.loop.is_running:
            made.loop.start()
        if not start:
            served.call("pause", paused=True)
        served.call("open", made.prepare(sock) if isinstance(made, UDPListener) else sock)
        return served
