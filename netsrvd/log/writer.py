"""The log thread, the only one that waits for the log."""

import select
from collections import deque
from contextlib import suppress
from math import inf
from time import monotonic, sleep
from typing import Protocol

from netsrvd.events import Event
from netsrvd.events.log import RecordsLost
from netsrvd.log.records import Record, record
from netsrvd.loop_thread import LoopThread, OnFailure

REST_SECONDS = 0.005
"""How long to sleep after writing: events that are queued meanwhile do not wake the log thread.
Even the smallest queue then has room for 20,000 records a second.
"""

RECORDS_A_TURN = 500
"""Records written before the calls of other threads run. They take 10 ms. The queue may be filled
as fast as it is emptied, and the watchdog waits for an answer.
"""

PATIENCE_SECONDS = 0.25
"""How long to wait for a slow log before the calls of other threads run."""

LAST_PATIENCE_SECONDS = 2.0
"""How long a stop waits for the log; then each record left is offered once more, for the last time.
"""


class Log(Protocol):
    """A place to write to. `write` and `wait` never raise for a log that is slow or absent."""

    @property
    def name(self) -> str:
        """Return its name in the configuration."""

    def write(self, record: Record) -> bool:
        """Write one record; False if it was not taken now and must be offered again."""

    def wait(self, seconds: float) -> None:
        """Wait until it may take more, at most `seconds`."""

    def close(self) -> None:
        """Close what is open."""


class LogHandle:
    """The way to the log of one thread, which alone counts its losses; see `LogWriter.handle`."""

    __slots__ = ("_log_writer", "lost", "may_wait")

    def __init__(self, log_writer: "LogWriter") -> None:
        self._log_writer = log_writer
        self.may_wait = log_writer.waits
        """Whether `congested` can be True at all."""
        self.lost = 0

    def __call__(self, event: Event) -> None:
        """Hand an event over; never blocks, never raises."""
        if not self._log_writer.put(event):
            self.lost += 1

    @property
    def level(self) -> int:
        """The least important priority that is written; other events need not be made."""
        return self._log_writer.level

    @property
    def congested(self) -> bool:
        """True while new connections and peers should wait, so that no record is lost."""
        return self._log_writer.congested


class LogWriter:
    """A bounded queue of events and the thread that writes them.

    With `waits` nothing is dropped: listeners look at `congested` and accept
    no new client, so the queue is bounded by what live connections and flows still have to say.
    """

    __slots__ = (
        "_given_up_at",
        "_handles",
        "_limit",
        "_log",
        "_queue",
        "_stopping",
        "_thread",
        "_told",
        "_unwritten",
        "level",
        "waits",
        "written",
    )

    def __init__(
        self, log: Log, level: int, limit: int, on_failure: OnFailure, *, waits: bool
    ) -> None:
        self.level = level
        """The least important priority that is written; may be changed at any time."""
        self._log = log
        self._limit = limit
        self.waits = waits
        self._queue: deque[Event] = deque()
        self._handles: list[LogHandle] = []
        self.written = 0
        """How many events have been written since the start; the log thread counts."""
        self._told = 0
        self._unwritten = 0
        self._stopping = False
        self._given_up_at = inf
        self._thread = LoopThread("log", self._run, on_failure)

    @property
    def thread(self) -> LoopThread:
        """The thread, to be started, watched and joined."""
        return self._thread

    @property
    def lost(self) -> int:
        """How many records were lost since the start, a moment ago."""
        return sum([handle.lost for handle in self._handles]) + self._unwritten

    @property
    def congested(self) -> bool:
        """Whether new clients should wait until the log has caught up."""
        return self.waits and len(self._queue) >= self._limit

    def handle(self) -> LogHandle:
        """Return a way to the log for one more thread (any thread)."""
        handle = LogHandle(self)
        self._handles.append(handle)
        return handle

    def put(self, event: Event) -> bool:
        """Queue an event (any thread); False if it is lost because the queue is full."""
        if self.level < event.PRIORITY:
            return True
        if len(self._queue) >= self._limit and not self.waits:
            return False
        self._queue.append(event)
        self._thread.calls.wake()
        return True

    def stop(self) -> None:
        """Ask the thread to write what is queued, as far as the log takes it, and end."""
        self._thread.calls.put(self._stop)

    def _stop(self) -> None:
        self._stopping = True
        self._given_up_at = monotonic() + LAST_PATIENCE_SECONDS

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._thread.calls, select.POLLIN)
        try:
            while not self._stopping:
                with suppress(OSError):  # ENOMEM: what is queued is written all the same
                    poll.poll()
                self._thread.calls.run_pending()
                self._write_queue()
                if self._queue:
                    self._thread.calls.wake()
                else:
                    sleep(REST_SECONDS)
            self._write_queue(len(self._queue))
        finally:
            self._log.close()

    def _write_queue(self, most: int = RECORDS_A_TURN) -> None:
        queue = self._queue
        for _ in range(min(most, len(queue))):
            if self._write(queue.popleft()):
                self.written += 1
            else:
                self._unwritten += 1
        if not queue:
            self._tell_losses()

    def _tell_losses(self) -> None:
        """Report the lost records, now that the queue has room again."""
        lost = self.lost
        if lost != self._told and self._write(RecordsLost(lost - self._told, lost)):
            self._told = lost

    def _write(self, event: Event) -> bool:
        """Write one event, however long the log takes to take it, unless the daemon stops.

        False if this one cannot be written at all, or not in the time that a stop leaves.
        """
        entry = record(event)
        try:
            while not self._log.write(entry):
                if monotonic() >= self._given_up_at:
                    return False
                self._log.wait(PATIENCE_SECONDS)
                self._thread.calls.run_pending()
        except OSError:
            return False
        return True
