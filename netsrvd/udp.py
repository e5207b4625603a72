"""A UDP listener: receives a batch of datagrams, checks them, and sends the answers."""

import socket
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, cast

from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.addresses import UNKNOWN, host_and_port, is_among
from netsrvd.contracts import (
    CONGESTED_SECONDS,
    NOT_CONFIGURED,
    Addresses,
    Peer,
    Refusal,
    Report,
)
from netsrvd.counters import Counters
from netsrvd.errnos import BUG_ERRNOS, RECEIVED_ERRNOS, format_errno
from netsrvd.event_loop import READ, EventLoop
from netsrvd.events.flows import FlowRecordsSuppressed, ReceiveFailing, ReceiveRecovered
from netsrvd.flow import Flow
from netsrvd.linux.mmsg import LAYOUTS, PAYLOAD_BYTES, Batch, has_times, packet_info
from netsrvd.log.drops import KernelDrops
from netsrvd.log.refusals import RefusalLog
from netsrvd.log.throttle import ErrorThrottle
from netsrvd.loop_thread import OnFailure
from netsrvd.proxy_datagrams import ProxyDatagrams
from netsrvd.services.base import Datagrams, Handler
from netsrvd.settings import ListenerSettings
from netsrvd.sockets.bind import cookie
from netsrvd.tracebacks import described

if TYPE_CHECKING:
    from netsrvd.handlers.datagrams import DatagramHandler
    from netsrvd.timed import TimedDatagrams, TimedService

FLOW_RECORDS_PER_SECOND = 1000
"""New flows that have records of their own: forged senders must not fill the log."""

REFUSED_PEERS_KEPT = 4096
"""Refused peers whose refusal is remembered, which makes refusing cheaper than answering."""

SWEEP_SECONDS = 5.0
"""How often to look for flows that have ended and for datagrams that the kernel dropped."""

CHECKS_PER_TURN = 32
"""Flows of a listener that are checked in one turn after a reload. Thousands would hold up all
datagrams for a fifth of a second."""

Batches = dict[tuple[int, bool], Batch]
"""The buffers of an event loop, which all its sockets share: by address family, and by whether
datagrams are timed."""


class UDPListener:
    """The UDP sockets of one `[listener.NAME]`. Owned by the event loop.

    An error of sending concerns one peer. An error of receiving that speaks of a mistake of ours
    (EBADF, EINVAL, ENOTSOCK, EFAULT) ends the loop; after every other one it goes on.
    """

    __slots__ = (
        "_batches",
        "_check_at",
        "_errors",
        "_is_listening",
        "_is_paused",
        "_on_failure",
        "_payload_bytes",
        "_sockets",
        "_sweep_at",
        "counters",
        "flows_logged",
        "flows_suppressed",
        "handler",
        "is_plain_echo",
        "logged_until",
        "loop",
        "policy",
        "refusals",
        "report",
        "service",
        "settings",
    )

    def __init__(
        self,
        loop: EventLoop,
        settings: ListenerSettings,
        service: Datagrams,
        policy: DatagramPolicy,
        *,
        handler: Handler | None,
        batches: Batches,
        report: Report,
        on_failure: OnFailure,
        payload_bytes: int = PAYLOAD_BYTES,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.service = service
        self.policy = policy
        self.counters = Counters()
        self.report = report
        self.refusals = RefusalLog(report, settings, "udp")
        self.handler: DatagramHandler | None = None
        """What answers in the service's place, if the listener has a handler."""
        self.flows_logged = self.flows_suppressed = 0
        self.logged_until = 0.0
        self._batches = batches
        self._on_failure = on_failure
        self._payload_bytes = payload_bytes
        self._errors = ErrorThrottle(report, settings.name, ReceiveFailing, ReceiveRecovered)
        self._sockets: dict[int, UDPSocket] = {}
        self._is_listening, self._is_paused = True, False
        self._sweep_at = self._check_at = inf
        self._use_handler(handler)

    # --- from the server, in the loop's thread ------------------------------------------------

    @property
    def flows(self) -> int:
        """How many peers it remembers (any thread)."""
        return sum(sock.flow_count for sock in tuple(self._sockets.values()))

    def live_flows(self) -> list[Flow]:
        """Return the flows, to be looked at (any thread)."""
        return [flow for sock in tuple(self._sockets.values()) for flow in sock.live_flows()]

    def refused_sources(self) -> list[tuple[str, str, int]]:
        """Return the sources that are refused, the reasons and numbers of times (any thread)."""
        return self.refusals.sources()

    @property
    def has_sockets(self) -> bool:
        """Whether it has a socket."""
        return bool(self._sockets)

    def prepare(self, sock: socket.socket, addresses: Addresses = None) -> "UDPSocket":
        """Make what `open` needs for a socket (any thread). Raises OSError or MemoryError."""
        self._reserve_batch(sock.family, is_timed=self.service.is_timed)
        return UDPSocket(self, sock, addresses)

    def reserve(self, service: Datagrams) -> None:
        """Make what a change of the service needs (any thread). Raises OSError or MemoryError."""
        for sock in tuple(self._sockets.values()):
            self._reserve_batch(sock.sock.family, is_timed=service.is_timed)

    def batch(self, family: int) -> Batch:
        """Return the buffers for sockets of this family, as the service needs them."""
        return self._reserve_batch(family, is_timed=self.service.is_timed)

    def _reserve_batch(self, family: int, *, is_timed: bool) -> Batch:
        found = self._batches.get((family, is_timed))
        if found is None:
            control_bytes = 0
            if is_timed:
                from netsrvd.timed import CONTROL_BYTES  # noqa: PLC0415 - most listeners need none

                control_bytes = CONTROL_BYTES
            found = Batch(LAYOUTS[family], self._payload_bytes, control_bytes)
            self._batches[family, is_timed] = found
        return found

    def open(self, prepared: "UDPSocket") -> None:
        """Serve one more socket, which is closed by `close` or `stop`."""
        prepared.use_service()
        self._sockets[prepared.descriptor] = prepared
        self.loop.add(prepared.descriptor, prepared, READ if self._is_listening else 0)

    def restrict(self, sock: socket.socket, addresses: Addresses) -> None:
        """Serve other local addresses of a socket; flows of those that are left out end."""
        found = self._sockets[sock.fileno()]
        if addresses != found.addresses:
            found.addresses = addresses
            self._recheck(found)

    def close(self, sock: socket.socket, reason: str = "reload") -> int:
        """Sum up the flows of one socket and close it; return the kernel's counter of its drops, as
        it is counted.
        """
        found = self._sockets.pop(sock.fileno())
        found.end_all(reason)
        for _ in range(2):  # the second look finds no new drops, which is their end
            found.look_for_drops(monotonic())
        self.loop.remove(found.descriptor)
        sock.close()
        return found.drops_seen

    def go_on_from(self, drops: Mapping[int, int]) -> None:
        """Count also what the kernel dropped while no process had the sockets: another one has seen
        these counters, by the sockets' cookies.
        """
        for found in self._sockets.values():
            if (seen := drops.get(cookie(found.sock))) is not None:
                found.go_on_from(seen)
        self.plan_sweep()

    def update(
        self,
        settings: ListenerSettings,
        service: Datagrams,
        own_ports: Collection[int],
        handler: Handler | None,
    ) -> None:
        """Use new settings from now on; flows that are refused by them end."""
        if service.is_timed and type(service) is type(self.service):
            service.resume(self.service)
        self.settings, self.service = settings, service
        self._use_handler(handler)
        has_changed = self.policy.update(settings, own_ports)
        self.refusals.update(settings)
        for sock in self._sockets.values():
            sock.use_service()
            if has_changed:
                self._recheck(sock)
        self._plan()

    def pause(self, *, paused: bool) -> None:
        """Leave datagrams in the kernel's buffer, or receive again."""
        self._is_paused = paused
        self._listen(self.loop.now)

    def stop(self) -> dict[int, int]:
        """Sum up all flows and close the sockets; return the kernel's counters of their drops, as
        they are counted, by cookie.
        """
        if self.handler is not None:
            self.handler.shutdown()
        drops = {}
        for found in list(self._sockets.values()):
            number = cookie(found.sock)
            drops[number] = self.close(found.sock, "stop")
        self.refusals.expire(monotonic(), all_of_them=True)
        self._report_suppressed()
        self.loop.forget_timer(self)
        return drops

    # --- from its sockets ---------------------------------------------------------------------

    def may_log_flow(self, now: float) -> bool:
        """Return whether one more new flow may have records."""
        if now >= self.logged_until:
            self.logged_until, self.flows_logged = now + 1.0, 0
        self.flows_logged += 1
        is_logged = self.flows_logged <= FLOW_RECORDS_PER_SECOND
        self.flows_suppressed += not is_logged
        return is_logged

    def plan_sweep(self) -> None:
        """Look at the flows and drops in a while."""
        if self._sweep_at == inf:
            self._sweep_at = self.loop.now + min(SWEEP_SECONDS, self.settings.flow_seconds / 4)
            self._plan()

    def plan_refusals(self) -> None:
        """Sum up refusals, and look for drops among them, in time."""
        self.plan_sweep()
        self._plan()

    def receive_failed(self, error: OSError, local: Peer, now: float) -> None:
        """Go on after an error of recvmmsg(2), unless it speaks of a mistake of ours."""
        if error.errno in BUG_ERRNOS:
            raise error
        self.counters.receive_errors += 1
        self._errors.record(error, local, now, pause=error.errno not in RECEIVED_ERRNOS)
        self._listen(now)
        self._plan()

    def waits_for_log(self, now: float) -> bool:
        """Return whether the log has no room; then stop receiving until it has."""
        if not self.report.congested:
            return False
        self._listen(now)
        return True

    # --- time ---------------------------------------------------------------------------------

    def run_due(self, now: float) -> float:
        """End flows that are silent, check some after a reload, sum up refusals and errors, receive
        again after a pause.
        """
        if now >= self._sweep_at:
            self._sweep(now)
        if now >= self._check_at:
            self._check()
        self._errors.expire(now)
        self.refusals.expire(now)
        self._listen(now)
        return self._due_at(now)

    def _sweep(self, now: float) -> None:
        for sock in self._sockets.values():
            sock.sweep(now)
            sock.look_for_drops(now)
        self._report_suppressed()
        if self.handler is not None:
            self.handler.report_stuck(now)
        self._sweep_at = inf
        is_dropping = any(sock.is_dropping for sock in self._sockets.values())
        if self.flows or is_dropping or (self.handler is not None and self.handler.is_busy):
            self.plan_sweep()

    def _recheck(self, sock: "UDPSocket") -> None:
        """Check the flows of a socket by the new settings, each before its next datagram."""
        sock.recheck_access()
        self._check_at = self.loop.now
        self._plan()

    def _check(self) -> None:
        """Check flows that have not been since a reload, `CHECKS_PER_TURN` at most."""
        left = CHECKS_PER_TURN
        for sock in self._sockets.values():
            left -= sock.check_some(left)
        self._check_at = inf if left else self.loop.now

    def _listen(self, now: float) -> None:
        """Watch the sockets while datagrams may be received."""
        wanted = not (self._is_paused or self.report.congested or self._errors.pausing(now))
        if wanted != self._is_listening:
            self._is_listening = wanted
            for descriptor in self._sockets:
                self.loop.modify(descriptor, READ if wanted else 0)
        if not wanted:
            self._plan()

    def _plan(self) -> None:
        self.loop.call_at(self._due_at(self.loop.now), self)

    def _due_at(self, now: float) -> float:
        return min(
            self._sweep_at,
            self._check_at,
            self._errors.due_at,
            self.refusals.due_at,
            now + CONGESTED_SECONDS if self.report.congested else inf,
        )

    def _report_suppressed(self) -> None:
        if self.flows_suppressed:
            self.report(FlowRecordsSuppressed(self.settings.name, self.flows_suppressed))
            self.flows_suppressed = 0

    def _use_handler(self, handler: Handler | None) -> None:
        """Use a handler for answers from now on, or the service if there is none."""
        old = self.handler
        if old is not None and old.handler is handler:
            old.resize(self.settings.handler_threads)
        else:
            if old is not None:
                old.shutdown()
            self.handler = self._made(handler) if handler is not None else None
        plain = self.handler is None and self.service.is_echo
        self.is_plain_echo = plain and not self.settings.proxies

    def _made(self, handler: Handler) -> "DatagramHandler":
        from netsrvd.handlers import datagrams, pool  # noqa: PLC0415 - most listeners need none

        threads = pool.ThreadPool(
            f"handler {self.settings.name}",
            self.settings.handler_threads,
            self.loop.thread.calls,
            self._on_failure,
        )
        return datagrams.DatagramHandler(handler, threads, self.counters, self.report)


class UDPSocket:
    """One UDP socket and its flows. Owned by the event loop."""

    __slots__ = (
        "_drops",
        "_forwarded",
        "_listener",
        "_refused",
        "_unchecked",
        "addresses",
        "batch",
        "descriptor",
        "flows",
        "local",
        "sock",
        "timed",
    )

    def __init__(self, listener: UDPListener, sock: socket.socket, addresses: Addresses) -> None:
        self.sock = sock
        self.descriptor = sock.fileno()
        self.addresses = addresses
        """The local addresses that are served; None for every one."""
        self.local = host_and_port(sock.getsockname())
        self.flows: dict[bytes, Flow] = {}
        """By their keys: each is a message header (`Batch.headers`), which the name of the client
        follows behind a proxy (`ProxyDatagrams.unwrap`)."""
        self._unchecked: dict[bytes, Flow] = {}
        """Those that have not been checked since a reload, by the same keys."""
        self.batch = listener.batch(sock.family)
        self.timed: TimedDatagrams | None = None
        """What reads and answers datagrams whose service asks when they came."""
        self._listener = listener
        self._drops = KernelDrops(sock, listener.report, (listener.settings.name, *self.local))
        self._forwarded = ProxyDatagrams(listener.counters)
        self._refused: dict[bytes, tuple[Refusal, Peer, Peer, Peer | None]] = {}
        """Refused peers by the same keys: refusal, peer, destination, proxy."""

    def use_service(self) -> None:
        """Receive as the listener's service needs it: with more control messages or without."""
        is_timed = self._listener.service.is_timed
        self.batch = self._listener.batch(self.sock.family)
        if not is_timed and self.timed is None and not has_times(self.sock):
            return
        from netsrvd import timed  # noqa: PLC0415 - most listeners need none

        if is_timed and self.timed is None:
            timed.ask(self.sock, wanted=True)
            self.timed = timed.TimedDatagrams(self.sock, self.batch)
        elif not is_timed:  # also if another listener or process has asked for them
            timed.ask(self.sock, wanted=False)
            timed.forget_times(self.sock)
            self.timed = None

    # --- the loop -----------------------------------------------------------------------------

    def on_ready(self, _events: int, now: float) -> None:
        """Receive one batch and answer it. The hot path of UDP."""
        listener, batch = self._listener, self.batch
        if listener.report.may_wait and listener.waits_for_log(now):
            return
        try:
            count = batch.receive(self.descriptor)
        except OSError as error:
            listener.receive_failed(error, self.local, now)
            return
        if count == 1 and listener.is_plain_echo and self._echo_one(now):
            return
        if count:
            self._serve(count, now)

    def _echo_one(self, now: float) -> bool:
        """Echo the only datagram of a batch; return False if that takes more than a copy."""
        batch, counters = self.batch, self._listener.counters
        key, length, is_truncated = batch.first()
        flow = self.flows.get(key)
        if flow is None or is_truncated or flow.needs_source or flow.source.limited:
            return False
        if not batch.send_first(self.descriptor):
            return False
        flow.received += 1
        flow.bytes_received += length
        flow.active_at = now
        counters.datagrams_received += 1
        counters.bytes_received += length
        counters.datagrams_sent += 1
        counters.bytes_sent += length
        return True

    def _serve(self, count: int, now: float) -> None:
        """Answer a batch. An error of sending is counted in its flow."""
        batch, listener, known = self.batch, self._listener, self.flows
        timed = self.timed
        keys: Sequence[bytes] = batch.headers(count) if timed is None else timed.read(count)
        if listener.settings.proxies:
            keys = self._forwarded.unwrap(batch, keys, listener.policy.is_proxy)
        lengths = batch.lengths(count)
        batch.reply_as_received(count)
        flows: list[Flow | None] = []
        unanswered = []
        for index, key in enumerate(keys):
            flow = known.get(key) or self._new_flow(key, now)
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
                self._refuse(flow, (excess, listener.policy.rule(excess)), now)
                unanswered.append(index)
            elif flow.needs_source:
                self._set_reply_source(index, key, flow)
        received_bytes = sum(lengths)
        unanswered = self._with_truncated(flows, unanswered)
        if timed is not None:
            self._answer_timed(timed, flows, unanswered, now)
            flows, lengths, unanswered = [], [], []
        elif listener.handler is not None:
            unanswered = self._dispatch(listener.handler, flows, keys, unanswered, now)
        elif not listener.service.is_echo:
            unanswered = self._run_service(flows, lengths, unanswered)
        self._answer(flows, lengths, unanswered)
        self._evict_oldest()
        listener.counters.datagrams_received += count
        listener.counters.bytes_received += received_bytes

    # --- flows --------------------------------------------------------------------------------

    @property
    def flow_count(self) -> int:
        """The number of flows (any thread)."""
        return len(self.flows) + len(self._unchecked)

    def live_flows(self) -> list[Flow]:
        """Return the flows (any thread)."""
        return list({**self._unchecked, **self.flows}.values())

    def recheck_access(self) -> None:
        """Have each flow checked by the new settings: by `check_some`, or when its peer sends."""
        self._refused.clear()
        self._forwarded.forget()
        self._unchecked |= self.flows
        self.flows = {}

    def check_some(self, count: int) -> int:
        """Check `count` flows at most; return the number."""
        keys = list(islice(self._unchecked, count))
        for key in keys:
            self._check(key)
        if keys and not self._unchecked:  # peers that have sent meanwhile stand before older ones
            self.flows = dict(sorted(self.flows.items(), key=lambda each: each[1].opened_at))
        return len(keys)

    def _check(self, key: bytes) -> Flow | None:
        """Check a flow by the listener's new settings; return None if that refuses and ends it."""
        listener = self._listener
        policy = listener.policy
        flow = self.flows[key] = self._unchecked[key]
        del self._unchecked[key]
        flow.settings = listener.settings
        _, destination, local = self._read(key)
        by_no_proxy = flow.proxy and not policy.is_proxy(flow.proxy[0])
        if (
            by_no_proxy
            or not self._serves(destination)
            or policy.refusal(flow.peer, destination, local, flow.proxy)
        ):
            self.end(key, "reload")
            return None
        # its source may have gained or lost its limits
        source = policy.acquire(flow.peer[0])
        policy.release(flow.source.name)
        flow.source = source
        return flow

    def end(self, key: bytes, reason: str) -> None:
        """Sum up a flow and forget it."""
        flow, listener = self._unchecked.pop(key, None) or self.flows.pop(key), self._listener
        listener.policy.release(flow.source.name)
        listener.counters.flows_ended[reason] += 1
        if flow.has_end_record:
            listener.report(flow.ended(reason))

    def end_all(self, reason: str) -> None:
        """Sum up all flows."""
        for key in (*self._unchecked, *self.flows):
            self.end(key, reason)

    def sweep(self, now: float) -> None:
        """End the flows that have been silent for long enough."""
        limit = self._listener.settings.flow_seconds
        silent = [key for key, flow in self.flows.items() if now - flow.active_at >= limit]
        for key in silent:
            self.end(key, "silent")

    @property
    def is_dropping(self) -> bool:
        """Whether drops were reported whose end has not been reported."""
        return self._drops.ongoing

    @property
    def drops_seen(self) -> int:
        """The kernel's counter of drops at the last look."""
        return self._drops.seen

    def go_on_from(self, drops_seen: int) -> None:
        """Count drops from this counter on, at the next look."""
        self._drops.go_on_from(drops_seen)

    def look_for_drops(self, now: float) -> None:
        """Count what the kernel has dropped since the last look."""
        self._listener.counters.datagrams_dropped += self._drops.look(now)

    def _new_flow(self, key: bytes, now: float) -> Flow | None:
        """Begin the flow of a new peer; None for one that is refused, which is reported. After a
        reload the peer may have one that goes on.
        """
        if key in self._unchecked and (known := self._check(key)):
            return known
        refused = self._refused.get(key)
        if refused is None:
            peer, destination, local = self._read(key)
            proxy: Peer | None = None
            if client := self._forwarded.clients.get(key):
                peer, proxy = client, peer
            refusal = self._refusal(key, peer, destination, local, proxy)
            where = destination, self.local[1]
            if not refusal:
                flow = self._begin(peer, proxy, where, now, unknown=local == UNKNOWN)
                self.flows[key] = flow
                return flow
            if len(self._refused) >= REFUSED_PEERS_KEPT:
                self._refused.clear()
            refused = self._refused[key] = refusal, peer, where, proxy
        refusal, peer, where, proxy = refused
        listener = self._listener
        listener.counters.datagrams_refused[refusal[0]] += 1
        listener.refusals.add(refusal, peer, where, now, proxy)
        listener.plan_refusals()
        return None

    def _refusal(
        self, key: bytes, peer: Peer, destination: str, local: str, proxy: Peer | None
    ) -> Refusal | None:
        if not self._serves(destination):
            return NOT_CONFIGURED
        if error := self._forwarded.errors.get(key):
            return error.reason, str(error)
        return self._listener.policy.refusal(peer, destination, local, proxy)

    def _serves(self, destination: str) -> bool:
        return self.addresses is None or is_among(destination, self.addresses)

    def _begin(
        self, peer: Peer, proxy: Peer | None, local: Peer, now: float, *, unknown: bool
    ) -> Flow:
        listener = self._listener
        source = listener.policy.acquire(peer[0])
        flow = Flow(
            listener.settings, peer, local, source, now, source_unknown=unknown, proxy=proxy
        )
        listener.counters.flows += 1
        flow.is_logged = not listener.policy.is_unlogged(peer[0])
        flow.has_began_record = flow.is_logged and listener.may_log_flow(now)
        if flow.has_began_record:
            listener.report(flow.began())
        listener.plan_sweep()
        return flow

    def _read(self, key: bytes) -> tuple[tuple[str, int], str, str]:
        """Return the peer, the destination address, and the local address that received it."""
        batch = self.batch
        return batch.peer(key), batch.destination(key), batch.local(key)

    def _refuse(self, flow: Flow, refusal: Refusal, now: float) -> None:
        """Count a datagram that exceeds a limit."""
        listener = self._listener
        flow.refused += 1
        listener.counters.datagrams_refused[refusal[0]] += 1
        listener.refusals.add(refusal, flow.peer, flow.local, now, flow.proxy)
        listener.plan_refusals()

    def _evict_oldest(self) -> None:
        """Forget the oldest flows beyond `max_flows`, once their last datagrams are counted."""
        while self.flow_count > self._listener.settings.max_flows:
            self.end(next(iter(self._unchecked or self.flows)), "full")

    # --- answers ------------------------------------------------------------------------------

    def _set_reply_source(self, index: int, key: bytes, flow: Flow) -> None:
        """Set the source of an answer that the routing table or the kernel would not choose."""
        source = packet_info(self.batch.arrival(key), keep_interface=flow.is_link_local)
        self.batch.set_control(index, source.packed())

    def _dispatch(
        self,
        handler: "DatagramHandler",
        flows: list[Flow | None],
        keys: Sequence[bytes],
        unanswered: list[int],
        now: float,
    ) -> list[int]:
        """Pass the datagrams to the handler, which answers later; return all indexes."""
        without = set(unanswered)
        for index, flow in enumerate(flows):
            if flow is None or index in without:
                continue
            if handler.is_full:
                self._refuse(flow, ("busy", handler.rule), now)
            else:
                handler.ask(bytes(self.batch.payload(index)), flow, keys[index], self.sock)
        return list(range(len(flows)))

    def _run_service(
        self, flows: list[Flow | None], lengths: list[int], unanswered: list[int]
    ) -> list[int]:
        """Call the service for each answer; return the indexes of datagrams without one.

        `lengths` becomes those of the answers.
        """
        listener = self._listener
        service, at, without = listener.service, time(), set(unanswered)
        floor = max(service.reply_floor_bytes, listener.settings.reply_floor_bytes)
        failed: list[tuple[Flow, Exception]] = []
        for index, flow in enumerate(flows):
            if flow is None or index in without:
                continue
            try:
                answer = service.answer(self.batch.payload(index), flow, at)
            except Exception as error:  # noqa: BLE001 - ends this datagram alone
                failed.append((flow, error))
                without.add(index)
                continue
            if answer is None:
                flow.unanswered += 1
                without.add(index)
            else:
                sent = self.batch.reply(index, answer, floor)
                flow.source.debit(sent - lengths[index])
                flow.bytes_unanswered += lengths[index] - sent
                lengths[index] = sent
        if failed:
            self._service_failed(failed)
        return sorted(without)

    def _answer_timed(
        self,
        timed: "TimedDatagrams",
        flows: list[Flow | None],
        unanswered: list[int],
        now: float,
    ) -> None:
        """Answer each datagram of a batch by itself, but those that are `unanswered`."""
        listener, counters = self._listener, self._listener.counters
        service = cast("TimedService", listener.service)
        floor = max(service.reply_floor_bytes, listener.settings.reply_floor_bytes)
        result = timed.answer(service, floor, flows, unanswered, now)
        counters.datagrams_sent += result.sent
        counters.bytes_sent += result.sent_bytes
        counters.datagrams_unsent += result.unsent
        for flow, problem in result.invalid:
            self._refuse(flow, ("packet", problem), now)
        if result.failed:
            self._service_failed(result.failed)

    def _service_failed(self, failed: list[tuple[Flow, Exception]]) -> None:
        """Count the datagrams of a batch whose service raised, and report the first."""
        self._listener.counters.datagrams_unsent += len(failed)
        for flow, error in failed:
            flow.unsent += 1
            flow.error = described(error)
        flow, error = failed[0]
        self._listener.report(flow.service_failed(error))

    def _with_truncated(self, flows: list[Flow | None], unanswered: list[int]) -> list[int]:
        """Count the datagrams of which a part is missing; return their indexes with the others."""
        found = self.batch.truncated(len(flows))
        if not found:
            return unanswered
        missing = set(found).difference(unanswered)
        self._listener.counters.datagrams_truncated += len(missing)
        for index in missing:
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
                    start += self.batch.send(self.descriptor, start, stop)
                except OSError as error:
                    flow = flows[start]
                    assert flow is not None
                    flow.unsent += 1
                    flow.error = format_errno(error)
                    flow.bytes_unanswered += lengths[start]
                    unsent, unsent_bytes = unsent + 1, unsent_bytes + lengths[start]
                    start += 1
            start = stop + 1
        for index in unanswered:
            unsent_bytes += lengths[index]
            if flow := flows[index]:
                flow.bytes_unanswered += lengths[index]
        counters = self._listener.counters
        counters.datagrams_unsent += unsent
        counters.datagrams_sent += len(flows) - unsent - len(unanswered)
        counters.bytes_sent += sum(lengths) - unsent_bytes
