"""Answers datagrams by a Python handler, in threads of a pool, later than their batch."""

import socket
from math import inf
from time import monotonic
from typing import NamedTuple

from netsrvd.contracts import Report
from netsrvd.counters import Counters
from netsrvd.errnos import format_errno
from netsrvd.events.handlers import HandlerStuck
from netsrvd.flow import Flow
from netsrvd.handlers.connection import describable
from netsrvd.handlers.pool import Task, ThreadPool
from netsrvd.linux import reply
from netsrvd.services.base import Handler
from netsrvd.tracebacks import described

WAITING_PER_THREAD = 8
"""Datagrams that may wait for each thread; more would wait longer than their clients do, and have
up to 64 KiB each."""

STUCK_SECONDS = 10.0
"""How long a handler may work on a datagram before a record says so."""

FAILURES_PER_SECOND = 10
"""Failures of a second that have records: a client that finds a bug must not fill the log."""


class Datagram(NamedTuple):
    """A datagram, for its handler, which returns the answer, or None for none."""

    payload: bytes
    peer: tuple[str, int]
    """The address and port of the sender, which can be forged."""
    local: tuple[str, int]
    """The local address and port that it was sent to."""
    listener: str
    """The name of the listener that received it."""

    @property
    def protocol(self) -> str:
        """Return `udp`."""
        return "udp"


class PendingDatagram:
    """A datagram that a handler answers, with what is needed to send the answer."""

    __slots__ = ("begun_at", "datagram", "flow", "header", "is_reported", "sock")

    def __init__(self, datagram: Datagram, flow: Flow, header: bytes, sock: socket.socket) -> None:
        self.datagram = datagram
        self.flow = flow
        self.header = header
        self.sock = sock
        self.begun_at = inf
        self.is_reported = False

    def work(self, handler: Handler) -> bytes | BaseException | None:
        """Return what the handler returns or raises (a thread of the pool)."""
        self.begun_at = monotonic()
        try:
            found = handler(self.datagram)
            return found if found is None else bytes(memoryview(found))
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it ends one datagram
            return describable(error)


class DatagramHandler:
    """A listener's handler of datagrams, with its pool. Owned by the udp event loop.

    A datagram is counted as one without an answer until it has one.
    """

    __slots__ = ("_counters", "_failures", "_logged_until", "_open", "_report", "handler", "pool")

    def __init__(
        self,
        handler: Handler,
        pool: ThreadPool,
        counters: Counters,
        report: Report,
    ) -> None:
        self.handler = handler
        self.pool = pool
        self._counters = counters
        self._report = report
        self._open: set[PendingDatagram] = set()
        self._failures = 0
        self._logged_until = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether an answer may still come."""
        return bool(self.pool.busy or self.pool.waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more datagrams may wait."""
        return len(self.pool.waiting) >= WAITING_PER_THREAD * self.pool.size

    @property
    def rule(self) -> str:
        """Return why one more is refused then."""
        return (
            f"{self.pool.busy} of handler_threads = {self.pool.size} are busy and "
            f"{len(self.pool.waiting)} wait"
        )

    def ask(self, payload: bytes, flow: Flow, header: bytes, sock: socket.socket) -> None:
        """Queue a datagram for the handler.

        `header` is its message header (`Batch.headers`). `sock` received it, and may be closed
        meanwhile.
        """
        datagram = Datagram(payload, flow.peer, flow.local, flow.settings.name)
        pending = PendingDatagram(datagram, flow, header, sock)
        flow.unanswered += 1
        self._open.add(pending)
        handler = self.handler
        task = Task(lambda: pending.work(handler), lambda found: self._answered(pending, found))
        self.pool.submit(task)

    def resize(self, threads: int) -> None:
        """Change the number of threads."""
        self.pool.resize(threads)

    def report_stuck(self, now: float) -> None:
        """Report the datagrams on which a handler has worked for `STUCK_SECONDS`."""
        self.pool.assign()
        for pending in self._open:
            seconds = now - pending.begun_at
            if seconds >= STUCK_SECONDS and not pending.is_reported:
                pending.is_reported = True
                settings, peer = pending.flow.settings, pending.flow.peer
                self._report(HandlerStuck(settings.name, settings.service, *peer, seconds))

    def shutdown(self) -> None:
        """End the pool; what is being answered is answered, and what waits is not."""
        self.pool.shutdown()

    def _answered(self, pending: PendingDatagram, found: bytes | BaseException | None) -> None:
        self._open.discard(pending)
        if isinstance(found, BaseException):
            self._unsent(pending.flow, described(found))
            self._failed(pending, found)
        elif found is not None:
            self._send(pending, found)

    def _send(self, pending: PendingDatagram, found: bytes) -> None:
        """Send an answer, cut as any other: see `Batch.reply`."""
        flow = pending.flow
        longest = max(len(pending.datagram.payload), flow.settings.reply_floor_bytes)
        answer = found[:longest]
        try:
            reply.send(pending.sock, pending.header, answer, keep_interface=flow.is_link_local)
        except OSError as error:  # also EBADF: the socket was closed by a reload
            self._unsent(flow, format_errno(error))
            return
        flow.source.debit(len(answer) - len(pending.datagram.payload))
        flow.unanswered -= 1
        flow.bytes_unanswered -= len(answer)
        self._counters.datagrams_sent += 1
        self._counters.bytes_sent += len(answer)

    def _unsent(self, flow: Flow, error: str) -> None:
        flow.unanswered -= 1
        flow.unsent += 1
        flow.error = error
        self._counters.datagrams_unsent += 1

    def _failed(self, pending: PendingDatagram, error: BaseException) -> None:
        """Report a failure of the handler's, unless there were many of late."""
        now = monotonic()
        if now >= self._logged_until:
            self._logged_until, self._failures = now + 1.0, 0
        self._failures += 1
        if self._failures <= FAILURES_PER_SECOND:
            self._report(pending.flow.service_failed(error))
