"""Serves TCP connections by handlers: one thread looks after them, others run the handlers."""

from collections.abc import Callable, Mapping
from math import inf
from time import monotonic

from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.events.handlers import HandlersBusy, HandlersFree, HandlerStuck
from netsrvd.listeners.connection import Connection, sweep_seconds
from netsrvd.listeners.contracts import Handler, Report
from netsrvd.listeners.handlers.crew import Crew, Job
from netsrvd.listeners.handlers.handled import Handling
from netsrvd.listeners.trouble import named
from netsrvd.listeners.watch import Watch, Width
from netsrvd.listeners.worker import LONGEST_SWEEP_SECONDS, RuleAgainst
from netsrvd.settings import ListenerSettings

STUCK_SECONDS = 5.0
"""How long a handler may go on after its connection has ended, before the log says so."""

LAST_SECONDS = 2.0
"""How long a stop waits for handlers whose connections it has ended."""


CALLS_A_TURN = 64
"""New connections and ends of handlers that are dealt with before the next look at time-outs."""


class Team:
    """The crew of one listener, and whether somebody waits for it: since when, and for what."""

    __slots__ = ("awaited", "busy_since", "crew", "settings")

    def __init__(self, settings: ListenerSettings, crew: Crew) -> None:
        self.settings = settings
        self.crew = crew
        self.busy_since = 0.0
        self.awaited = ""


class Handlers:
    """The connections that have a handler, and the thread that looks after them and owns all in
    here. It starts the threads that run the handlers, and ends the connections that are overdue.

    It is asked what a worker is asked: `drain()` has `on_empty` called, in this thread, as soon as
    no connection is left; `stop()` ends what is left. These connections cannot be handed over to
    another process: they live in code that runs.
    """

    __slots__ = (
        *("_abandoned", "_cut_at", "_draining", "_duty", "_live", "_on_empty", "_on_failure"),
        *("_report", "_stopping", "_sweep_at", "_sweep_seconds", "_teams", "counters", "cut"),
    )

    def __init__(self, report: Report, on_empty: Callable[[], None], on_failure: OnFailure) -> None:
        self.counters = Counters()
        self.cut = 0
        """Connections that were still open when it stopped."""
        self._live: dict[Connection, Handling] = {}
        self._abandoned: set[Handling] = set()
        """Those whose handlers did not return: their sockets stay open, so that no other connection
        gets the descriptor while somebody may still use it."""
        self._teams: dict[str, Team] = {}
        self._report = report
        self._on_empty = on_empty
        self._on_failure = on_failure
        self._draining = self._stopping = False
        self._cut_at = inf
        self._sweep_at = 0.0
        self._sweep_seconds = LONGEST_SWEEP_SECONDS
        self._duty = Duty("handlers", self._run, on_failure)

    @property
    def duty(self) -> Duty:
        """The thread, to be started, watched and joined."""
        return self._duty

    @property
    def live(self) -> int:
        """How many connections it has, a moment ago."""
        return len(self._live)

    @property
    def drained(self) -> bool:
        """Whether nothing is left of what it was handed before `drain()`."""
        return self._draining and not self._live

    def connections(self) -> list[Connection]:
        """Return those that are live, to be looked at (any thread)."""
        return list(self._live)

    def take(self, handler: Handler, connection: Connection) -> None:
        """Hand over a connection, and what is to handle it."""
        self._duty.mailbox.post(self._take, handler, connection)

    def update(self, listeners: Mapping[str, tuple[ListenerSettings, RuleAgainst]]) -> None:
        """Give the live connections of these listeners, by name, their new settings.

        Those whose peer a rule is against are ended.
        """
        self._duty.mailbox.post(self._update, listeners)

    def drain(self, deadline: float) -> None:
        """Ask to be told by `on_empty` when no connection is left, and tell handlers how long."""
        self._duty.mailbox.post(self._drain, deadline)

    def stop(self) -> None:
        """Ask the thread to end all connections, and itself."""
        self._duty.mailbox.post(self._stop)

    def _take(self, handler: Handler, connection: Connection) -> None:
        handling = Handling(connection, handler)
        handling.cut_at = self._cut_at
        self._live[connection] = handling
        self._plan_sweeps(connection.settings)
        connection.sock.setblocking(True)
        team = self._team(connection.settings)
        handling.job = Job(handling.work, lambda error: self._returned(handling, error))
        team.crew.give(handling.job)
        if team.crew.waiting and not team.busy_since:
            team.busy_since, team.awaited = monotonic(), connection.service_name
            self._report(HandlersBusy(team.settings.name, team.awaited, team.crew.busy))

    def _team(self, settings: ListenerSettings) -> Team:
        """Return the team of a listener; it is made when its first connection comes."""
        team = self._teams.get(settings.name)
        if team is None:
            name = f"handler {settings.name}"
            crew = Crew(name, settings.handler_threads, self._duty.mailbox, self._on_failure)
            team = self._teams[settings.name] = Team(settings, crew)
        return team

    def _update(self, listeners: Mapping[str, tuple[ListenerSettings, RuleAgainst]]) -> None:
        now = monotonic()
        for name, team in list(self._teams.items()):
            if not (team.crew.busy or team.busy_since):  # it comes back when there is a use for it
                team.crew.dismiss()
                del self._teams[name]
            elif name in listeners:
                team.settings = listeners[name][0]
                team.crew.resize(team.settings.handler_threads)
        for connection, handling in list(self._live.items()):
            known = listeners.get(connection.settings.name)
            if known is not None:
                connection.settings, rule_against = known
                self._plan_sweeps(connection.settings)
                if not handling.reason and (rule := rule_against(connection.peer[0])):
                    self._end(handling, "access", now, rule)

    def _drain(self, deadline: float) -> None:
        self._draining, self._cut_at = True, deadline
        for handling in self._live.values():
            handling.cut_at = deadline
        if not self._live:
            self._on_empty()

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        watch = Watch(self._duty.mailbox, CALLS_A_TURN)
        while not self._stopping:
            watch.wait(self._patience(), Width.MAIL)
            self._sweep()
        self._cut_all(watch)
        for team in self._teams.values():
            team.crew.dismiss()

    def _patience(self) -> float:
        busy = self._live or any(team.busy_since for team in self._teams.values())
        return self._sweep_seconds if busy else inf

    def _plan_sweeps(self, settings: ListenerSettings) -> None:
        """Look for overdue connections often enough."""
        so_far = self._sweep_seconds
        self._sweep_seconds = sweep_seconds(settings, so_far, LONGEST_SWEEP_SECONDS)

    def _sweep(self) -> None:
        now = monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + self._sweep_seconds
        for handling in list(self._live.values()):
            if now - handling.ended_at >= STUCK_SECONDS:
                self._abandon(handling, now)
            elif not handling.reason:
                self._look(handling, now)
        for team in self._teams.values():
            team.crew.assign()
            if team.busy_since and not team.crew.waiting:
                names = team.settings.name, team.awaited
                self._report(HandlersFree(*names, now - team.busy_since))
                team.busy_since = 0.0

    def _look(self, handling: Handling, now: float) -> None:
        """End a connection that is overdue, or whose descriptor its handler has closed."""
        try:
            reason, detail = handling.connection.overdue(now), ""
        except OSError as error:
            reason, detail = "network", named(error)
        if reason:
            self._end(handling, reason, now, detail)

    def _end(self, handling: Handling, reason: str, now: float, detail: str = "") -> None:
        """End a connection; its record follows when its handler has returned."""
        handling.end(reason, now, detail)
        if self._teams[handling.connection.settings.name].crew.withdraw(handling.job):
            self._returned(handling, None)

    def _returned(self, handling: Handling, error: BaseException | None) -> None:
        """Close a connection whose handler has returned."""
        connection = handling.connection
        if error:
            self._report(connection.service_failed(error))
        handling.finish(error)
        if handling in self._abandoned:
            self._abandoned.remove(handling)
        else:
            self._close(handling)
        handling.close()

    def _close(self, handling: Handling) -> None:
        """Write the record of a connection, and give its place back."""
        connection = handling.connection
        del self._live[connection]
        connection.count_into(self.counters)
        if connection.has_end_record(handling.reason):
            self._report(connection.closed(handling.reason, monotonic(), handling.detail))
        connection.departed()
        if self._draining and not self._live:
            self._on_empty()

    def _abandon(self, handling: Handling, now: float) -> None:
        """Go on without a handler that does not return; its connection has ended long ago."""
        connection, settings = handling.connection, handling.connection.settings
        seconds = now - handling.ended_at
        names = settings.name, connection.service_name
        self._report(HandlerStuck(*names, *connection.peer, seconds, connection.identity))
        self._abandoned.add(handling)
        self._close(handling)

    def _cut_all(self, watch: Watch) -> None:
        """End all connections and wait for their handlers, but not for long."""
        now = monotonic()
        self.cut = sum(not handling.reason for handling in self._live.values())
        for handling in list(self._live.values()):
            if not handling.reason:
                self._end(handling, "drain", now)
        deadline = now + LAST_SECONDS
        while self._live and (left := deadline - monotonic()) > 0:
            watch.wait(left, Width.MAIL)
        for handling in list(self._live.values()):
            self._abandon(handling, monotonic())
