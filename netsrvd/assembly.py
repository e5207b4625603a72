"""Builds every part from the settings and hands each what it needs.

The only place that knows all rooms. Read it from top to bottom: the configuration is read with the
words of the rooms; sockets are adopted and opened; then the house is built around them.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from netsrvd import admission
from netsrvd.config import changes, files
from netsrvd.config.schema import Vocabulary
from netsrvd.counters import Counters
from netsrvd.duty import Duty
from netsrvd.errors import DetachError, NetsrvdError
from netsrvd.events import LEVELS, Event
from netsrvd.events.life import ThreadFailed
from netsrvd.events.log import LogFallback
from netsrvd.events.sockets import FamilyMissing, Listening, ListeningEnded, OptionAdjusted
from netsrvd.listeners.acceptor import Acceptor
from netsrvd.listeners.datagram import Receiver
from netsrvd.listeners.worker import Worker
from netsrvd.reporting import journal, stderr, syslog
from netsrvd.reporting.reporter import Log, Reporter
from netsrvd.services import SERVICES
from netsrvd.settings import Endpoint, ListenerSettings, Settings
from netsrvd.sockets import activation, bind, options
from netsrvd.sockets.activation import Passed
from netsrvd.sockets.bind import Opened

WORDS = Vocabulary(
    services=SERVICES,
    options=options.OPTIONS,
    read_option=options.parse,
    read_access=admission.checked_entry,
)

LOGS: dict[str, Callable[[], Log]] = {
    "journal": journal.JournalLog,
    "syslog": syslog.SyslogLog,
    "stderr": stderr.StderrLog,
}
LOG_SOCKETS = {"journal": journal.SOCKET, "syslog": syslog.SOCKET}

Sockets = dict[Endpoint, list[Opened]]


def read_configuration(path: Path | None) -> files.Configuration:
    """Read and check the configuration; raises ConfigError with all its faults."""
    return files.load(path, WORDS)


def open_sockets(settings: Settings, passed: list[Passed]) -> tuple[Sockets, list[Event]]:
    """Adopt what systemd passed and bind what nobody passed; or nothing at all.

    Returns the sockets and what is to be reported about them. Raises ActivationError or
    SocketError, with nothing left open but what systemd passed.
    """
    sockets: Sockets = {}
    for opened in activation.adopt(passed, settings.listeners):
        sockets.setdefault(Endpoint(opened.listener.name, opened.protocol), []).append(opened)
    adopted = {(end.listener, end.protocol) for end in sockets}
    wanted = changes.endpoints(settings, adopted)
    bound, notes = bind_all({end: wanted[end] for end in wanted if end not in sockets})
    sockets |= bound
    notes += [note for all_of in sockets.values() for one in all_of for note in _opened(one)]
    return sockets, notes


def bind_all(wanted: changes.Endpoints) -> tuple[Sockets, list[Event]]:
    """Open the sockets of all endpoints; or none, and raise SocketError."""
    sockets: Sockets = {}
    missing: list[Event] = []
    try:
        for endpoint, listener in wanted.items():
            try:
                sockets[endpoint] = [bind.open_endpoint(endpoint, listener)]
            except bind.FamilyMissingError as error:
                missing.append(FamilyMissing(listener.name, endpoint.protocol, str(error)))
    except NetsrvdError:
        for [opened] in sockets.values():
            opened.sock.close()
        raise
    return sockets, missing


def choose_log(target: str, *, detached: bool) -> tuple[str, list[Event]]:
    """Return the log to be used for a configured target, and what is to be reported about it.

    `auto` is the journal under systemd, syslog off the terminal, standard error otherwise. An
    absent log is replaced by the next one that is there; raises DetachError if there is none.
    """
    if target == "auto":
        target = "syslog" if detached else "journal" if _started_by_systemd() else "stderr"
    usable = [name for name in ("journal", "syslog") if LOG_SOCKETS[name].exists()]
    usable += [] if detached else ["stderr"]
    if target in usable:
        return target, []
    if not usable:
        raise DetachError("there is neither syslog nor a journal to write to; run without --detach")
    reason = "it is closed" if target == "stderr" else f"{LOG_SOCKETS[target]} does not exist"
    return usable[0], [LogFallback(target, usable[0], reason)]


def _started_by_systemd() -> bool:
    """Return whether standard error is the journal (JOURNAL_STREAM in systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno() if sys.stderr else 2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def worker_count(configured: int) -> int:
    """Return how many workers to start: with the GIL, more than one gain nothing."""
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return configured or (1 if has_gil else os.cpu_count() or 1)


class House:
    """All the parts that run. Owned by the main thread.

    `wake` is called, in any thread, when a thread has failed or a worker has become empty.
    """

    def __init__(
        self, settings: Settings, sockets: Sockets, log: str, wake: Callable[[], None]
    ) -> None:
        self._wake = wake
        self._failure_port = None
        self.failures: list[str] = []
        self.reporter = Reporter(
            LOGS[log](),
            LEVELS[settings.log.level],
            settings.log.queue_records,
            self._failed,
            waits=settings.log.when_full == "wait",
        )
        self.report = self.reporter.port()
        self.workers = [
            Worker(number, self.reporter.port(), wake, self._failed)
            for number in range(1, worker_count(settings.workers) + 1)
        ]
        self._identify = _identities()
        self._movers: dict[Endpoint, list[Acceptor | Receiver]] = {}
        self._retired: list[Acceptor | Receiver] = []
        for endpoint, opened in sockets.items():
            self._movers[endpoint] = [self._mover(one) for one in opened]

    @property
    def adopted(self) -> set[tuple[str, str]]:
        """Return the listener and protocol of each socket that systemd passed."""
        return {(end.listener, end.protocol) for end in self._movers if not end.port}

    @property
    def connections(self) -> int:
        """How many TCP connections are live."""
        return sum(worker.live for worker in self.workers)

    @property
    def flows(self) -> int:
        """How many UDP flows are live."""
        movers = itertools.chain.from_iterable(self._movers.values())
        return sum(mover.flows for mover in movers if isinstance(mover, Receiver))

    def counters(self) -> Counters:
        """Return the sums of all threads since the start."""
        movers = itertools.chain(*self._movers.values(), self._retired)
        return sum((part.counters for part in (*movers, *self.workers)), Counters())

    def duties(self) -> list[Duty]:
        """Return all threads that must make progress, those who take new clients first."""
        movers = itertools.chain.from_iterable(self._movers.values())
        return [part.duty for part in (*movers, *self.workers, self.reporter)]

    def start(self) -> None:
        """Start all threads, the log first and those who take new clients last."""
        for duty in reversed(self.duties()):
            duty.start()

    def apply(self, plan: changes.Plan, sockets: Sockets, settings: Settings) -> None:
        """Change what runs to the new settings; cannot fail."""
        self.reporter.level = LEVELS[settings.log.level]
        for endpoint in plan.close:
            self._close(endpoint)
        for endpoint, listener in plan.keep.items():
            for mover in self._movers.get(endpoint, ()):
                self._update(mover, listener)
        by_name = {listener.name: listener for listener in settings.listeners}
        for worker in self.workers:
            worker.update(by_name)
        for endpoint, opened in sockets.items():
            self._movers[endpoint] = [self._mover(one) for one in opened]
            for mover in self._movers[endpoint]:
                mover.duty.start()

    def stop_listening(self) -> None:
        """Take nobody new any more, and have the workers tell when they are empty."""
        movers = list(itertools.chain.from_iterable(self._movers.values()))
        for mover in movers:
            mover.stop()
        for mover in movers:
            mover.duty.join(JOIN_SECONDS)
        for worker in self.workers:
            worker.drain()

    def stop_workers(self) -> int:
        """Close the connections that are left; return how many they were."""
        for worker in self.workers:
            worker.stop()
        for worker in self.workers:
            worker.duty.join(JOIN_SECONDS)
        return sum(worker.cut for worker in self.workers)

    def stop_reporting(self) -> None:
        """Write what is still to be written, as far as the log takes it."""
        self.reporter.stop()
        self.reporter.duty.join(JOIN_SECONDS)

    def _close(self, endpoint: Endpoint) -> None:
        for mover in self._movers.pop(endpoint, ()):
            mover.stop()
            mover.duty.join(JOIN_SECONDS)
            self._retired.append(mover)
            self.report(ListeningEnded(endpoint.listener, endpoint.protocol, *mover.local))

    def _mover(self, opened: Opened) -> Acceptor | Receiver:
        """Build what serves one socket."""
        listener = opened.listener
        stream, datagrams = SERVICES[listener.service]
        gate, port = _gate(listener), self.reporter.port()
        if opened.protocol == "udp":
            return Receiver(opened.sock, listener, gate, datagrams(), port, self._failed)
        return Acceptor(
            opened.sock,
            listener,
            gate,
            stream,
            self.workers,
            port,
            self._identify,
            self._failed,
        )

    @staticmethod
    def _update(mover: Acceptor | Receiver, listener: ListenerSettings) -> None:
        stream, datagrams = SERVICES[listener.service]
        if isinstance(mover, Acceptor):
            mover.update(listener, _gate(listener), stream)
        else:
            mover.update(listener, _gate(listener), datagrams())

    def _failed(self, name: str, error: BaseException) -> None:
        """Report the failure of a thread (called in that thread) and have the process end."""
        import traceback  # noqa: PLC0415 - for the one time that it is needed

        text = "".join(traceback.format_exception(error))
        self.failures.append(f"thread {name} failed: {error!r}\n{text}")
        self.reporter.put(ThreadFailed(name, repr(error), text))
        self._wake()


JOIN_SECONDS = 5.0
"""How long to wait for a thread that was asked to end. None needs so long unless it is stuck."""


def _gate(listener: ListenerSettings) -> admission.AccessGate:
    return admission.AccessGate(listener.allow, listener.deny)


def _identities() -> Callable[[], str]:
    """Return what draws the ids of connections: unique on this host, also across restarts."""
    prefix, numbers = f"{time.time_ns() // 1_000_000:x}", itertools.count(1)
    return lambda: f"{prefix}-{next(numbers)}"


def _opened(opened: Opened) -> list[Event]:
    listener, where = opened.listener, opened.address()
    found: list[Event] = [
        OptionAdjusted(listener.name, opened.protocol, *adjustment)
        for adjustment in opened.adjustments
    ]
    listening = Listening(listener.name, listener.service, opened.protocol, *where, opened.origin)
    return [listening, *found]
