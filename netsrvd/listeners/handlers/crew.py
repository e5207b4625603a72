"""Threads for code that may block: for each listener that has a handler, so many at most."""

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from netsrvd.duty import Duty, OnFailure
from netsrvd.errors import ResourceError
from netsrvd.linux.mailbox import Mailbox
from netsrvd.listeners.watch import Watch, Width

LAST_SECONDS = 1.0
"""How long to wait for a thread that has nothing to do and was asked to end."""


class Job:
    """What a thread is to do, and who is to be told its result."""

    __slots__ = ("done", "work")

    def __init__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.work = work
        """Run by a thread of the crew; may block, and lets no exception out."""
        self.done = done
        """Run by the crew's owner, with what `work` returned."""


class Hand:
    """One thread of a crew, which does a job at a time. `duty` is to be started and joined."""

    __slots__ = ("_stopping", "duty")

    def __init__(self, name: str, on_failure: OnFailure) -> None:
        self._stopping = False
        self.duty = Duty(name, self._run, on_failure)

    def stop(self) -> None:
        """Ask the thread to end when it has done what it was given."""
        self.duty.mailbox.post(self._stop)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        watch = Watch(self.duty.mailbox)
        while not self._stopping:
            watch.wait(inf, Width.MAIL)


class Crew:
    """At most `most` threads, started when there is work for one more.

    Owned by the thread of `mailbox`, which alone calls its methods and is told there what was done.
    Who never returns from a job keeps his thread, which ends with the process.
    """

    __slots__ = (
        "_busy",
        "_idle",
        "_mailbox",
        "_name",
        "_on_failure",
        "_started",
        "most",
        "waiting",
    )

    def __init__(self, name: str, most: int, mailbox: Mailbox, on_failure: OnFailure) -> None:
        self.most = most
        self.waiting: deque[Job] = deque()
        """Jobs for which no thread is free."""
        self._name = name
        self._mailbox = mailbox
        self._on_failure = on_failure
        self._idle: list[Hand] = []
        self._busy: set[Hand] = set()
        self._started = 0

    @property
    def busy(self) -> int:
        """How many threads have a job."""
        return len(self._busy)

    def give(self, job: Job) -> None:
        """Have a job done by the next thread that is free."""
        self.waiting.append(job)
        self.assign()

    def withdraw(self, job: Job) -> bool:
        """Take back a job that still waits; False if somebody has it."""
        try:
            self.waiting.remove(job)
        except ValueError:
            return False
        return True

    def resize(self, most: int) -> None:
        """Have so many threads from now on; those that are too many end when they are free."""
        self.most = most
        self.assign()
        while self._idle and len(self._idle) + self.busy > most:
            self._dismiss(self._idle.pop())

    def dismiss(self) -> None:
        """End all threads, those that are busy when they are free; forget the jobs that wait."""
        self.most = 0
        self.waiting.clear()
        for hand in self._busy:
            hand.stop()
        while self._idle:
            self._dismiss(self._idle.pop())

    def assign(self) -> None:
        """Have as many jobs done as there are threads for, or can be started."""
        while self.waiting and (self._idle or self.busy < self.most):
            hand = self._idle.pop() if self._idle else self._hire()
            if hand is None:
                return
            self._busy.add(hand)
            hand.duty.mailbox.post(self._do, hand, self.waiting.popleft())

    def _hire(self) -> Hand | None:
        """Return one more hand; None if the host has no thread or descriptor to spare now."""
        self._started += 1
        try:
            hand = Hand(f"{self._name} {self._started}", self._on_failure)
        except (OSError, MemoryError):  # its mailbox takes a descriptor
            return None
        try:
            hand.duty.start()
        except ResourceError:  # TasksMax= and the like
            hand.duty.mailbox.close()
            return None
        return hand

    def _do(self, hand: Hand, job: Job) -> None:
        """Do a job (the hand's own thread)."""
        self._mailbox.post(self._done, hand, partial(job.done, job.work()))

    def _done(self, hand: Hand, tell: Callable[[], None]) -> None:
        self._busy.remove(hand)
        if self.busy + len(self._idle) < self.most:
            self._idle.append(hand)
        else:
            self._dismiss(hand)
        self.assign()
        tell()

    def _dismiss(self, hand: Hand) -> None:
        hand.stop()
        hand.duty.join(LAST_SECONDS)
