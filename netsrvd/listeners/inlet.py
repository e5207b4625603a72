"""One UDP socket: who sends to it, and what they are answered, a batch at a time."""

import socket
from collections.abc import Sequence
from time import time

from netsrvd.addresses import UNKNOWN, host_and_port, is_among
from netsrvd.linux.mmsg import LAYOUTS, Batch
from netsrvd.listeners.contracts import Refusal
from netsrvd.listeners.desk import Desk
from netsrvd.listeners.drops import Drops
from netsrvd.listeners.flow import Answerer, Flow
from netsrvd.listeners.proxies.forwarded import Forwarded
from netsrvd.listeners.refusals import NOT_CONFIGURED, Addresses, Peer
from netsrvd.listeners.trouble import named
from netsrvd.tracebacks import described

STRANGERS_KEPT = 4096
"""Refused peers whose verdict is remembered, which makes refusing cheaper than answering."""


class Inlet:
    """One UDP socket with its flows and buffers. Owned by the listener's datagram thread."""

    __slots__ = (
        *("_descriptor", "_desk", "_drops", "_forwarded", "_strangers"),
        *("addresses", "batch", "flows", "local", "sock"),
    )

    def __init__(
        self, sock: socket.socket, desk: Desk, payload_bytes: int, addresses: Addresses = None
    ) -> None:
        self.sock = sock
        self.addresses = addresses
        self.local = host_and_port(sock.getsockname())
        self.flows: dict[bytes, Flow] = {}
        """By their envelopes, behind a proxy by the keys of `Forwarded.unwrap`."""
        self.batch = Batch(LAYOUTS[sock.family], payload_bytes)
        self._descriptor = sock.fileno()
        self._desk = desk
        self._drops = Drops(sock, desk.report, (desk.settings.name, *self.local))
        self._forwarded = Forwarded(desk.counters)
        self._strangers: dict[bytes, tuple[Refusal, Peer, Peer, Peer | None]] = {}
        """Why they are refused, who they are, where they asked, and the proxy that they came by."""

    def serve(self, now: float) -> None:
        """Receive one batch and answer it. The hot path of UDP.

        Raises OSError where recvmmsg(2) failed. An error of sending is counted in its flow.
        """
        batch, desk, known = self.batch, self._desk, self.flows
        count = batch.receive(self._descriptor)
        if not count:
            return
        envelopes: Sequence[bytes] = batch.envelopes(count)
        if desk.settings.proxies:
            envelopes = self._forwarded.unwrap(batch, envelopes, desk.gate.is_proxy)
        lengths = batch.lengths(count)
        batch.reply_as_received(count)
        flows: list[Flow | None] = []
        unanswered = []
        for index, envelope in enumerate(envelopes):
            flow = known.get(envelope) or self._meet(envelope, now)
            flows.append(flow)
            if flow is None:
                unanswered.append(index)
                continue
            length = lengths[index]
            flow.received += 1
            flow.bytes_received += length
            flow.active_at = now
            source = flow.source
            if source.limited and (excess := source.exceeds(length, now)):
                self._refuse(flow, (excess, desk.gate.rule(excess)), now)
                unanswered.append(index)
            elif flow.special:
                self._redirect(index, envelope, flow)
        received_bytes = sum(lengths)
        unanswered = self._with_truncated(flows, unanswered)
        if desk.answerer is not None:
            unanswered = self._pass_on(desk.answerer, flows, envelopes, unanswered, now)
        elif not desk.service.as_received:
            unanswered = self._ask(flows, lengths, unanswered)
        self._answer(flows, lengths, unanswered)
        self._make_room()
        desk.counters.datagrams_received += count
        desk.counters.bytes_received += received_bytes

    def rejudge(self) -> None:
        """Judge all peers by the desk's new settings; those who stay out from now on end."""
        gate = self._desk.gate
        self._strangers.clear()
        self._forwarded.forget()
        for envelope, flow in list(self.flows.items()):
            flow.settings = self._desk.settings
            _, asked, local = self._read(envelope)
            stranded = flow.proxy and not gate.is_proxy(flow.proxy[0])
            if (
                stranded
                or not self._serves(asked)
                or gate.refusal(flow.peer, asked, local, flow.proxy)
            ):
                self.end(envelope, "reload")
            else:  # its source may have gained or lost its limits
                source = gate.enter(flow.peer[0])
                gate.leave(flow.source.name)
                flow.source = source

    def end(self, envelope: bytes, reason: str) -> None:
        """Sum up a flow and forget it."""
        flow, desk = self.flows.pop(envelope), self._desk
        desk.gate.leave(flow.source.name)
        desk.counters.datagrams_truncated += flow.truncated
        if flow.has_end_record:
            desk.report(flow.ended(reason))

    def end_all(self, reason: str) -> None:
        """Sum up all flows."""
        for envelope in list(self.flows):
            self.end(envelope, reason)

    def sweep(self, now: float) -> None:
        """End the flows that have been silent for long enough."""
        limit = self._desk.settings.flow_seconds
        silent = [key for key, flow in self.flows.items() if now - flow.active_at >= limit]
        for envelope in silent:
            self.end(envelope, "silent")

    @property
    def is_dropping(self) -> bool:
        """Whether it was told that the kernel drops, and not yet that it does so no more."""
        return self._drops.lasts

    def look_for_drops(self, now: float) -> None:
        """Count what the kernel dropped since the last look."""
        self._desk.counters.datagrams_dropped += self._drops.look(now)

    def _meet(self, envelope: bytes, now: float) -> Flow | None:
        """Begin the flow of a new peer; None for one that is refused, which is told and counted."""
        stranger = self._strangers.get(envelope)
        if stranger is None:
            peer, asked, local = self._read(envelope)
            proxy: Peer | None = None
            if client := self._forwarded.clients.get(envelope):
                peer, proxy = client, peer
            refusal = self._refusal(envelope, peer, asked, local, proxy)
            where = asked, self.local[1]
            if not refusal:
                flow = self._begin(peer, proxy, where, now, unknown=local == UNKNOWN)
                self.flows[envelope] = flow
                return flow
            if len(self._strangers) >= STRANGERS_KEPT:
                self._strangers.clear()
            stranger = self._strangers[envelope] = refusal, peer, where, proxy
        refusal, peer, where, proxy = stranger
        self._desk.counters.datagrams_refused += 1
        self._desk.refusals.add(refusal, peer, where, now, proxy)
        return None

    def _refusal(
        self, envelope: bytes, peer: Peer, asked: str, local: str, proxy: Peer | None
    ) -> Refusal | None:
        if not self._serves(asked):
            return NOT_CONFIGURED
        if error := self._forwarded.errors.get(envelope):
            return error.reason, str(error)
        return self._desk.gate.refusal(peer, asked, local, proxy)

    def _serves(self, asked: str) -> bool:
        return self.addresses is None or is_among(asked, self.addresses)

    def _begin(
        self, peer: Peer, proxy: Peer | None, local: Peer, now: float, *, unknown: bool
    ) -> Flow:
        desk = self._desk
        source = desk.gate.enter(peer[0])
        flow = Flow(desk.settings, peer, local, source, now, source_unknown=unknown, proxy=proxy)
        desk.counters.flows += 1
        flow.is_logged = not desk.gate.is_unlogged(peer[0])
        flow.told = flow.is_logged and desk.may_tell(now)
        if flow.told:
            desk.report(flow.began())
        return flow

    def _read(self, envelope: bytes) -> tuple[tuple[str, int], str, str]:
        """Return the peer, the address that it asked, and the one of ours that received it."""
        batch = self.batch
        return batch.peer(envelope), batch.asked(envelope), batch.local(envelope)

    def _refuse(self, flow: Flow, refusal: Refusal, now: float) -> None:
        """Count a datagram that exceeds a limit."""
        desk = self._desk
        flow.refused += 1
        desk.counters.datagrams_refused += 1
        desk.refusals.add(refusal, flow.peer, flow.local, now, flow.proxy)

    def _redirect(self, index: int, envelope: bytes, flow: Flow) -> None:
        """Prepare an answer whose way back the routing table or the kernel would not find."""
        if flow.pinned:
            self.batch.pin(index, envelope)
        if flow.source_unknown:
            self.batch.answer_from_asked(index, envelope)

    def _pass_on(
        self,
        answerer: Answerer,
        flows: list[Flow | None],
        envelopes: Sequence[bytes],
        unanswered: list[int],
        now: float,
    ) -> list[int]:
        """Have a handler answer what is to be answered, later; return all indexes."""
        without = set(unanswered)
        for index, flow in enumerate(flows):
            if flow is None or index in without:
                continue
            if answerer.is_full:
                self._refuse(flow, ("busy", answerer.rule), now)
            else:
                answerer.ask(bytes(self.batch.payload(index)), flow, envelopes[index], self.sock)
        return list(range(len(flows)))

    def _ask(
        self, flows: list[Flow | None], lengths: list[int], unanswered: list[int]
    ) -> list[int]:
        """Have the service make each answer; return the indexes of those without one.

        `lengths` becomes those of the answers.
        """
        service, at, without = self._desk.service, time(), set(unanswered)
        floor = max(service.reply_floor_bytes, self._desk.settings.reply_floor_bytes)
        failed: list[tuple[Flow, Exception]] = []
        for index, flow in enumerate(flows):
            if flow is None or index in without:
                continue
            try:
                answer = service.answer(self.batch.payload(index), flow, at)
            except Exception as error:  # noqa: BLE001 - a bug in a service, reported with traceback
                failed.append((flow, error))
                without.add(index)
                continue
            if answer is None:
                flow.silent += 1
                without.add(index)
            else:
                sent = self.batch.reply(index, answer, floor)
                flow.source.owe(sent - lengths[index])
                flow.bytes_unanswered += lengths[index] - sent
                lengths[index] = sent
        if failed:
            self._service_failed(failed)
        return sorted(without)

    def _service_failed(self, failed: list[tuple[Flow, Exception]]) -> None:
        """Count the datagrams of a batch that a bug left without answers, and report the first."""
        self._desk.counters.datagrams_unsent += len(failed)
        for flow, error in failed:
            flow.unsent += 1
            flow.error = described(error)
        flow, error = failed[0]
        self._desk.report(flow.service_failed(error))

    def _with_truncated(self, flows: list[Flow | None], unanswered: list[int]) -> list[int]:
        """Count the datagrams of which a part is missing; return their indexes with the others."""
        found = self.batch.truncated(len(flows))
        if not found:
            return unanswered
        for index in set(found).difference(unanswered):
            flow = flows[index]
            assert flow is not None  # or it would be unanswered already
            flow.truncated += 1
        return sorted({*unanswered, *found})

    def _answer(self, flows: list[Flow | None], lengths: list[int], unanswered: list[int]) -> None:
        """Send the answers of a batch but those that are `unanswered`, in runs without a gap."""
        start = unsent = unsent_bytes = 0
        for stop in (*unanswered, len(flows)):
            while start < stop:
                try:
                    start += self.batch.send(self._descriptor, start, stop)
                except OSError as error:
                    flow = flows[start]
                    assert flow is not None
                    flow.unsent += 1
                    flow.error = named(error)
                    flow.bytes_unanswered += lengths[start]
                    unsent, unsent_bytes = unsent + 1, unsent_bytes + lengths[start]
                    start += 1
            start = stop + 1
        for index in unanswered:
            unsent_bytes += lengths[index]
            if flow := flows[index]:
                flow.bytes_unanswered += lengths[index]
        counters = self._desk.counters
        counters.datagrams_unsent += unsent
        counters.datagrams_sent += len(flows) - unsent - len(unanswered)
        counters.bytes_sent += sum(lengths) - unsent_bytes

    def _make_room(self) -> None:
        """Forget those who have been known for longest, once their last datagrams are counted."""
        while len(self.flows) > self._desk.settings.max_flows:
            self.end(next(iter(self.flows)), "full")
