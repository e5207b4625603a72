"""Those who serve TCP connections: the workers, and the handlers if a listener has one."""

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from time import monotonic
from typing import Protocol

from netsrvd.assembly import Handle, Services, update_workers, worker_count
from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.worker import RuleAgainst, Worker
from netsrvd.reporting.reporter import Reporter
from netsrvd.settings import ListenerSettings, Settings

JOIN_SECONDS = 5.0
"""How long to wait for a thread that was asked to end. None needs so long unless it is stuck."""


class Server(Protocol):
    """What serves connections: a worker, or `listeners/handlers/server.py`."""

    @property
    def duty(self) -> Duty:
        """The thread."""

    @property
    def counters(self) -> Counters:
        """What it has counted."""

    @property
    def live(self) -> int:
        """How many connections it has."""

    @property
    def drained(self) -> bool:
        """Whether it has become empty after it was asked to tell."""

    @property
    def cut(self) -> int:
        """How many it still had when it was stopped."""

    def connections(self) -> list[Connection]:
        """Return them, to be looked at."""

    def update(self, listeners: Mapping[str, tuple[ListenerSettings, RuleAgainst]]) -> None:
        """Give them new settings."""

    def stop(self) -> None:
        """End them, and the thread."""


class HandlerServer(Server, Protocol):
    """What serves those that have a handler."""

    @property
    def take(self) -> Handle:
        """What takes one more."""

    def drain(self, deadline: float) -> None:
        """Have it tell when it is empty."""


class Staff:
    """All of them, as one. Owned by the main thread.

    `wake` is called, in any thread, when one of them has become empty after `drain()`.
    """

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        wake: Callable[[], None],
        on_failure: OnFailure,
    ) -> None:
        self._reporter = reporter
        self._wake = wake
        self._on_failure = on_failure
        self.workers = [
            Worker(number, reporter.port(), wake, on_failure)
            for number in range(1, worker_count(settings.workers) + 1)
        ]
        self._in_turn = cycle(self.workers)
        self.handlers: HandlerServer | None = None
        """There as soon as a listener has a handler."""

    @property
    def all(self) -> tuple[Server, ...]:
        """Return all parts, each of which has a thread."""
        return (*self.workers, *([self.handlers] if self.handlers else []))

    @property
    def handle(self) -> Handle | None:
        """What takes connections that have a handler."""
        return self.handlers.take if self.handlers else None

    @property
    def live(self) -> int:
        """How many connections are live."""
        return sum(each.live for each in self.all)

    @property
    def handled(self) -> int:
        """How many of them belong to handlers."""
        return self.handlers.live if self.handlers else 0

    @property
    def drained(self) -> bool:
        """Whether all have ended that were live, or on their way here, at `drain()`."""
        return all(each.drained for each in self.all)

    def connections(self) -> list[Connection]:
        """Return the connections that are live, to be looked at (any thread)."""
        return [one for each in self.all for one in each.connections()]

    def hire(self, services: Services) -> list[HandlerServer]:
        """Have what runs handlers if there is a use for it; return what is new, to be started."""
        if self.handlers or not services.handled:
            return []
        from netsrvd.listeners.handlers.server import Handlers  # noqa: PLC0415 - most have no use for it

        self.handlers = Handlers(self._reporter.port(), self._wake, self._on_failure)
        return [self.handlers]

    def remove_handlers(self) -> None:
        """Stop what `hire` returned, before it has taken any connection."""
        if self.handlers:
            self.handlers.stop()
            self.handlers.duty.join(JOIN_SECONDS)
            self.handlers = None

    def update(self, settings: Settings) -> None:
        """Give the live connections their new settings, and end those that may not be there."""
        update_workers(self.all, settings)

    def take(self, connections: Iterable[Connection]) -> None:
        """Serve connections whose services have begun, in this process or in another one."""
        for connection in connections:
            next(self._in_turn).take(connection)

    def movable(self) -> list[Connection]:
        """Return the live connections that another process could go on with.

        Those that have a handler are none of them: they live in code that runs in this process.
        """
        live = [one for worker in self.workers for one in worker.connections()]
        return [one for one in live if one.is_movable]

    def surrender(self) -> list[Connection]:
        """Take them, which nobody serves any more, out of here."""
        given: list[Connection] = []
        for worker in self.workers:
            worker.surrender(given)
            worker.duty.settle(JOIN_SECONDS)
        return given

    def drain(self, seconds: float) -> None:
        """Have all tell when they are empty; handlers are told how long they have."""
        for worker in self.workers:
            worker.drain()
        if self.handlers:
            self.handlers.drain(monotonic() + seconds)

    def drain_handlers(self, seconds: float) -> None:
        """Have handlers tell when they are empty; returns when `handled` counts all of theirs."""
        if self.handlers:
            self.handlers.drain(monotonic() + seconds)
            self.handlers.duty.settle(JOIN_SECONDS)

    def stop(self) -> int:
        """Close the connections that are left; return how many they were."""
        for each in self.all:
            each.stop()
        for each in self.all:
            each.duty.join(JOIN_SECONDS)
        return sum(each.cut for each in self.all)
