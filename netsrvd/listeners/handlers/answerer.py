"""Answers datagrams by a handler: in threads of its own, and later than the batch they came in."""

import socket
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import ClassVar

from netsrvd.counters import Counters
from netsrvd.events.handlers import HandlerStuck
from netsrvd.linux import letter
from netsrvd.listeners.contracts import Handler, Report
from netsrvd.listeners.flow import Flow
from netsrvd.listeners.handlers.crew import Crew, Job
from netsrvd.listeners.handlers.handled import describable
from netsrvd.listeners.trouble import named
from netsrvd.tracebacks import described

WAITING_PER_THREAD = 8
"""Datagrams that may wait for each thread; more would wait for longer than who asked does, and be
64 KiB each."""

STUCK_SECONDS = 10.0
"""How long a handler may work on a datagram before the log says so."""

FAILURES_TOLD = 10
"""Failures of a second that have records: whoever finds a bug must not be able to fill the log."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram, for its handler, which returns the answer, or None for none."""

    payload: bytes
    peer: tuple[str, int]
    """Who sent it. Nothing proves that: senders of datagrams can be forged."""
    local: tuple[str, int]
    """The address and port of ours that it was sent to."""
    listener: str
    """The name of the listener that received it."""
    protocol: ClassVar[str] = "udp"


class Question:
    """A datagram on its way through a handler, and how its answer finds back."""

    __slots__ = ("begun_at", "datagram", "envelope", "flow", "sock", "told")

    def __init__(
        self, datagram: Datagram, flow: Flow, envelope: bytes, sock: socket.socket
    ) -> None:
        self.datagram = datagram
        self.flow = flow
        self.envelope = envelope
        self.sock = sock
        self.begun_at = inf
        self.told = False

    def work(self, handler: Handler) -> bytes | BaseException | None:
        """Return what the handler returns or raises (a thread of the crew)."""
        self.begun_at = monotonic()
        try:
            found = handler(self.datagram)
            return found if found is None else bytes(memoryview(found))
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it ends one datagram
            return describable(error)


class Answerer:
    """A listener's handler of datagrams, with its crew. Owned by the listener's datagram thread.

    A datagram is counted as one without an answer until it has one.
    """

    __slots__ = ("_counters", "_failures", "_open", "_report", "_told_until", "crew", "handler")

    def __init__(
        self,
        handler: Handler,
        crew: Crew,
        counters: Counters,
        report: Report,
    ) -> None:
        self.handler = handler
        self.crew = crew
        self._counters = counters
        self._report = report
        self._open: set[Question] = set()
        self._failures = 0
        self._told_until = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether an answer may still come."""
        return bool(self.crew.busy or self.crew.waiting)

    @property
    def is_full(self) -> bool:
        """Whether no more datagrams may wait."""
        return len(self.crew.waiting) >= WAITING_PER_THREAD * self.crew.most

    @property
    def rule(self) -> str:
        """Return why one more is refused then."""
        return (
            f"{self.crew.busy} of handler_threads = {self.crew.most} are busy and "
            f"{len(self.crew.waiting)} wait"
        )

    def ask(self, payload: bytes, flow: Flow, envelope: bytes, sock: socket.socket) -> None:
        """Have a datagram answered. `sock` is where it came in; it may be closed meanwhile."""
        datagram = Datagram(payload, flow.peer, flow.local, flow.settings.name)
        question = Question(datagram, flow, envelope, sock)
        flow.silent += 1
        self._open.add(question)
        handler = self.handler
        job = Job(lambda: question.work(handler), lambda found: self._answered(question, found))
        self.crew.give(job)

    def resize(self, threads: int) -> None:
        """Have so many threads from now on."""
        self.crew.resize(threads)

    def look(self, now: float) -> None:
        """Tell which datagrams a handler has worked on for long."""
        self.crew.assign()
        for question in self._open:
            seconds = now - question.begun_at
            if seconds >= STUCK_SECONDS and not question.told:
                question.told = True
                settings, peer = question.flow.settings, question.flow.peer
                self._report(HandlerStuck(settings.name, settings.service, *peer, seconds))

    def dismiss(self) -> None:
        """End the crew; what is being answered is answered, and what waits is not."""
        self.crew.dismiss()

    def _answered(self, question: Question, found: bytes | BaseException | None) -> None:
        self._open.discard(question)
        if isinstance(found, BaseException):
            self._unsent(question.flow, described(found))
            self._failed(question, found)
        elif found is not None:
            self._send(question, found)

    def _send(self, question: Question, found: bytes) -> None:
        """Send an answer, cut as any other: see `Batch.reply`."""
        flow = question.flow
        longest = max(len(question.datagram.payload), flow.settings.reply_floor_bytes)
        answer = found[:longest]
        try:
            letter.answer(question.sock, question.envelope, answer, pinned=flow.pinned)
        except OSError as error:  # also EBADF: the socket was closed by a reload
            self._unsent(flow, named(error))
            return
        flow.source.owe(len(answer) - len(question.datagram.payload))
        flow.silent -= 1
        flow.bytes_unanswered -= len(answer)
        self._counters.datagrams_sent += 1
        self._counters.bytes_sent += len(answer)

    def _unsent(self, flow: Flow, error: str) -> None:
        flow.silent -= 1
        flow.unsent += 1
        flow.error = error
        self._counters.datagrams_unsent += 1

    def _failed(self, question: Question, error: BaseException) -> None:
        """Report a failure of the handler's, unless there were many of late."""
        now = monotonic()
        if now >= self._told_until:
            self._told_until, self._failures = now + 1.0, 0
        self._failures += 1
        if self._failures <= FAILURES_TOLD:
            self._report(question.flow.service_failed(error))
