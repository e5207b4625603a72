"""Serves datagrams: one thread a listener, for all its UDP sockets."""

import errno
import socket
from collections.abc import Callable, Collection
from math import inf
from time import monotonic

from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.events.flows import FlowsUntold, ReceiveRecovered, ReceiveTrouble
from netsrvd.linux.mmsg import PAYLOAD_BYTES
from netsrvd.listeners.accept_errors import OWN_ERRORS
from netsrvd.listeners.contracts import DatagramGate, DatagramService, Handler, Report
from netsrvd.listeners.desk import Desk
from netsrvd.listeners.flow import Answerer
from netsrvd.listeners.inlet import Inlet
from netsrvd.listeners.refusals import Addresses, Refusals
from netsrvd.listeners.trouble import Trouble
from netsrvd.listeners.watch import CONGESTED_SECONDS, Watch, Width
from netsrvd.settings import ListenerSettings

PEER_ERRORS = frozenset(
    {
        *(errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN),
        *(errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPROTO, errno.EACCES),
        *(errno.EMSGSIZE, errno.ECONNABORTED, errno.ECONNRESET, errno.ETIMEDOUT),
    }
)
"""What ICMP said of an earlier answer (udp(7), icmp_err_convert in the kernel's net/ipv4/icmp.c),
or what `ss -K` has set. The call takes it off the socket: the next one may be well.
"""

LAST_SECONDS = 1.0
"""How long a stop waits for answers of handlers."""

LONGEST_SWEEP_SECONDS = 5.0
"""How often to look for flows that have ended and for datagrams that the kernel dropped."""


class Receiver:
    """The UDP sockets of one listener and their thread, which owns all that changes in here.

    `stop()` sums up the flows and closes the sockets. An error of sending concerns one peer; an
    error of receiving that only a bug causes (`OWN_ERRORS`) ends the thread.
    """

    __slots__ = (
        *("_desk", "_duty", "_inlets", "_on_failure", "_paused", "_payload_bytes"),
        "_stopping",
        *("_sweep_at", "_trouble", "_watch", "counters"),
    )

    def __init__(
        self,
        settings: ListenerSettings,
        gate: DatagramGate,
        service: DatagramService,
        report: Report,
        on_failure: OnFailure,
        payload_bytes: int = PAYLOAD_BYTES,
        handler: Handler | None = None,
    ) -> None:
        self.counters = Counters()
        refusals = Refusals(report, settings, "udp")
        self._desk = Desk(settings, service, gate, refusals, self.counters, report)
        self._payload_bytes = payload_bytes
        self._inlets: dict[int, Inlet] = {}
        self._stopping = self._paused = False
        self._sweep_at = inf
        self._trouble = Trouble(report, settings.name, ReceiveTrouble, ReceiveRecovered)
        self._duty = Duty(f"datagram {settings.name}", self._run, on_failure)
        self._watch = Watch(self._duty.mailbox)
        self._on_failure = on_failure
        self._staff(handler)

    @property
    def duty(self) -> Duty:
        """The thread, to be started, watched and joined."""
        return self._duty

    @property
    def flows(self) -> int:
        """How many peers it remembers, a moment ago."""
        return sum(len(inlet.flows) for inlet in tuple(self._inlets.values()))

    def open(self, sock: socket.socket) -> None:
        """Serve one more socket, which belongs to the thread from now on."""
        self.opening(sock)()

    def opening(self, sock: socket.socket, addresses: Addresses = None) -> Callable[[], None]:
        """Make the buffers for one more socket; return the call that has it served.

        Of its local addresses those are served that `addresses` has. The call cannot fail; this
        raises OSError or MemoryError if there is no memory.
        """
        inlet = Inlet(sock, self._desk, self._payload_bytes, addresses)
        return lambda: self._duty.mailbox.post(self._open, inlet)

    def restrict(self, sock: socket.socket, addresses: Addresses) -> None:
        """Have a socket serve other addresses; flows of those that are left out end."""
        self._duty.mailbox.post(self._restrict, sock.fileno(), addresses)

    def close(self, sock: socket.socket) -> None:
        """Ask the thread to sum up the flows of one of its sockets and close it."""
        self._duty.mailbox.post(self._close, sock.fileno(), "reload")

    def stop(self) -> None:
        """Ask the thread to sum up its flows, close its sockets and end."""
        self._duty.mailbox.post(setattr, self, "_stopping", True)

    def pause(self, *, paused: bool) -> None:
        """Ask the thread to leave what comes in the kernel's buffer, or to take it again."""
        self._duty.mailbox.post(setattr, self, "_paused", paused)

    def update(
        self,
        settings: ListenerSettings,
        service: DatagramService,
        own_ports: Collection[int],
        handler: Handler | None = None,
    ) -> None:
        """Give the thread new settings; flows that are refused by them end."""
        self._duty.mailbox.post(self._update, settings, service, own_ports, handler)

    def _open(self, inlet: Inlet) -> None:
        self._inlets[inlet.sock.fileno()] = inlet
        self._watch.add(inlet.sock)

    def _restrict(self, descriptor: int, addresses: Addresses) -> None:
        inlet = self._inlets[descriptor]
        inlet.addresses = addresses
        inlet.rejudge()

    def _close(self, descriptor: int, reason: str) -> None:
        inlet = self._inlets.pop(descriptor)
        inlet.end_all(reason)
        for _ in range(2):  # the second look finds no new drops, which is their end
            inlet.look_for_drops(monotonic())
        self._watch.remove(inlet.sock)
        inlet.sock.close()

    def _staff(self, handler: Handler | None) -> None:
        """Have a handler answer from now on, or the service if there is none."""
        desk, old = self._desk, self._desk.answerer
        if old is not None and old.handler is handler:
            old.resize(desk.settings.handler_threads)
            return
        if old is not None:
            old.dismiss()
        desk.answerer = self._answerer(handler) if handler is not None else None

    def _answerer(self, handler: Handler) -> Answerer:
        from netsrvd.listeners.handlers import answerer, crew  # noqa: PLC0415 - most listeners need none

        desk = self._desk
        name, most = f"handler {desk.settings.name}", desk.settings.handler_threads
        threads = crew.Crew(name, most, self._duty.mailbox, self._on_failure)
        return answerer.Answerer(handler, threads, desk.counters, desk.report)

    def _update(
        self,
        settings: ListenerSettings,
        service: DatagramService,
        own_ports: Collection[int],
        handler: Handler | None,
    ) -> None:
        desk = self._desk
        desk.settings, desk.service = settings, service
        self._staff(handler)
        desk.gate.update(settings, own_ports)
        desk.refusals.update(settings)
        for inlet in self._inlets.values():
            inlet.rejudge()

    def _run(self) -> None:
        now, inlets = monotonic(), self._inlets
        try:
            while not self._stopping:
                congested, due_at = self._desk.report.congested, self._due_at
                busy = congested or self._paused or self._trouble.pausing(now)
                width = Width.MAIL if busy else Width.ALL
                patience = CONGESTED_SECONDS if congested else due_at - now
                ready = self._watch.wait(patience, width)
                now = monotonic()
                for descriptor, _ in ready:
                    if descriptor in inlets:  # not if it is the mailbox, or was closed meanwhile
                        self._serve(inlets[descriptor], now)
                if now >= due_at:
                    self._look_around(now)
            self._sum_up()
        finally:
            for inlet in self._inlets.values():
                inlet.sock.close()

    @property
    def _due_at(self) -> float:
        """When to look around at the latest, also if nobody sends anything."""
        return min(self._sweep_at, self._trouble.due_at, self._desk.refusals.due_at)

    def _serve(self, inlet: Inlet, now: float) -> None:
        if self._sweep_at == inf:
            self._plan_sweep(now)
        try:
            inlet.serve(now)
        except OSError as error:
            if error.errno in OWN_ERRORS:
                raise
            self._trouble.occurred(error, inlet.local, now, pause=error.errno not in PEER_ERRORS)

    def _finish(self, answerer: Answerer) -> None:
        """Wait for answers that handlers are still to give, but not for long."""
        deadline = monotonic() + LAST_SECONDS
        while answerer.is_busy and (left := deadline - monotonic()) > 0:
            self._watch.wait(left, Width.MAIL)
        answerer.dismiss()

    def _sum_up(self) -> None:
        """Tell all that is known when the thread ends."""
        if self._desk.answerer is not None:
            self._finish(self._desk.answerer)
        for descriptor in list(self._inlets):
            self._close(descriptor, "stop")
        self._desk.refusals.settle(monotonic(), all_of_them=True)
        self._tell_untold()

    def _look_around(self, now: float) -> None:
        """Do what is due besides the datagrams."""
        if now >= self._sweep_at:
            for inlet in self._inlets.values():
                inlet.sweep(now)
                inlet.look_for_drops(now)
            self._tell_untold()
            self._sweep_at = inf
            answerer = self._desk.answerer
            if answerer is not None:
                answerer.look(now)
            drops = any(inlet.is_dropping for inlet in self._inlets.values())
            if self.flows or drops or (answerer is not None and answerer.is_busy):
                self._plan_sweep(now)
        self._trouble.settle(now)
        self._desk.refusals.settle(now)

    def _tell_untold(self) -> None:
        desk = self._desk
        if desk.flows_untold:
            desk.report(FlowsUntold(desk.settings.name, desk.flows_untold))
            desk.flows_untold = 0

    def _plan_sweep(self, now: float) -> None:
        self._sweep_at = now + min(LONGEST_SWEEP_SECONDS, self._desk.settings.flow_seconds / 4)
