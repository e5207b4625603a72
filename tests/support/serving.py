"""netsrvd's own threads in the test's process, with a report that tests can read."""

import itertools
import socket
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

from netsrvd.addresses import host_and_port
from netsrvd.admission.connections import ConnectionGate
from netsrvd.admission.datagrams import DatagramGate
from netsrvd.duty import Duty
from netsrvd.events import Event
from netsrvd.linux.mmsg import PAYLOAD_BYTES
from netsrvd.listeners.acceptor import Acceptor
from netsrvd.listeners.contracts import StreamFactory
from netsrvd.listeners.datagram import Receiver
from netsrvd.listeners.places import Places
from netsrvd.listeners.worker import Worker
from netsrvd.services import prepare
from netsrvd.services.base import Present
from netsrvd.settings import Endpoint, ListenerSettings
from netsrvd.sockets import activation, bind, broadcast
from tests.support.inherited import as_systemd
from tests.support.patience import SECONDS, eventually
from tests.support.reports import Failures, Reports

Mover = Acceptor | Receiver
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
    [one] = activation.adopt([activation.Passed(sock, "echo")], (listener(),), {})
    return one.sock


def answered(duty: Duty) -> None:
    """Return when a thread has done all that it was asked to do until now."""
    assert duty.settle(SECONDS), f"{duty.name} does not answer"


class Served:
    """An acceptor or receiver, with the address of the socket that it serves."""

    def __init__(self, mover: Any, sock: socket.socket) -> None:
        self.mover = mover
        self.local = host_and_port(sock.getsockname())

    def __getattr__(self, name: str) -> Any:
        """Be what serves."""
        return getattr(self.mover, name)


class Serving:
    """One worker, and the acceptors and receivers that a test asks for.

    The end of the `with` block stops and joins them all, and fails for a thread that failed: a
    test that plants a failure takes it out of `failures`.
    """

    def __init__(self) -> None:
        self.reports = Reports()
        self.failures = Failures()
        self.emptied = threading.Event()
        self.worker = Worker(1, self.reports, self.emptied.set, self.failures)
        self.places = Places(100_000)
        self.present = Present()
        self.present.look = self.worker.connections
        self._movers: list[Mover] = []
        self._identities = itertools.count(1)

    def __enter__(self) -> Self:
        self.worker.duty.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reports.congested = False
        self.stop_listening()
        self.stop_worker()
        assert not self.failures.found

    def tcp(
        self,
        sock: socket.socket | None = None,
        *,
        service: StreamFactory | str = "echo",
        host: str = "127.0.0.1",
        start: bool = True,
        **changes: Any,
    ) -> Any:
        """Serve one TCP socket; `changes` are settings of its listener.

        The service is one of ours, by its name, or any other.
        """
        ours = isinstance(service, str)
        settings = listener(service=service if ours else "test", **changes)
        acceptor = Acceptor(
            settings,
            ConnectionGate(settings),
            prepare(service, settings, self.present).stream if ours else service,
            [self.worker],
            self.places,
            self.reports,
            lambda: f"c{next(self._identities)}",
            self.failures,
        )
        return self._started(acceptor, sock or opened("tcp", settings, host), start=start)

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
    ) -> Any:
        """Serve one UDP socket; `changes` are settings of its listener."""
        settings = listener(service=service, **changes)
        sock = sock or opened("udp", settings, host)
        gate = DatagramGate(settings, {sock.getsockname()[1]}, broadcast.is_broadcast)
        answers = prepare(service, settings, self.present).datagrams
        receiver = Receiver(
            *(settings, gate, answers, self.reports, self.failures, payload_bytes), handler
        )
        return self._started(receiver, sock, start=start)

    def stop_listening(self) -> None:
        """Stop and join all acceptors and receivers."""
        for mover in self._movers:
            mover.stop()
        for mover in self._movers:
            assert mover.duty.join(SECONDS), mover.duty.name
        self._movers.clear()

    def settle(self) -> None:
        """Return when all threads know what has been told until now: who has left, and by what
        settings to judge who comes.
        """
        for duty in (self.worker.duty, *(mover.duty for mover in self._movers)):
            answered(duty)

    def stop_worker(self) -> int:
        """Stop and join the worker; return how many connections it still had."""
        self.worker.stop()
        assert self.worker.duty.join(SECONDS)
        return self.worker.cut

    def so_far(self, kind: type[Kind]) -> list[Kind]:
        """Return the events of one kind that were reported until now."""
        return [event for event in tuple(self.reports.events) if isinstance(event, kind)]

    def told(self, kind: type[Kind], count: int = 1) -> list[Kind]:
        """Return the events of one kind as soon as there are so many."""
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

    def _started(self, mover: Mover, sock: socket.socket, *, start: bool) -> Served:
        self._movers.append(mover)
        served = Served(mover, sock)
        mover.open(sock)
        if start:
            mover.duty.start()
        return served
