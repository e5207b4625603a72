"""The daemon: signals, readiness, reload, drain, watchdog.

The main thread. It blocks the signals before any other thread starts and then waits in
sigtimedwait(2): at a time-out it feeds the watchdog, at a signal it acts.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, NamedTuple

import netsrvd
from netsrvd.config import changes
from netsrvd.config.files import DEFAULT_FILE, Configuration
from netsrvd.control.listening import Control, bind_private
from netsrvd.errors import (
    ConfigError,
    NetsrvdError,
    PrivilegeError,
    ResourceError,
    SocketError,
    shortage,
)
from netsrvd.events import Event
from netsrvd.events.lifecycle import (
    CodeMissing,
    NotHandedOver,
    Ready,
    Reloaded,
    ReloadFailed,
    Starting,
)
from netsrvd.events.sockets import NotInForce
from netsrvd.linux import mounts
from netsrvd.linux.mounts import SYSTEM, Outside, identity
from netsrvd.run_state import RunNotes
from netsrvd.server import Server
from netsrvd.shutdown import STOP_SIGNALS, Shutdown
from netsrvd.sockets import descriptors
from netsrvd.sockets.activation import shares_ports
from netsrvd.startup import (
    Services,
    Sockets,
    bind_again,
    bind_all,
    close_bound,
    close_moved,
    connection_limit,
    ignored_settings,
    keys_of,
    prepare_services,
    problems_of,
    read_configuration,
    rematched,
    served,
)
from netsrvd.systemd.notify import Notifier
from netsrvd.tracebacks import described, place_of

if TYPE_CHECKING:
    from netsrvd.handover import Restored

RELOAD = signal.SIGHUP
RESTART = signal.SIGUSR1
"""The stop that follows is the first half of a restart."""
RELEASE = signal.SIGWINCH
"""Systemd will bind the sockets of the next process: the daemon's own are in the way.
`netsrvd apply` and ExecStop= send it before a restart. A daemon that does not know it ignores it.
"""
WAKE = signal.SIGUSR2
"""Sent by our own threads: a thread has failed, the last connection of a stop has ended, or a
caller of the control socket asks for a reload.
"""

SIGNALS = STOP_SIGNALS | {RELOAD, RESTART, RELEASE, WAKE}
TICK_SECONDS = 5.0

USUAL_SWITCH_SECONDS = sys.getswitchinterval()
QUICK_SWITCH_SECONDS = 0.0005
"""Python's switch interval while the main thread works. With the usual 5 ms each of its system
calls waits 5 ms for every thread of a handler that computes: with 64 of them the imports after the
start took 20 s, in which the watchdog was not fed. It is short for that time alone, as each thread
that waits wakes up once an interval: 64 of them computed half as much at 1 ms.
"""

PRELOAD_SECONDS = 1.0
"""When to import, after the start, what it did not need: the first clients are answered by then."""

FAILURE, IDLE = "failure", "idle"

RESTART_SECONDS = 30.0
"""A stop within this time of SIGUSR1 is the first half of a restart."""


class Start(NamedTuple):
    """What was made before the daemon starts; from here on nothing should fail."""

    configuration: Configuration
    sockets: Sockets
    services: Services
    max_connections: int
    """How many connections may be live at once."""
    notes: list[Event]
    log: str
    began_at: float
    control: Control | None = None


class Daemon:
    """One run, from the first thread to the last record. Owned by the main thread."""

    def __init__(
        self, start: Start, restored: "Restored | None", on_ready: Callable[[], None]
    ) -> None:
        """`restored` are the connections of the process before; `on_ready` is called at READY."""
        self._start = start
        self._restored = restored
        self._on_ready = on_ready
        self._settings = start.configuration.settings
        passed = [one for end, opened in start.sockets.items() if not end.port for one in opened]
        self._wanted = changes.endpoints(self._settings, served(passed))
        """What the daemon is to bind itself, by the settings in force."""
        self._problems = [note for note in start.notes if isinstance(note, NotInForce)]
        """What of the configuration the sockets that systemd passed cannot put into force."""
        self._ping = 0
        self._restart_until = 0.0
        self._released_until = 0.0
        self._is_loaded = False
        """Whether all modules that may be needed later are imported, or cannot be."""
        self._is_whole = False
        """Whether all of them are imported."""
        self._stopped_early = False
        """Whether a stop came before systemd had read READY=1, while connections were taken over.
        Systemd runs no ExecStop= then, so that nothing says whether it is the first half of a
        restart.
        """
        self._seen, self._busy_at = 0, monotonic()
        self._fault = ""
        """What begins the status line after a reload that failed."""
        self._server = Server(
            self._settings,
            start.sockets,
            start.services,
            start.max_connections,
            start.log,
            wake_main,
        )
        self._notifier = Notifier()
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
            self._server.failed("main", error)
            reason = FAILURE
        return self._end(reason)

    def _begin(self) -> None:
        server, report = self._server, self._server.report
        server.figures.start_time = time() - (monotonic() - self._start.began_at)
        server.began_at = self._start.began_at
        self._note_reload()
        for control in filter(None, (self._start.control, bind_private())):
            server.serve_control(control)
        report(Starting(netsrvd.__version__, sys.version.split()[0], os.getpid()))
        for note in self._start.notes:
            report(note)
        server.start(paused=True)
        for kept in server.bound.values():  # by the process before: from now on it is ours alone
            if kept.name:
                self._notifier.fdstore_remove(kept.name)
        if self._restored:  # not before all threads run: until then systemd keeps them
            self._restore(self._restored)
        sockets = sum(len(opened) for opened in self._start.sockets.values())
        report(Ready(sockets, monotonic() - self._start.began_at))
        server.resume()
        self._notifier.ready(self._status())
        self._on_ready()
        if self._restored:
            with suppress(OSError):  # systemd has not read READY=1 in 10 s
                self._notifier.barrier()
            self._stopped_early = stop_waits()

    def _restore(self, restored: "Restored") -> None:
        """Serve the connections of the process before."""
        from netsrvd import handover  # noqa: PLC0415 - most starts have nothing to restore
        from netsrvd.events.handover import ConnectionsRestored  # noqa: PLC0415 - so here

        self._server.restore(restored)
        handover.clear(self._notifier, {name for name, _ in restored.pending})
        count = len(restored.connections)
        self._server.figures.connections_lost = restored.lost
        if restored.saved_at and (count or restored.lost):
            seconds = monotonic() - restored.saved_at
            self._server.report(ConnectionsRestored(count, restored.lost, seconds))

    def _watch(self) -> str:
        """Wait for work until there is a reason to end; return its name."""
        due_at = monotonic() + self._patience()
        while True:
            received = wait_signal(due_at - monotonic())
            if self._server.failures:
                return FAILURE
            if received in STOP_SIGNALS:
                return signal.Signals(received).name
            if received == RESTART:
                self._restart_until = monotonic() + RESTART_SECONDS
            elif received == RELEASE:
                self._released_until = monotonic() + RESTART_SECONDS
            if received == RELOAD or self._server.reload_requests.are_waiting:
                self._reload()
            if received is None or monotonic() >= due_at:  # signals must not starve the watchdog
                if not self._is_loaded:
                    self._preload()
                due_at = monotonic() + self._patience()
                self._tick()
                if self._is_idle():
                    return IDLE

    def _patience(self) -> float:
        """Return how long to wait for a signal before the next tick."""
        watchdog, idle = self._notifier.watchdog_seconds, self._settings.idle_exit_seconds
        first = TICK_SECONDS if self._is_loaded else PRELOAD_SECONDS
        return min(watchdog / 4 or TICK_SECONDS, idle / 4 or TICK_SECONDS, first)

    def _is_idle(self) -> bool:
        """Return True if the idle time-out has expired. Accepting is paused then."""
        server, now, limit = self._server, monotonic(), self._settings.idle_exit_seconds
        seen = server.seen()
        if seen != self._seen or server.flows or server.has_clients:
            self._seen, self._busy_at = seen, now
        if not (limit and server.is_activated) or now - self._busy_at < limit:
            return False
        server.pause()
        if not server.has_clients and server.seen() == seen:
            return True
        server.resume()  # a client came just before
        return False

    def _tick(self) -> None:
        """Feed the watchdog if each thread has answered since the last tick; ask them again."""
        self._server.look_at_interfaces()
        if self._is_whole:
            self._server.sample(monotonic())
        threads = self._server.threads()
        if all(thread.heartbeat == self._ping for thread in threads):
            self._notifier.feed_watchdog()
            self._ping += 1
        for thread in threads:  # those of a reload have not been asked for this number yet
            thread.ping(self._ping)
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
        for problem in problems:
            self._server.report(CodeMissing(*problem))
        if not (self._is_loaded or problems):
            self._look_at_ports()
        self._is_loaded, self._is_whole = True, not problems

    def _look_at_ports(self) -> None:
        """Report other programs that have bound a port of ours, before or after a reload."""
        from netsrvd.systemd import port_owners  # noqa: PLC0415 - not before clients are served

        with suppress(OSError):  # there is no /proc
            for note in port_owners.shared(self._server.sockets):
                self._server.report(note)

    def _reload(self) -> None:
        """Read the configuration again and put it into force, all or nothing."""
        requests = self._server.reload_requests.take()
        self._notifier.reloading()
        try:
            for request in requests:
                self._check_directory(request.outside)
                follow_zone(request.outside.zone)
            self._check_mounts(self._directory)
            configuration = read_configuration(self._start.configuration.path)
            self._check_mounts(*(each.quotes for each in configuration.settings.listeners))
            self._change(configuration)
        except Exception as error:  # noqa: BLE001 - no file may end what serves
            reason = reason_of(error)
            self._server.report(ReloadFailed(reason))
            self._server.figures.reload_successful = 0
            notes = self._server.notes
            self._server.notes = RunNotes(notes.configuration, reason, notes.problems)
            self._fault = f"Reload failed, the old configuration is in force: {reason}; "
            self._notifier.ready(self._status())
            for request in requests:
                request.answer(reason, ())
            return
        self._fault = ""
        self._note_reload()
        if self._is_whole:
            self._preload()  # what a service may need that this reload has added
        self._notifier.ready(self._status())
        warnings = [problem.text() for problem in self._problems]
        for request in requests:
            request.answer("", warnings)

    def _note_reload(self) -> None:
        """Note that a configuration has been put into force."""
        figures = self._server.figures
        figures.reload_successful, figures.reload_success_time = 1, time()
        figures.settings_not_in_force = len(self._problems)
        path = str(self._start.configuration.path or DEFAULT_FILE)
        problems = tuple(problem.text() for problem in self._problems)
        self._server.notes = RunNotes(path, problems=problems)

    def _change(self, configuration: Configuration) -> None:
        """Put a configuration into force, or raise what went wrong and change nothing."""
        server, settings = self._server, configuration.settings
        server_view, sources = self._start.services.server_view, configuration.sources
        services = prepare_services(settings, server_view, sources)
        passed = rematched(server.passed, configuration)
        try:
            wanted = changes.endpoints(settings, served(passed))
            plan = changes.plan(self._settings, settings, server.bound, self._wanted, wanted)
            count = len(passed) + len(plan.keep) + len(plan.open) + len(plan.retry)
            max_connections, limit_notes = connection_limit(settings, count)
            sockets, notes = bind_again(plan, share=shares_ports(passed))
            server.reload(plan, sockets, passed, services, max_connections, settings)
        except BaseException:
            close_moved(server.passed, passed)
            raise
        self._settings, self._wanted = settings, wanted
        notes += problems_of(server.passed, configuration) + ignored_settings(configuration)
        self._problems = [note for note in notes if isinstance(note, NotInForce)]
        for note in limit_notes + notes:
            server.report(note)
        server.report(Reloaded(", ".join(plan.changed), ", ".join(plan.needs_restart)))
        server.look_at_interfaces()
        if self._is_loaded:
            self._look_at_ports()

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
        server = self._server
        server.reload_requests.end()
        shutdown = Shutdown(server, self._notifier, wait_signal, reason)
        shutdown.run(
            0.0 if reason == FAILURE else self._settings.drain_seconds,
            monotonic() - self._start.began_at,
            restart_pending=reason != FAILURE and self._is_restart_pending(),
            restart_possible=reason != FAILURE and self._stopped_early,
            keep_sockets=not self._releases(),
        )
        for failure in server.failures:
            print(failure, end="", file=sys.stderr)
        return os.EX_SOFTWARE if server.failures else os.EX_OK

    def _releases(self) -> bool:
        """Return whether systemd is to bind ports. Pending signals come in the order of their
        numbers, so that SIGTERM may have come before the one that says so.
        """
        return monotonic() < self._released_until or RELEASE in signal.sigpending()

    def _is_restart_pending(self) -> bool:
        """Return whether a process that can use the configuration will follow."""
        if monotonic() >= self._restart_until:
            return False
        try:
            configuration = read_configuration(self._start.configuration.path)
            settings, sources = configuration.settings, configuration.sources
            prepare_services(settings, self._start.services.server_view, sources)
            self._try_sockets(configuration)
        except Exception as error:  # noqa: BLE001 - whatever it is, connections are drained then
            if count := self._server.live:  # without any, the next start says the same
                self._server.report(NotHandedOver(count, reason_of(error)))
            return False
        return True

    def _try_sockets(self, configuration: Configuration) -> None:
        """Raise what the next process would end by for good, so that no connection is handed to it.

        By other errors of sockets it ends as well, but systemd tries again, and keeps what is
        handed over.
        """
        passed = rematched(self._server.passed, configuration)
        close_moved(self._server.passed, passed)
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
        server, counters = self._server, self._server.counters()
        return (
            f"{self._fault}{self._not_in_force()}"
            f"Serving {server.live} connections and {server.flows} flows; "
            f"{counters.accepted} connections accepted, {counters.refused.total} refused, "
            f"{counters.datagrams_received} datagrams, {server.log_writer.lost} records lost"
        )


def replaced(path: str) -> ConfigError:
    """Return the error for a path that has been replaced on the host since the start."""
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
    """Block the signals, for `wait_signal`; threads that are started later inherit that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def wake_main() -> None:
    """Wake the main thread (any thread)."""
    os.kill(os.getpid(), WAKE)


def stop_waits() -> bool:
    """Return whether a signal to stop has come that `wait_signal` has not returned yet."""
    return bool(signal.sigpending() & STOP_SIGNALS)


def wait_signal(seconds: float) -> int | None:
    """Return the next signal, None if none came in time."""
    sys.setswitchinterval(USUAL_SWITCH_SECONDS)
    try:
        received = signal.sigtimedwait(SIGNALS, max(0.0, seconds))
    finally:
        sys.setswitchinterval(QUICK_SWITCH_SECONDS)
    return received.si_signo if received else None
