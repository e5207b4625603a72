"""Keeps the house running: signals, readiness, reload, drain, watchdog.

The main thread. It blocks the signals before any other thread starts and then sits in
sigtimedwait(2): a time-out is the tick of the watchdog, a signal is work.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import netsrvd
from netsrvd.assembly import (
    Services,
    Sockets,
    bind_again,
    bind_all,
    close_bound,
    close_moved,
    count_places,
    keys_of,
    prepare_services,
    problems_of,
    read_configuration,
    rematched,
    served,
)
from netsrvd.config import changes
from netsrvd.config.files import DEFAULT_FILE, Configuration
from netsrvd.ending import STOPS, Ending
from netsrvd.errors import (
    ConfigError,
    NetsrvdError,
    PrivilegeError,
    ResourceError,
    SocketError,
    shortage,
)
from netsrvd.events import Event
from netsrvd.events.life import (
    CodeMissing,
    NotHandedOver,
    Ready,
    Reloaded,
    ReloadFailed,
    Starting,
)
from netsrvd.events.sockets import NotInForce
from netsrvd.house import House
from netsrvd.linux import mounts
from netsrvd.listeners.inherited import Inherited
from netsrvd.reporting.askers import SYSTEM, Askers, Outside, answer, identity, told_outside
from netsrvd.reporting.notify import Notifier
from netsrvd.sockets import descriptors
from netsrvd.sockets.activation import shares_ports
from netsrvd.tracebacks import described, place_of

RELOAD = signal.SIGHUP
FOLLOWED = signal.SIGUSR1
"""Says that the stop to come is the beginning of a restart: another process will follow."""
RELEASE = signal.SIGWINCH
"""Says that systemd will bind the sockets of the next process: the daemon's own are in the way.
`netsrvd apply` and ExecStop= send it before a restart. A daemon that does not know it ignores it.
"""
WAKE = signal.SIGUSR2
"""Sent by our own threads to the process: somebody failed, or the last connection has ended."""

SIGNALS = STOPS | {RELOAD, FOLLOWED, RELEASE, WAKE}
TICK_SECONDS = 5.0
TICKS_A_VISIT = 3

USUAL_SWITCH_SECONDS = sys.getswitchinterval()
QUICK_SWITCH_SECONDS = 0.0005
"""Python's switch interval while the main thread works. With the usual 5 ms each of its system
calls waits 5 ms for every thread of a handler that computes: with 64 of them the imports after the
start took 20 s, and a visit more than it may. It is short for that time alone, as each thread that
waits wakes up once an interval: 64 of them computed half as much at 1 ms.
"""

PRELOAD_SECONDS = 1.0
"""When to import, after the start, what it did not need: the first clients are answered by then."""

FAILURE, IDLE = "failure", "idle"

FOLLOWED_SECONDS = 30.0
"""How long after that a stop still is the one that was meant."""


class Start(NamedTuple):
    """What was made before the daemon starts; from here on nothing should fail."""

    configuration: Configuration
    sockets: Sockets
    services: Services
    places: int
    """How many connections may be live at once."""
    notes: list[Event]
    log: str
    inherited: Inherited | None
    began_at: float


class Daemon:
    """One run, from the first thread to the last record. Owned by the main thread."""

    def __init__(self, start: Start, on_ready: Callable[[], None]) -> None:
        self._start = start
        self._on_ready = on_ready
        self._settings = start.configuration.settings
        passed = [one for end, opened in start.sockets.items() if not end.port for one in opened]
        self._wanted = changes.endpoints(self._settings, served(passed))
        """What the daemon is to bind itself, by the settings in force."""
        self._problems = [note for note in start.notes if isinstance(note, NotInForce)]
        """What of the configuration the sockets that systemd passed cannot put into force."""
        self._ping = 0
        self._followed_until = 0.0
        self._released_until = 0.0
        self._is_loaded = False
        """Whether all modules that may be needed later are imported."""
        self._stopped_early = False
        """Whether a stop came before systemd had read READY=1, while connections were taken over.
        Systemd runs no ExecStop= then, so that nothing says whether it is the first half of a
        restart.
        """
        self._seen, self._busy_at = 0, monotonic()
        self._fault = ""
        """What begins the status line after a reload that failed."""
        self._house = House(
            self._settings, start.sockets, start.services, start.places, start.log, wake_main
        )
        self._notifier = Notifier()
        self._askers = Askers()
        self._mounts = mounts.roots()

    def run(self) -> int:
        """Serve until a signal or a failure ends it; return the exit status.

        Raises ResourceError if a thread cannot be started.
        """
        block_signals()
        descriptors.raise_limit()
        try:
            self._begin()
            reason = self._watch()
        except ResourceError:
            self._end(FAILURE)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end unseen
            self._house.failed("main", error)
            reason = FAILURE
        return self._end(reason)

    def _begin(self) -> None:
        house, report = self._house, self._house.report
        report(Starting(netsrvd.__version__, sys.version.split()[0], os.getpid()))
        for note in self._start.notes:
            report(note)
        house.start(paused=True)
        for _, kept in house.bound_sockets:  # by the process before: from now on it is ours alone
            if kept.name:
                self._notifier.forget(kept.name)
        if self._start.inherited:  # not before all threads run: until then systemd keeps them
            self._take_over(self._start.inherited)
        sockets = sum(len(opened) for opened in self._start.sockets.values())
        report(Ready(sockets, len(house.staff.workers), monotonic() - self._start.began_at))
        house.resume()
        house.settle()
        if self._start.inherited:  # they may have come in by rules that are no longer in force
            house.staff.update(self._settings)
        self._notifier.ready(self._status())
        self._on_ready()
        if self._start.inherited:
            with suppress(OSError):  # systemd has not read READY=1 in 10 s
                self._notifier.settle()
            self._stopped_early = stop_waits()

    def _take_over(self, inherited: Inherited) -> None:
        """Go on with the connections of the process before."""
        from netsrvd import handover  # noqa: PLC0415 - most starts have nothing to take over
        from netsrvd.events.handover import TookOver  # noqa: PLC0415 - so here

        self._house.adopt(inherited)
        handover.take_back(self._notifier)
        for note in inherited.notes:
            self._house.report(note)
        if inherited.given_at and (inherited.connections or inherited.lost):
            seconds = monotonic() - inherited.given_at
            self._house.report(TookOver(len(inherited.connections), inherited.lost, seconds))

    def _watch(self) -> str:
        """Wait for work until there is a reason to end; return its name."""
        due_at = monotonic() + self._patience()
        while True:
            received = wait_signal(due_at - monotonic())
            if self._house.failures:
                return FAILURE
            if received in STOPS:
                return signal.Signals(received).name
            if received == RELOAD:
                self._reload()
            elif received == FOLLOWED:
                self._followed_until = monotonic() + FOLLOWED_SECONDS
            elif received == RELEASE:
                self._released_until = monotonic() + FOLLOWED_SECONDS
            if received is None or monotonic() >= due_at:  # signals must not starve the watchdog
                if not self._is_loaded:
                    self._preload()
                due_at = monotonic() + self._patience()
                self._tick()
                if self._is_idle():
                    return IDLE

    def _patience(self) -> float:
        """Return how long to wait for a signal before the next look around."""
        watchdog, idle = self._notifier.watchdog_seconds, self._settings.idle_exit_seconds
        first = TICK_SECONDS if self._is_loaded else PRELOAD_SECONDS
        return min(watchdog / 4 or TICK_SECONDS, idle / 4 or TICK_SECONDS, first)

    def _is_idle(self) -> bool:
        """Return whether to end because nobody has come for long; nobody is taken any more then."""
        house, now, limit = self._house, monotonic(), self._settings.idle_exit_seconds
        seen = house.seen()
        if seen != self._seen or house.flows or not house.is_empty:
            self._seen, self._busy_at = seen, now
        if not (limit and house.is_adopted) or now - self._busy_at < limit:
            return False
        house.pause()
        if house.is_empty and house.seen() == seen:  # who comes has a place before it is counted
            return True
        house.resume()  # somebody came just before
        return False

    def _tick(self) -> None:
        """Feed the watchdog if all is well, and ask all threads again.

        Each must have answered the last ping and, at every third time, a listener its visitor.
        """
        self._house.look_at_interfaces()
        duties = self._house.duties()
        if all(duty.pulse == self._ping for duty in duties) and self._is_answering():
            self._notifier.alive()
            self._ping += 1
        for duty in duties:  # those of a reload have not heard this number yet
            duty.ping(self._ping)
        self._notifier.status(self._status())

    def _preload(self) -> None:
        """Import what may be needed until the end: an upgrade may replace the files any time."""
        try:
            from netsrvd.preload import preload  # noqa: PLC0415 - it is not to delay the start

            problems = preload()
        except Exception as error:  # noqa: BLE001 - this file may have been replaced as well
            if shortage(error):
                return  # the next tick tries again
            problems = [("netsrvd.preload", described(error))]
        self._is_loaded = True
        for problem in problems:
            self._house.report(CodeMissing(*problem))

    def _is_answering(self) -> bool:
        is_due = self._notifier.watchdog_seconds and self._ping % TICKS_A_VISIT == 0
        return not is_due or self._house.is_answering()

    def _reload(self) -> None:
        """Read the configuration again and put it into force, all or nothing."""
        asked = self._askers.waiting()
        self._notifier.reloading()
        try:
            for outside in filter(None, map(told_outside, asked)):
                self._check_directory(outside)
                follow_zone(outside.zone)
            self._check_mounts(self._directory)
            configuration = read_configuration(self._start.configuration.path)
            self._check_mounts(*(each.quotes for each in configuration.settings.listeners))
            self._change(configuration)
        except Exception as error:  # noqa: BLE001 - no file may end what serves
            reason = reason_of(error)
            self._house.report(ReloadFailed(reason))
            self._fault = f"Reload failed, the old configuration is in force: {reason}; "
            self._notifier.ready(self._status())
            answer(asked, reason)
            return
        self._fault = ""
        self._notifier.ready(self._status())
        answer(asked, "", [problem.text() for problem in self._problems])

    def _change(self, configuration: Configuration) -> None:
        """Put a configuration into force, or raise what went wrong and change nothing."""
        house, settings = self._house, configuration.settings
        present, sources = self._start.services.present, configuration.sources
        services = prepare_services(settings, present, sources)
        passed = rematched(house.passed, configuration)
        try:
            wanted = changes.endpoints(settings, served(passed))
            plan = changes.plan(self._settings, settings, house.bound, self._wanted, wanted)
            count = len(passed) + len(plan.keep) + len(plan.open) + len(plan.retry)
            places, limit_notes = count_places(settings, count)
            sockets, notes = bind_again(plan, share=shares_ports(passed))
            house.apply(plan, sockets, passed, services, places, settings)
        except BaseException:
            close_moved(house.passed, passed)
            raise
        self._settings, self._wanted = settings, wanted
        notes += problems_of(house.passed, configuration)
        self._problems = [note for note in notes if isinstance(note, NotInForce)]
        for note in limit_notes + notes:
            house.report(note)
        house.report(Reloaded(", ".join(plan.changed), ", ".join(plan.needs_restart)))
        house.look_at_interfaces()

    def _check_directory(self, outside: Outside) -> None:
        """Raise ConfigError if the directory of the configuration is not the one outside.

        The caller may have other files than this process altogether, in a container; then nothing
        can be said.
        """
        directory = self._directory
        if (outside.system, outside.directory) != (identity(SYSTEM), directory):
            return
        if outside.configuration != identity(directory):
            raise replaced(directory)

    def _check_mounts(self, *paths: str) -> None:
        """Raise ConfigError if one of the paths leads through a bind mount of the unit to what was
        renamed or removed since the daemon started. An empty path is none.
        """
        now = mounts.roots()
        for path in filter(None, paths):
            if point := mounts.moved(path, self._mounts, now):
                raise replaced(point)

    @property
    def _directory(self) -> str:
        """The directory of the configuration."""
        return str((self._start.configuration.path or DEFAULT_FILE).parent)

    def _end(self, reason: str) -> int:
        """Stop in order; return the exit status."""
        house = self._house
        self._askers.close()
        ending = Ending(house, self._notifier, wait_signal, reason)
        ending.end(
            0.0 if reason == FAILURE else self._settings.drain_seconds,
            monotonic() - self._start.began_at,
            is_followed=reason != FAILURE and self._is_followed(),
            may_be_followed=reason != FAILURE and self._stopped_early,
            keeps_sockets=not self._releases(),
        )
        for failure in house.failures:
            print(failure, end="", file=sys.stderr)
        return os.EX_SOFTWARE if house.failures else os.EX_OK

    def _releases(self) -> bool:
        """Return whether systemd is to bind ports. Pending signals come in the order of their
        numbers, so that SIGTERM may have come before the one that says so.
        """
        return monotonic() < self._released_until or RELEASE in signal.sigpending()

    def _is_followed(self) -> bool:
        """Return whether another process will follow: it needs a configuration that it can use."""
        if monotonic() >= self._followed_until:
            return False
        try:
            configuration = read_configuration(self._start.configuration.path)
            settings, sources = configuration.settings, configuration.sources
            prepare_services(settings, self._start.services.present, sources)
            self._try_sockets(configuration)
        except Exception as error:  # noqa: BLE001 - whatever it is, connections are drained then
            if count := self._house.connections:  # without any, the next start says the same
                self._house.report(NotHandedOver(count, reason_of(error)))
            return False
        return True

    def _try_sockets(self, configuration: Configuration) -> None:
        """Raise what the next process would end by for good, so that nobody is handed to it.

        By other errors of sockets it ends as well, but systemd tries again, and keeps what is
        handed over.
        """
        passed = rematched(self._house.passed, configuration)
        close_moved(self._house.passed, passed)
        after = changes.endpoints(configuration.settings, served(passed))
        new = {end: after[end] for end in after if end not in self._wanted}
        try:
            sockets, _ = bind_all(new, keys_of(passed))
        except PrivilegeError:
            raise
        except SocketError:
            return
        close_bound(sockets)

    def _not_in_force(self) -> str:
        """Return what begins the status line while the files are not what is in force."""
        if not self._problems:
            return ""
        first, *others = self._problems
        more = f" (and {len(others)} more)" if others else ""
        return f"Not all of the configuration is in force: {first.text()}{more}; "

    def _status(self) -> str:
        house, counters = self._house, self._house.counters()
        return (
            f"{self._fault}{self._not_in_force()}"
            f"Serving {house.connections} connections and {house.flows} flows; "
            f"{counters.accepted} connections accepted, {counters.refused} refused, "
            f"{counters.datagrams_received} datagrams, {house.reporter.lost} records lost"
        )


def replaced(path: str) -> ConfigError:
    """Return the error for what the daemon sees no longer as it is on the host."""
    remedy = "`systemctl restart` of the service puts the new one into force"
    fault = "has been replaced since the daemon started, which sees the old one"
    return ConfigError([f"{path}: it {fault}; {remedy}"])


def follow_zone(zone: str) -> None:
    """Use the time zone of this file: /etc/localtime of our own root is that of the start.

    Services read it when they are prepared. TZ in the environment of the unit counts for more.
    """
    chosen = os.environ.get("TZ", ":/")  # a colon and a path: from an earlier reload
    if chosen.startswith(":/") and Path(zone).is_file():
        os.environ["TZ"] = f":{zone}"


def reason_of(error: Exception) -> str:
    """Return why a reload or a handover failed; for an error of our own code, also where."""
    if found := error if isinstance(error, NetsrvdError) else shortage(error):
        return str(found)
    return f"{described(error)} at {place_of(error)}"


def block_signals() -> None:
    """Have signals wait for `wait_signal`; threads that are started later inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def wake_main() -> None:
    """Make the main thread look around (any thread)."""
    os.kill(os.getpid(), WAKE)


def stop_waits() -> bool:
    """Return whether a signal to stop has come that `wait_signal` has not returned yet."""
    return bool(signal.sigpending() & STOPS)


def wait_signal(seconds: float) -> int | None:
    """Return the next signal, None if none came in time."""
    sys.setswitchinterval(USUAL_SWITCH_SECONDS)
    try:
        received = signal.sigtimedwait(SIGNALS, max(0.0, seconds))
    finally:
        sys.setswitchinterval(QUICK_SWITCH_SECONDS)
    return received.si_signo if received else None
