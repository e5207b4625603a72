"""The thread pool of a listener with a Python handler."""

import select
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from netsrvd.errors import ResourceError
from netsrvd.linux.call_queue import CallQueue
from netsrvd.loop_thread import LoopThread, OnFailure

JOIN_SECONDS = 1.0
"""How long to wait for a thread that has nothing to do and was asked to end."""


class Task:
    """A piece of work for a thread of the pool."""

    __slots__ = ("done", "work")

    def __init__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.work = work
        """Runs in a thread of the pool; may block, and lets no exception out."""
        self.done = done
        """Runs in the thread of the pool's owner, with what `work` returned."""


class PoolThread:
    """One thread of a pool, which runs a task at a time."""

    __slots__ = ("_stopping", "loop_thread")

    def __init__(self, name: str, on_failure: OnFailure) -> None:
        self._stopping = False
        self.loop_thread = LoopThread(name, self._run, on_failure)

    def stop(self) -> None:
        """Ask the thread to end after its task."""
        self.loop_thread.calls.put(self._stop)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.loop_thread.calls, select.POLLIN)
        while not self._stopping:
            poll.poll()
            self.loop_thread.calls.run_pending()


class ThreadPool:
    """At most `size` threads, started when a task needs one more.

    Owned by the thread that reads `calls`; only that thread calls the methods. A task that never
    returns keeps its thread, which ends with the process.
    """

    __slots__ = ("_busy", "_calls", "_idle", "_name", "_on_failure", "_started", "size", "waiting")

    def __init__(self, name: str, size: int, calls: CallQueue, on_failure: OnFailure) -> None:
        self.size = size
        self.waiting: deque[Task] = deque()
        """Tasks for which no thread is free."""
        self._name = name
        self._calls = calls
        self._on_failure = on_failure
        self._idle: list[PoolThread] = []
        self._busy: set[PoolThread] = set()
        self._started = 0

    @property
    def busy(self) -> int:
        """How many threads have a task."""
        return len(self._busy)

    def submit(self, task: Task) -> None:
        """Run a task in the next thread that is free."""
        self.waiting.append(task)
        self.assign()

    def cancel(self, task: Task) -> bool:
        """Take back a task that waits; return False if a thread has it."""
        try:
            self.waiting.remove(task)
        except ValueError:
            return False
        return True

    def resize(self, size: int) -> None:
        """Change the number of threads; those that are too many end after their tasks."""
        self.size = size
        self.assign()
        self._end_idle(len(self._idle) + self.busy - size)

    def shutdown(self) -> None:
        """End all threads, busy ones after their tasks; forget the tasks that wait."""
        self.size = 0
        self.waiting.clear()
        for thread in self._busy:
            thread.stop()
        self._end_idle(len(self._idle))

    def _end_idle(self, count: int) -> None:
        """End `count` idle threads, or all if there are fewer; a count below 1 ends none."""
        _end([self._idle.pop() for _ in range(min(count, len(self._idle)))])

    def assign(self) -> None:
        """Give tasks that wait to threads that are free or can be started."""
        while self.waiting and (self._idle or self.busy < self.size):
            thread = self._idle.pop() if self._idle else self._start_thread()
            if thread is None:
                return
            self._busy.add(thread)
            thread.loop_thread.calls.put(self._run, thread, self.waiting.popleft())

    def _start_thread(self) -> PoolThread | None:
        """Return a new thread; None if the host has no thread or descriptor to spare now."""
        self._started += 1
        try:
            thread = PoolThread(f"{self._name} {self._started}", self._on_failure)
        except (OSError, MemoryError):  # its wake-up takes a descriptor
            return None
        try:
            thread.loop_thread.start()
        except ResourceError:  # TasksMax= and the like
            thread.loop_thread.calls.close()
            return None
        return thread

    def _run(self, thread: PoolThread, task: Task) -> None:
        """Run a task (the pool's thread)."""
        self._calls.put(self._done, thread, partial(task.done, task.work()))

    def _done(self, thread: PoolThread, report_done: Callable[[], None]) -> None:
        self._busy.remove(thread)
        if self.busy + len(self._idle) < self.size:
            self._idle.append(thread)
        else:
            _end([thread])
        self.assign()
        report_done()


def _end(threads: Sequence[PoolThread]) -> None:
    """End threads that have nothing to do.

    All are asked before the first is waited for: the owner is an event loop, and each of them may
    have to wait for the interpreter lock.
    """
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.loop_thread.join(JOIN_SECONDS)
