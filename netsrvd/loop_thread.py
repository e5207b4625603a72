"""A thread with a queue of calls. netsrvd starts, watches and ends all its threads this way."""

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from netsrvd.errors import ResourceError
from netsrvd.linux.call_queue import CallQueue

OnFailure = Callable[[str, BaseException], None]


LAG_SECONDS = 60.0
"""How long a lag is told."""

SLOT_SECONDS = 10.0
"""The highest lag is kept for each of these spans: it is told for up to one of them longer."""


class Lag:
    """How late a thread did what was due. The thread notes; any thread may ask."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: deque[tuple[int, float]] = deque(maxlen=1 + int(LAG_SECONDS / SLOT_SECONDS))
        """The number of each span since the clock's zero in which something was late, and by how
        much at most."""

    def note(self, seconds: float, now: float) -> None:
        """Note that something was late by this time, `now` by time.monotonic()."""
        number = int(now / SLOT_SECONDS)
        before, highest = self._slots[-1] if self._slots else (-1, 0.0)
        if before != number:
            self._slots.append((number, seconds))
        elif seconds > highest:
            self._slots[-1] = number, seconds

    def highest(self, now: float) -> float:
        """Return the highest lag in the last `LAG_SECONDS`, in seconds."""
        first = int((now - LAG_SECONDS) / SLOT_SECONDS)
        return max((lag for number, lag in list(self._slots) if number >= first), default=0.0)


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
        now = monotonic()
        self.lag.note(now - self._pinged_at, now)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not end unseen
            self._on_failure(self.name, error)
