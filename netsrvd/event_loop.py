"""The event loop of a thread: one epoll(7), timers as deadlines, and calls from other threads."""

import select
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

from netsrvd.errnos import BUG_ERRNOS
from netsrvd.loop_thread import Lag, LoopThread, OnFailure

READ, WRITE = select.EPOLLIN, select.EPOLLOUT

EVENTS_PER_TURN = 512
"""Descriptors that one epoll_wait(2) returns. It bounds a turn, and so what each of them waits."""

CALLS_PER_TURN = 64
"""Calls from other threads that run in one turn; the others run in the next one."""

PAUSE_SECONDS = 0.1
"""How long to wait after an error of epoll_wait(2) that may pass."""

CALL_SECONDS = 5.0
"""How long `call_and_wait` waits for a loop that does not answer."""

LOOK_SECONDS = 0.05
"""How often `call_and_wait` checks meanwhile whether the loop has failed."""

Result = TypeVar("Result")


class Watched(Protocol):
    """What a descriptor belongs to."""

    def on_ready(self, events: int, now: float) -> None:
        """Act on the events of epoll_wait(2), at a time of time.monotonic()."""


class Timer(Protocol):
    """What has work to do at a time, besides that of its descriptors."""

    def run_due(self, now: float) -> float:
        """Do the work that is due; return when there is more, infinite for never."""


class EventLoop:
    """Calls objects when their descriptors are ready, in one thread from `start` to `stop`.

    Other threads may call what stands under "for any thread" alone; before `start` and after `join`
    the caller's thread has the loop. An exception that a callback raises ends the loop:
    `on_failure(name, exception)` is called in its thread.

    A timer costs nothing in a turn in which none is due: the loop keeps the earliest deadline. To
    look through all timers in each turn would take 30 % of an echo.
    """

    __slots__ = (
        "_deadlines",
        "_epoll",
        "_next_at",
        "_stopping",
        "_thread",
        "_watched",
        "now",
    )

    def __init__(self, name: str, on_failure: OnFailure) -> None:
        self.now = monotonic()
        """The time of this turn, of time.monotonic()."""
        self._deadlines: dict[Timer, float] = {}
        self._next_at = inf
        self._epoll = select.epoll()
        self._watched: list[Watched | None] = []
        """By descriptor. These are small numbers: a list takes a fifth of what a table does."""
        self._stopping = False
        self._thread = LoopThread(name, self._run, on_failure)
        self._have_place(self._thread.calls.fileno())
        self._epoll.register(self._thread.calls, READ)

    # --- for the loop's own thread ----------------------------------------------------------

    def add(self, descriptor: int, watched: Watched, events: int = READ) -> None:
        """Watch a descriptor. Raises OSError if epoll_ctl(2) fails, unless it was reserved."""
        if descriptor >= len(self._watched):
            self._have_place(descriptor)
        try:
            self._epoll.register(descriptor, events)
        except FileExistsError:
            self._epoll.modify(descriptor, events)
        self._watched[descriptor] = watched

    def modify(self, descriptor: int, events: int) -> None:
        """Watch a descriptor for other events; 0 for none but errors."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor that is closed next, which takes it out of epoll(7)."""
        if 0 <= descriptor < len(self._watched):
            self._watched[descriptor] = None

    def remove(self, descriptor: int) -> None:
        """Stop watching a descriptor.

        epoll(7) goes on reporting a descriptor that is closed while another process has its open
        file, such as systemd's descriptor store: such a one needs this before the close.
        """
        self.forget(descriptor)
        with suppress(OSError):
            self._epoll.unregister(descriptor)

    def call_at(self, when: float, timer: Timer) -> None:
        """Call `run_due` at this time, unless it is due earlier anyway.

        A time that is past means the next turn.
        """
        when = max(when, self.now)
        if when < self._deadlines.get(timer, inf):
            self._deadlines[timer] = when
            self._next_at = min(self._next_at, when)

    def forget_timer(self, timer: Timer) -> None:
        """Call `run_due` of this timer no more."""
        self._deadlines.pop(timer, None)

    # --- for any thread ---------------------------------------------------------------------

    def reserve(self, descriptor: int) -> None:
        """Take a place in epoll(7) for a descriptor, so that `add` cannot fail; raises OSError."""
        self._have_place(descriptor)
        self._epoll.register(descriptor, 0)

    def _have_place(self, descriptor: int) -> None:
        """Make the list long enough for a descriptor; it only grows."""
        self._watched += [None] * (descriptor + 1 - len(self._watched))

    def release(self, descriptor: int) -> None:
        """Give up a place that was reserved, or is not there."""
        with suppress(OSError):
            self._epoll.unregister(descriptor)

    @property
    def name(self) -> str:
        """The name of the thread."""
        return self._thread.name

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and not joined."""
        return self._thread.started

    @property
    def thread(self) -> LoopThread:
        """The thread, for the watchdog."""
        return self._thread

    @property
    def lag(self) -> Lag:
        """How late timers and calls of the watchdog ran.

        It is noted where these run, so that a turn without them costs nothing.
        """
        return self._thread.lag

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: object) -> None:
        """Run `call(*arguments)` in the loop's thread."""
        self._thread.calls.put(call, *arguments)

    def call_and_wait(
        self, call: Callable[..., Result], *arguments: object, seconds: float | None = None
    ) -> Result:
        """Run `call(*arguments)` in the loop's thread, and wait; return or raise what it does.

        Raises TimeoutError if the loop does not come to it in `seconds`, by default
        `CALL_SECONDS`. The call runs all the same as soon as the loop comes to it.
        """
        if not self._thread.started or self._thread.ended:
            return call(*arguments)
        outcome: list[Any] = []
        done = threading.Event()

        def run() -> None:
            try:
                outcome.append((call(*arguments), None))
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                outcome.append((None, error))
            done.set()

        self.call_soon_threadsafe(run)
        give_up_at = monotonic() + (CALL_SECONDS if seconds is None else seconds)
        while not done.wait(LOOK_SECONDS):
            if self._thread.ended and not done.is_set():  # it failed before
                return call(*arguments)
            if monotonic() >= give_up_at:
                raise TimeoutError(f"thread {self.name} does not answer")
        [(result, error)] = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def start(self) -> None:
        """Start the thread. Raises ResourceError if the system gives none."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after this turn."""
        self.call_soon_threadsafe(self._stop)

    def join(self, seconds: float) -> bool:
        """Wait until the thread has ended, then close what is open; return False if it still runs.

        After that the loop can watch nothing any more.
        """
        if not self._thread.join(seconds):
            return False
        self._epoll.close()
        return True

    # --- the thread -------------------------------------------------------------------------

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        """Turn until `stop`. The hot path of everything: no call but the callbacks in a turn."""
        poll, watched, calls = self._epoll.poll, self._watched, self._thread.calls
        wakeups = calls.fileno()
        self.now = monotonic()
        self._next_at = max(self._next_at, self.now)  # what was due before the start is not late
        while not self._stopping:
            wait = None if self._next_at == inf else max(0.0, self._next_at - self.now)
            try:
                ready = poll(wait, EVENTS_PER_TURN)
            except OSError as error:  # such as ENOMEM
                if error.errno in BUG_ERRNOS:
                    raise
                ready = []
                sleep(PAUSE_SECONDS)
            self.now = now = monotonic()
            for descriptor, events in ready:
                found = watched[descriptor]
                if found is not None:  # it may have been closed in this turn
                    found.on_ready(events, now)
                elif descriptor == wakeups:
                    calls.run_pending(CALLS_PER_TURN)
            if now >= self._next_at:
                self._run_due(now)

    def _run_due(self, now: float) -> None:
        self._thread.lag.note(now - self._next_at, now)
        for timer, due_at in list(self._deadlines.items()):
            if now >= due_at and timer in self._deadlines:
                self._deadlines[timer] = inf  # so that what it calls may ask for an earlier time
                due_at = max(timer.run_due(now), now)  # noqa: PLW2901
                if timer in self._deadlines:
                    self._deadlines[timer] = min(self._deadlines[timer], due_at)
        self._deadlines = {timer: at for timer, at in self._deadlines.items() if at < inf}
        self._next_at = min(self._deadlines.values(), default=inf)
