"""The house as it runs: all parts and their threads, from start to stop."""

import itertools
import time
import traceback
from collections.abc import Callable

from netsrvd.assembly import Mover, Sockets, build_mover, build_reporter, update_mover, worker_count
from netsrvd.config import changes
from netsrvd.counters import Counters
from netsrvd.duty import Duty
from netsrvd.events import LEVELS
from netsrvd.events.life import ThreadFailed
from netsrvd.events.sockets import ListeningEnded
from netsrvd.listeners.datagram import Receiver
from netsrvd.listeners.worker import Worker
from netsrvd.reporting.reporter import Port
from netsrvd.settings import Endpoint, Settings
from netsrvd.sockets.bind import Opened

JOIN_SECONDS = 5.0
"""How long to wait for a thread that was asked to end. None needs so long unless it is stuck."""


class House:
    """All the parts that run. Owned by the main thread.

    `wake` is called, in any thread, when a thread has failed or a worker has become empty.
    """

    def __init__(
        self, settings: Settings, sockets: Sockets, log: str, wake: Callable[[], None]
    ) -> None:
        self._wake = wake
        self.failures: list[str] = []
        self.reporter = build_reporter(settings, log, self.failed)
        self.report = self.reporter.port()
        self.workers = [
            Worker(number, self.reporter.port(), wake, self.failed)
            for number in range(1, worker_count(settings.workers) + 1)
        ]
        self._identify = _identities()
        self._movers: dict[Endpoint, list[Mover]] = {}
        self._retired = Counters()
        self._ports: dict[Mover, Port] = {}
        for endpoint, opened in sockets.items():
            self._open(endpoint, opened)

    @property
    def adopted(self) -> set[tuple[str, str]]:
        """Return the listener and protocol of each socket that systemd passed."""
        return {(end.listener, end.protocol) for end in self._movers if not end.port}

    @property
    def connections(self) -> int:
        """How many TCP connections are live."""
        return sum(worker.live for worker in self.workers)

    @property
    def drained(self) -> bool:
        """Whether all have ended that were live, or on their way to a worker, at the stop."""
        return all(worker.drained for worker in self.workers)

    @property
    def flows(self) -> int:
        """How many UDP flows are live."""
        return sum(mover.flows for mover in self._every_mover() if isinstance(mover, Receiver))

    def counters(self) -> Counters:
        """Return the sums of all threads since the start."""
        return sum((part.counters for part in (*self._every_mover(), *self.workers)), self._retired)

    def duties(self) -> list[Duty]:
        """Return all threads that must make progress, those who take new clients first."""
        return [part.duty for part in (*self._every_mover(), *self.workers, self.reporter)]

    def start(self) -> None:
        """Start all threads, the log first and those who take new clients last."""
        for duty in reversed(self.duties()):
            duty.start()

    def apply(self, plan: changes.Plan, sockets: Sockets, settings: Settings) -> None:
        """Change what runs to the new settings; cannot fail. Returns when they are in force."""
        self.reporter.level = LEVELS[settings.log.level]
        for endpoint in plan.close:
            self._close(endpoint)
        for endpoint, listener in plan.keep.items():
            for mover in self._movers.get(endpoint, ()):
                update_mover(mover, listener)
        for mover in self._every_mover():
            # Before the workers are told, or a connection that is on its way to one with the old
            # settings would keep them.
            mover.duty.settle(JOIN_SECONDS)
        by_name = {listener.name: listener for listener in settings.listeners}
        for worker in self.workers:
            worker.update(by_name)
        for endpoint, opened in sockets.items():
            for mover in self._open(endpoint, opened):
                mover.duty.start()

    def stop_listening(self) -> None:
        """Take nobody new any more, and have the workers tell when they are empty."""
        movers = self._every_mover()
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

    def _every_mover(self) -> list[Mover]:
        return list(itertools.chain.from_iterable(self._movers.values()))

    def _close(self, endpoint: Endpoint) -> None:
        for mover in self._movers.pop(endpoint, ()):
            mover.stop()
            mover.duty.join(JOIN_SECONDS)
            self._retired += mover.counters
            self.reporter.give_back(self._ports.pop(mover))
            self.report(ListeningEnded(endpoint.listener, endpoint.protocol, *mover.local))

    def _open(self, endpoint: Endpoint, opened: list[Opened]) -> list[Mover]:
        """Build what serves the sockets of an endpoint."""
        found = []
        for one in opened:
            port = self.reporter.port()
            mover = build_mover(one, self.workers, port, self._identify, self.failed)
            self._ports[mover] = port
            found.append(mover)
        self._movers[endpoint] = found
        return found

    def failed(self, name: str, error: BaseException) -> None:
        """Report the failure of a thread (called in that thread) and have the process end."""
        text = "".join(traceback.format_exception(error))
        self.failures.append(f"thread {name} failed: {error!r}\n{text}")
        self.reporter.put(ThreadFailed(name, repr(error), text))
        self._wake()


def _identities() -> Callable[[], str]:
    """Return what draws the ids of connections: unique on this host, also across restarts."""
    prefix, numbers = f"{time.time_ns() // 1_000_000:x}", itertools.count(1)
    return lambda: f"{prefix}-{next(numbers)}"
