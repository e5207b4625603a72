"""Serves datagrams: one thread a UDP socket, a batch at a time."""

import errno
import socket
import traceback
from time import monotonic

from netsrvd.addresses import UNKNOWN, host_and_port
from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.events import Event
from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import ReceiveRecovered, ReceiveTrouble
from netsrvd.linux.mmsg import LAYOUTS, PAYLOAD_BYTES, Batch
from netsrvd.listeners.contracts import DatagramService, Gate, Report
from netsrvd.listeners.drops import Drops
from netsrvd.listeners.flow import Flow
from netsrvd.listeners.trouble import Trouble, named
from netsrvd.listeners.watch import CONGESTED_MS, Watch
from netsrvd.settings import ListenerSettings

PEER_ERRORS = frozenset(
    {
        *(errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN),
        *(errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPROTO, errno.EACCES),
        errno.EMSGSIZE,
    }
)
"""What ICMP said of an earlier answer (udp(7), icmp_err_convert in the kernel's net/ipv4/icmp.c);
it says nothing about this socket.
"""

PASSING_ERRORS = frozenset({errno.ENOMEM, errno.ENOBUFS, errno.ENETDOWN, errno.EPERM})

LONGEST_SWEEP_SECONDS = 5.0
"""How often to look for flows that have ended and for datagrams that the kernel dropped."""


class Receiver:
    """One UDP socket and its thread, which owns all that changes in here.

    `stop()` sums up the flows and closes the socket. An error of sending concerns one peer and is
    counted in its flow; an error of receiving that is no passing one ends the thread.
    """

    __slots__ = (
        "_batch",
        "_drops",
        "_duty",
        "_flows",
        "_gate",
        "_report",
        "_service",
        "_settings",
        "_stopping",
        "_sweep_at",
        "_trouble",
        "counters",
        "local",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        settings: ListenerSettings,
        gate: Gate,
        service: DatagramService,
        report: Report,
        on_failure: OnFailure,
        payload_bytes: int = PAYLOAD_BYTES,
    ) -> None:
        self.sock = sock
        self.local = host_and_port(sock.getsockname())
        self.counters = Counters()
        self._settings = settings
        self._gate = gate
        self._service = service
        self._report = report
        self._batch = Batch(LAYOUTS[sock.family], payload_bytes)
        self._flows: dict[bytes, Flow] = {}
        self._stopping = False
        self._sweep_at = 0.0
        self._drops = Drops(sock, report, (settings.name, *self.local))
        self._trouble = Trouble(report, self._trouble_began, self._trouble_ended)
        self._duty = Duty(f"datagram {settings.name} {self.local[0]}", self._run, on_failure)

    @property
    def duty(self) -> Duty:
        """The thread, to be started, watched and joined."""
        return self._duty

    @property
    def flows(self) -> int:
        """How many peers it remembers, a moment ago."""
        return len(self._flows)

    def stop(self) -> None:
        """Ask the thread to sum up its flows, close the socket and end."""
        self._duty.mailbox.post(self._stop)

    def update(self, settings: ListenerSettings, gate: Gate, service: DatagramService) -> None:
        """Give the thread new settings; flows that are judged differently now begin anew."""
        self._duty.mailbox.post(self._update, settings, gate, service)

    def _stop(self) -> None:
        self._stopping = True

    def _update(self, settings: ListenerSettings, gate: Gate, service: DatagramService) -> None:
        self._settings, self._gate, self._service = settings, gate, service
        for envelope, flow in list(self._flows.items()):
            flow.settings = settings
            if self._judge(envelope) != flow.refusal:
                self._end(envelope, "reload")

    def _run(self) -> None:
        watch, descriptor = Watch(self.sock, self._duty.mailbox), self.sock.fileno()
        now = monotonic()
        with self.sock:
            while not self._stopping:
                wanted = not (self._trouble.pausing(now) or self._report.congested)
                ready = watch.wait(self._patience_ms(now), wanted=wanted)
                now = monotonic()
                if ready:
                    self._serve(descriptor, now)
                if self._flows and now >= self._sweep_at:
                    self._sweep(now)
                self._trouble.settle(now)
            self._sum_up()

    def _sum_up(self) -> None:
        """Tell all that is known when the thread ends."""
        for envelope in list(self._flows):
            self._end(envelope, "stop")
        for _ in range(2):  # the second look finds no new drops, which is their end
            self.counters.datagrams_dropped += self._drops.look(monotonic())

    def _patience_ms(self, now: float) -> float | None:
        if self._report.congested:
            return CONGESTED_MS
        look = self._trouble.next_look_ms(now)
        if not self._flows:
            return look
        sweep = max(0.0, (self._sweep_at - now) * 1000) + 1
        return sweep if look is None else min(sweep, look)

    def _serve(self, descriptor: int, now: float) -> None:
        """Receive one batch and answer it. The hot path of UDP."""
        batch = self._batch
        try:
            count = batch.receive(descriptor)
        except OSError as error:
            self._failed(error, now)
            return
        if not count:
            return
        known, flows, unanswered = self._flows, [], []
        envelopes, lengths = batch.envelopes(count), batch.lengths(count)
        failure = self._service_failure(count)
        for index, envelope in enumerate(envelopes):
            flow = known.get(envelope) or self._begin(envelope, now)
            flows.append(flow)
            flow.received += 1
            flow.bytes_received += lengths[index]
            flow.active_at = now
            if flow.refusal:
                flow.refused += 1
                unanswered.append(index)
            elif flow.special:
                self._redirect(index, envelope, flow)
        if failure:
            unanswered = self._all_failed(failure, flows)
        else:
            unanswered += self._truncated(count, flows)
        self._answer(descriptor, flows, lengths, sorted(unanswered))
        self._make_room()
        self.counters.datagrams_received += count
        self.counters.bytes_received += sum(lengths)

    def _service_failure(self, count: int) -> Exception | None:
        """Have the service make the answers; return what it raised."""
        try:
            self._service.answer(self._batch, count)
        except Exception as error:  # noqa: BLE001 - a bug in a service, reported with traceback
            return error
        return None

    def _truncated(self, count: int, flows: list[Flow]) -> list[int]:
        """Count the datagrams of which a part is missing; return their indexes."""
        found = [index for index in self._batch.truncated(count) if not flows[index].refusal]
        for index in found:
            flows[index].truncated += 1
        return found

    def _all_failed(self, error: Exception, flows: list[Flow]) -> list[int]:
        """Report a failure that leaves a whole batch without answers; return all its indexes."""
        for flow in flows:
            flow.unsent += not flow.refusal
            flow.error = repr(error)
        self.counters.datagrams_unsent += sum(not flow.refusal for flow in flows)
        text = "".join(traceback.format_exception(error))
        name, service = self._settings.name, self._settings.service
        self._report(ServiceFailed(name, service, *flows[0].peer, repr(error), text))
        return list(range(len(flows)))

    def _redirect(self, index: int, envelope: bytes, flow: Flow) -> None:
        """Prepare an answer whose way back the routing table or the kernel would not find."""
        if flow.pinned:
            self._batch.pin(index, envelope)
        if flow.source_unknown:
            self._batch.answer_from_asked(index, envelope)

    def _answer(
        self, descriptor: int, flows: list[Flow], lengths: list[int], unanswered: list[int]
    ) -> None:
        """Send the answers of a batch but those that are `unanswered`, in runs without a gap."""
        start = unsent = unsent_bytes = 0
        for stop in (*unanswered, len(flows)):
            while start < stop:
                try:
                    start += self._batch.send(descriptor, start, stop)
                except OSError as error:
                    flow = flows[start]
                    flow.unsent += 1
                    flow.error = named(error)
                    flow.bytes_unanswered += lengths[start]
                    unsent, unsent_bytes = unsent + 1, unsent_bytes + lengths[start]
                    start += 1
            start = stop + 1
        for index in unanswered:
            flows[index].bytes_unanswered += lengths[index]
            unsent_bytes += lengths[index]
        counters = self.counters
        counters.datagrams_unsent += unsent
        counters.datagrams_sent += len(flows) - unsent - len(unanswered)
        counters.bytes_sent += sum(lengths) - unsent_bytes

    def _begin(self, envelope: bytes, now: float) -> Flow:
        """Remember a new peer."""
        if not self._flows:
            self._plan_sweep(now)
        local = self._batch.asked(envelope), self.local[1]
        peer = self._batch.peer(envelope)
        unknown = self._batch.local(envelope) == UNKNOWN
        flow = Flow(self._settings, peer, local, self._judge(envelope), now, source_unknown=unknown)
        self._flows[envelope] = flow
        self.counters.flows += 1
        self._report(flow.began())
        return flow

    def _make_room(self) -> None:
        """Forget those who have been known for longest, once their last datagrams are counted."""
        while len(self._flows) > self._settings.max_flows:
            self._end(next(iter(self._flows)), "full")

    def _judge(self, envelope: bytes) -> tuple[str, str] | None:
        batch = self._batch
        host = batch.peer(envelope)[0]
        return self._gate.datagram_refusal(host, batch.asked(envelope), batch.local(envelope))

    def _end(self, envelope: bytes, reason: str) -> None:
        flow = self._flows.pop(envelope)
        self.counters.datagrams_refused += flow.refused
        self.counters.datagrams_truncated += flow.truncated
        self._report(flow.ended(reason))

    def _plan_sweep(self, now: float) -> None:
        self._sweep_at = now + min(LONGEST_SWEEP_SECONDS, self._settings.flow_seconds / 4)

    def _sweep(self, now: float) -> None:
        """End the flows that have been silent for long enough, and look for drops."""
        self._plan_sweep(now)
        limit = self._settings.flow_seconds
        silent = [key for key, flow in self._flows.items() if now - flow.active_at >= limit]
        for envelope in silent:
            self._end(envelope, "silent")
        self.counters.datagrams_dropped += self._drops.look(now)

    def _failed(self, error: OSError, now: float) -> None:
        if error.errno not in PEER_ERRORS and error.errno not in PASSING_ERRORS:
            raise error
        self._trouble.occurred(error, now, pause=error.errno in PASSING_ERRORS)

    def _trouble_began(self, error: OSError, pause_ms: int) -> Event:
        return ReceiveTrouble(self._settings.name, *self.local, named(error), pause_ms)

    def _trouble_ended(self, errors: int, seconds: float) -> Event:
        return ReceiveRecovered(self._settings.name, *self.local, errors, seconds)
