"""A thread with a queue of calls. netsrvd starts, watches and ends all its threads this way."""

import threading
from collections.abc import Callable
from time import monotonic

from netsrvd.errors import ResourceError
from netsrvd.linux.call_queue import CallQueue

OnFailure = Callable[[str, BaseException], None]


class Lag:
    """How late a thread did what was due. The thread notes; any thread may ask."""

    __slots__ = ("_highest",)

    def __init__(self) -> None:
        self._highest = {FIRST: 0.0}

    def note(self, seconds: float) -> None:
        """Note that something was late by this time."""
        for asker, highest in list(self._highest.items()):
            if seconds > highest:
                self._highest[asker] = seconds

    def take(self, asker: str) -> float:
        """Return the highest lag in seconds since `asker` was here last, or since the start."""
        highest = self._highest.get(asker, self._highest[FIRST])
        self._highest[asker] = 0.0
        return highest


FIRST = ""
"""The asker that never comes: it has the highest lag since the start."""


class LoopThread:
    """One thread that runs `run` until `run` returns.

    `run` waits on `calls` beside its own descriptors and calls its `run_pending`. An exception that
    escapes from `run` is passed to `on_failure(name, exception)`, in this thread, before it ends.
    The watchdog calls `ping`; a loop that still turns answers: it sets `heartbeat` to that number,
    and notes in `lag` how late it did.
    """

    __slots__ = (
        "_on_failure",
        "_pinged_at",
        "_run",
        "_thread",
        "calls",
        "heartbeat",
        "lag",
        "name",
    )

    def __init__(self, name: str, run: Callable[[], None], on_failure: OnFailure) -> None:
        self.name = name
        self.calls = CallQueue()
        self.heartbeat = 0
        self.lag = Lag()
        self._pinged_at = 0.0
        self._run = run
        self._on_failure = on_failure
        self._thread = self._new_thread()

    @property
    def started(self) -> bool:
        """Whether the thread has been started."""
        return self._thread.ident is not None

    @property
    def ended(self) -> bool:
        """Whether the thread has been started and has ended."""
        return self.started and not self._thread.is_alive()

    def _new_thread(self) -> threading.Thread:
        # A daemon thread: when the main thread fails, the process must end and not wait for it.
        return threading.Thread(target=self._guarded, name=self.name, daemon=True)

    def start(self) -> None:
        """Start the thread. Raises ResourceError if the system gives no thread or memory.

        It may be called again then.
        """
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self._thread = self._new_thread()  # one that could not be started never can (3.13)
            raise ResourceError(
                f"thread {self.name} cannot be started ({error}): "
                "raise TasksMax=, LimitNPROC= or MemoryMax="
            ) from error

    def ping(self, number: int) -> None:
        """Ask the thread to set `heartbeat`, before all calls that wait."""
        self._pinged_at = monotonic()
        self.calls.put_first(self._answer, number)

    def join(self, seconds: float | None = None) -> bool:
        """Wait until the thread has ended, then close its queue. False if it still runs."""
        if self.started:
            self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self.calls.close()
        return True

    def _answer(self, number: int) -> None:
        self.heartbeat = number
        self.lag.note(monotonic() - self._pinged_at)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not end unseen
            self._on_failure(self.name, error)
