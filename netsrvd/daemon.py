"""Keeps the house running: signals, readiness, reload, drain, watchdog.

The main thread. It blocks the signals before any other thread starts and then sits in
sigtimedwait(2): a time-out is the tick of the watchdog, a signal is work.
"""

import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import netsrvd
from netsrvd.assembly import (
    Services,
    Sockets,
    bind_all,
    count_places,
    prepare_services,
    read_configuration,
)
from netsrvd.config import changes
from netsrvd.errors import NetsrvdError
from netsrvd.events import Event
from netsrvd.events.life import Ready, Reloaded, ReloadFailed, Starting, Stopped, Stopping
from netsrvd.house import House
from netsrvd.reporting.notify import Notifier
from netsrvd.settings import Settings
from netsrvd.sockets import descriptors

STOPS = {signal.SIGTERM, signal.SIGINT}
RELOAD = signal.SIGHUP
WAKE = signal.SIGUSR2
"""Sent by our own threads to the process: somebody failed, or the last connection has ended."""

SIGNALS = STOPS | {RELOAD, WAKE}
TICK_SECONDS = 5.0
FAILURE = "failure"

LONGEST_END_SECONDS = 20.0
"""What a stop may take besides the drain, if every thread and the log have to be waited for."""


@dataclass(frozen=True, slots=True)
class Start:
    """What was made before the daemon starts; from here on nothing should fail."""

    settings: Settings
    config_path: Path | None
    sockets: Sockets
    services: Services
    places: int
    """How many connections may be live at once."""
    notes: list[Event]
    log: str
    began_at: float


class Daemon:
    """One run, from the first thread to the last record. Owned by the main thread."""

    def __init__(self, start: Start, on_ready: Callable[[], None]) -> None:
        self._start = start
        self._on_ready = on_ready
        self._settings = start.settings
        self._notifier = Notifier()
        self._ping = 0
        self._house = House(
            start.settings, start.sockets, start.services, start.places, start.log, wake_main
        )

    def run(self) -> int:
        """Serve until a signal or a failure ends it; return the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        descriptors.raise_limit()
        try:
            self._begin()
            reason = self._watch()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end unseen
            self._house.failed("main", error)
            reason = FAILURE
        return self._end(reason)

    def _begin(self) -> None:
        house, report = self._house, self._house.report
        report(Starting(netsrvd.__version__, platform.python_version(), os.getpid()))
        for note in self._start.notes:
            report(note)
        sockets = sum(len(opened) for opened in self._start.sockets.values())
        report(Ready(sockets, len(house.workers), monotonic() - self._start.began_at))
        house.start()
        self._notifier.ready(self._status())
        self._on_ready()

    def _watch(self) -> str:
        """Wait for work until there is a reason to end; return its name."""
        watchdog = self._notifier.watchdog_seconds
        tick = min(watchdog / 4 or TICK_SECONDS, TICK_SECONDS)
        while True:
            received = _wait(tick)
            if self._house.failures:
                return FAILURE
            if received in STOPS:
                return signal.Signals(received).name
            if received == RELOAD:
                self._reload()
            elif received is None:
                self._tick()

    def _tick(self) -> None:
        """Feed the watchdog if every thread has answered the last ping, and ask them again."""
        duties = self._house.duties()
        if all(duty.pulse == self._ping for duty in duties):
            self._notifier.alive()
            self._ping += 1
        for duty in duties:  # those of a reload have not heard this number yet
            duty.ping(self._ping)
        self._notifier.status(self._status())

    def _reload(self) -> None:
        """Read the configuration again and put it into force, all or nothing."""
        self._notifier.reloading()
        try:
            settings = read_configuration(self._start.config_path).settings
            services = prepare_services(settings, self._start.services.present)
            plan = changes.plan(self._settings, settings, self._house.adopted)
            places, limit_notes = count_places(settings, len(plan.keep) + len(plan.open))
            sockets, notes = bind_all(plan.open)
        except NetsrvdError as error:
            self._house.report(ReloadFailed(str(error)))
            self._notifier.ready(f"Reload failed, the old configuration is in force: {error}")
            return
        self._house.apply(plan, sockets, services, places, settings)
        self._settings = settings
        for note in limit_notes + notes:
            self._house.report(note)
        self._house.report(Reloaded(", ".join(plan.changed), ", ".join(plan.needs_restart)))
        self._notifier.ready(self._status())

    def _end(self, reason: str) -> int:
        """Stop in order: nobody new, drain, close what is left, the last record."""
        house = self._house
        drain_seconds = 0.0 if house.failures else self._settings.drain_seconds
        self._notifier.stopping(f"Stopping on {reason}", drain_seconds + LONGEST_END_SECONDS)
        house.report(Stopping(reason, house.connections, drain_seconds))
        live = house.connections
        house.stop_listening()
        self._drain(monotonic() + drain_seconds)
        cut = house.stop_workers()
        house.report(self._summary(live, cut))
        house.stop_reporting()
        self._notifier.close()
        for failure in house.failures:
            print(failure, end="", file=sys.stderr)
        return os.EX_SOFTWARE if house.failures else os.EX_OK

    def _drain(self, deadline: float) -> None:
        """Wait until the last connection has ended, the time is up or a second signal comes."""
        while not self._house.drained:
            left = deadline - monotonic()
            if left <= 0 or _wait(left) in STOPS:
                return

    def _summary(self, live: int, cut: int) -> Stopped:
        counters = self._house.counters()
        return Stopped(
            monotonic() - self._start.began_at,
            counters.accepted,
            counters.refused,
            max(0, live - cut),
            cut,
            counters.datagrams_received,
            counters.datagrams_sent,
            counters.bytes_received,
            counters.bytes_sent,
            self._house.reporter.lost,
        )

    def _status(self) -> str:
        house, counters = self._house, self._house.counters()
        return (
            f"Serving {house.connections} connections and {house.flows} flows; "
            f"{counters.accepted} connections accepted, {counters.refused} refused, "
            f"{counters.datagrams_received} datagrams, {house.reporter.lost} records lost"
        )


def wake_main() -> None:
    """Make the main thread look around (any thread)."""
    os.kill(os.getpid(), WAKE)


def _wait(seconds: float) -> int | None:
    """Return the next signal, None if none came in time."""
    received = signal.sigtimedwait(SIGNALS, max(0.0, seconds))
    return received.si_signo if received else None
