"""Sends probes at their times and waits for answers: one epoll(7) loop for all streams.

The times that are reported do not depend on how quickly this loop turns where the kernel stamps
datagrams: with a hundred targets an answer may wait here for others, and its stamp does not change.
"""

import os
import select
from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from random import Random
from time import monotonic_ns
from typing import Protocol

from netsrvd.probe.forms import Form
from netsrvd.probe.settings import Settings
from netsrvd.probe.trips import Stamps, State, Stream, Trip

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000

TICK_NS = SECOND_NS // 2
"""How often a form of output is told to show the progress."""

SLACK_NS = 2 * MILLISECOND_NS
"""How far a stream with a shorter interval may be behind, and make up for it."""

EVENTS_PER_TURN = 256

READ, WRITE = select.EPOLLIN, select.EPOLLOUT


class Prober(Protocol):
    """What sends the probes of a stream. It owns the sockets."""

    stream: Stream

    def send(self) -> None:
        """Send the next probe. It calls `Engine.expect` or `Engine.settled` for it."""

    def on_ready(self, descriptor: int, events: int) -> None:
        """Act on the events of epoll_wait(2)."""

    def expire(self, trip: Trip) -> None:
        """Take note that a probe has been lost."""

    def finish(self) -> bool:
        """Begin what is left to do after the last probe; return whether to wait for `finished`."""

    def close(self) -> None:
        """Close the sockets."""


class Engine:
    """Runs probers until all their probes are settled. It belongs to one thread.

    `stop` may be called by a signal handler.
    """

    def __init__(self, settings: Settings, form: Form, random: Random) -> None:
        self._settings = settings
        self._form = form
        self._random = random
        # made before any socket, so that its number is one that select(2) takes
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, READ)
        self._probers: dict[int, Prober] = {}
        self._pending: deque[tuple[int, Prober, Trip]] = deque()
        self._schedule: list[tuple[int, int, int]] = []
        self._finishing: dict[Prober, int] = {}
        self._stopped = False
        self._interval_ns = round(settings.interval_seconds * SECOND_NS)
        self._timeout_ns = round(settings.timeout_seconds * SECOND_NS)
        self.most_late_ns = 0
        """How late a probe was sent at most."""

    # --- for probers ------------------------------------------------------------------------

    def watch(self, descriptor: int, prober: Prober, events: int = READ) -> None:
        """Call `prober.on_ready` for a descriptor."""
        self._epoll.register(descriptor, events)
        self._probers[descriptor] = prober

    def modify(self, descriptor: int, events: int) -> None:
        """Watch a descriptor for other events."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor, which the caller closes next."""
        if self._probers.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def expect(self, prober: Prober, trip: Trip) -> None:
        """Wait for the answer to a probe until its time-out."""
        self._pending.append((trip.sent_ns + self._timeout_ns, prober, trip))

    def receive(self, stream: Stream, trip: Trip) -> bool:
        """Record an answer, whose stamps `trip` has; return whether it is the first and in time.

        By the kernel's stamps an answer may be late although nothing has looked for it before.
        """
        if (
            trip.state is State.PENDING
            and trip.stamps is Stamps.KERNEL
            and trip.elapsed_ns > self._timeout_ns
        ):
            stream.lose(trip)
            self.settled(stream, trip)
        if not stream.receive(trip):
            return False
        self.settled(stream, trip)
        return True

    def settled(self, stream: Stream, trip: Trip) -> None:
        """Tell that a probe is no longer pending."""
        self._form.settle(stream, trip)

    def notice(self, stream: Stream, text: str) -> None:
        """Tell something about a stream."""
        self._form.notice(stream, text)

    def finished(self, prober: Prober) -> None:
        """Take note that a prober has done what `finish` began."""
        self._finishing.pop(prober, None)

    # --- the run ----------------------------------------------------------------------------

    def stop(self) -> None:
        """End `run` soon: send nothing more, wait for nothing more."""
        self._stopped = True
        os.eventfd_write(self._wake, 1)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def run(self, probers: Sequence[Prober]) -> None:
        """Send all probes, and return when each is settled or after `stop`.

        All streams send in each interval, evenly spread over it.
        """
        now = monotonic_ns()
        seconds = self._settings.duration_seconds
        last = now + round(seconds * SECOND_NS) if seconds else 0
        share = self._interval_ns // max(1, len(probers))
        self._schedule = [(now + share * index, index, 0) for index in range(len(probers))]
        heapify(self._schedule)
        tick = now + TICK_NS
        finished = False
        while not self._stopped:
            now = monotonic_ns()
            self._send_due(probers, now, last)
            if now >= tick:
                self._form.tick()
                tick = now + TICK_NS
            if not (self._waits_for_answers() or self._schedule):
                if not finished:
                    finished = True
                    self._finish(probers, now)
                if not self._finishing:
                    return
            if self._turn(min(tick, self._next())):
                self._expire(now)

    def close(self) -> None:
        """Close what is open."""
        self._epoll.close()
        os.close(self._wake)

    def _send_due(self, probers: Sequence[Prober], now: int, last: int) -> None:
        """Send the probes whose time has come, at most one of each stream."""
        for _ in range(len(probers)):
            if not self._schedule or self._schedule[0][0] > now:
                return
            due, index, number = heappop(self._schedule)
            self.most_late_ns = max(self.most_late_ns, now - due)
            probers[index].send()
            if number + 1 == self._settings.probe_count:
                continue
            following = self._following(due, now)
            if not last or following < last:
                heappush(self._schedule, (following, index, number + 1))

    def _following(self, due: int, now: int) -> int:
        """Return when a stream sends after a probe that was due, of monotonic_ns().

        If this process did not run, the times that have gone by are left out: a burst would queue
        behind itself. Short intervals may be made up for, or their rate would not be reached.
        """
        following = due + self._gap()
        slack = 0 if self._interval_ns >= SLACK_NS else SLACK_NS
        if following > now - slack:
            return following
        if self._settings.poisson:
            return now + self._gap()
        return following + ((now - following) // self._interval_ns + 1) * self._interval_ns

    def _gap(self) -> int:
        if self._settings.poisson:
            return round(self._random.expovariate(1 / self._interval_ns))
        return self._interval_ns

    def _waits_for_answers(self) -> bool:
        """Return whether a probe is pending, and forget the settled ones before the first such."""
        pending = self._pending
        while pending and pending[0][2].state is not State.PENDING:
            pending.popleft()
        return bool(pending)

    def _expire(self, now: int) -> None:
        """Give up probes whose time-out was over at `now`, before the sockets were last read.

        So a probe whose answer waits in a socket while this process does not run is not lost.
        """
        while self._waits_for_answers() and self._pending[0][0] <= now:
            _, prober, trip = self._pending.popleft()
            prober.stream.lose(trip)
            prober.expire(trip)
            self._form.settle(prober.stream, trip)
        for prober, deadline in [*self._finishing.items()]:
            if deadline <= now:
                self._finishing.pop(prober)

    def _finish(self, probers: Sequence[Prober], now: int) -> None:
        for prober in probers:
            self._finishing[prober] = now + self._timeout_ns
            if not prober.finish():
                self._finishing.pop(prober, None)

    def _next(self) -> int:
        """Return when there is something to do, of monotonic_ns()."""
        times = [*self._finishing.values()]
        if self._schedule:
            times.append(self._schedule[0][0])
        if self._pending:
            times.append(self._pending[0][0])
        return min(times, default=monotonic_ns() + TICK_NS)

    def _turn(self, until: int) -> bool:
        """Wait for events until a time, and act on them; return whether these were all.

        epoll_wait(2) counts milliseconds, select(2) microseconds: the rest is waited for by that.
        """
        left = until - monotonic_ns()
        seconds = 0.0
        if left >= MILLISECOND_NS:
            seconds = (left // MILLISECOND_NS - 0.1) / 1000
        elif left > 0:
            select.select([self._epoll], [], [], left / SECOND_NS)
        found = self._epoll.poll(seconds, EVENTS_PER_TURN)
        for descriptor, events in found:
            if prober := self._probers.get(descriptor):
                prober.on_ready(descriptor, events)
        return len(found) < EVENTS_PER_TURN
