"""Connections of Python handlers: the event loop keeps their deadlines, pools run them."""

from collections.abc import Callable
from math import inf
from time import monotonic

from netsrvd.connection import Connection, Owner
from netsrvd.contracts import Report
from netsrvd.errnos import format_errno
from netsrvd.event_loop import EventLoop
from netsrvd.events import INFO
from netsrvd.events.handlers import HandlersBusy, HandlersFree, HandlerStuck
from netsrvd.handlers.connection import HandlerTask
from netsrvd.handlers.pool import Task, ThreadPool
from netsrvd.loop_thread import OnFailure
from netsrvd.services.base import Handler
from netsrvd.settings import ListenerSettings
from netsrvd.tcp import SWEEP_SECONDS, TIMEOUTS_PER_TURN, sweep_seconds

STUCK_SECONDS = 5.0
"""How long a handler may go on after its connection has ended, before a record says so."""

STOP_SECONDS = 2.0
"""How long a stop waits for handlers whose connections it has ended."""


class ListenerPool:
    """The thread pool of one listener, and since when connections have waited for a thread."""

    __slots__ = ("busy_since", "pool", "service_name", "settings")

    def __init__(self, settings: ListenerSettings, pool: ThreadPool) -> None:
        self.settings = settings
        self.pool = pool
        self.busy_since = 0.0
        self.service_name = ""
        """The service of the connections that wait."""


class HandlerConnections:
    """All connections of handlers. Owned by the tcp event loop.

    A time-out, a reload or a stop ends a connection by shutdown(2), which makes the blocking calls
    of its handler return. They cannot be handed over to another process: their state is in the
    running code of the handler.
    """

    __slots__ = (
        "_abandoned",
        "_cut_at",
        "_live",
        "_loop",
        "_on_failure",
        "_pools",
        "_report",
        "_sweep_at",
    )

    def __init__(self, loop: EventLoop, report: Report, on_failure: OnFailure) -> None:
        self._loop = loop
        self._report = report
        self._on_failure = on_failure
        self._live: dict[Connection, HandlerTask] = {}
        self._abandoned: set[HandlerTask] = set()
        """Those whose handlers did not return. Their sockets stay open, so that no other connection
        gets a descriptor that a handler may still use."""
        self._pools: dict[str, ListenerPool] = {}
        self._cut_at = inf
        self._sweep_at = inf

    @property
    def live(self) -> int:
        """How many connections there are (any thread)."""
        return len(self._live)

    def connections(self) -> list[Connection]:
        """Return them, to be looked at (any thread)."""
        return list(self._live)

    def take(self, handler: Handler, connection: Connection) -> None:
        """Serve a connection by a handler, in a thread of its listener's pool."""
        task = HandlerTask(connection, handler)
        task.cut_at = self._cut_at
        self._live[connection] = task
        connection.sock.setblocking(True)
        of_listener = self._pool(connection.owner.settings)
        task.pool_task = Task(task.work, lambda error: self._returned(task, error))
        of_listener.pool.submit(task.pool_task)
        if of_listener.pool.waiting and not of_listener.busy_since:
            of_listener.busy_since = self._loop.now
            of_listener.service_name = connection.service_name
            names = of_listener.settings.name, of_listener.service_name
            self._report(HandlersBusy(*names, of_listener.pool.busy))
        self._plan(connection.owner.settings)

    def update(self, listener: Owner, denied_by: Callable[[str], str]) -> None:
        """Use the new settings of a listener for its connections and its pool."""
        settings, now = listener.settings, self._loop.now
        if of_listener := self._pools.get(settings.name):
            if of_listener.pool.busy or of_listener.busy_since:
                of_listener.settings = settings
                of_listener.pool.resize(settings.handler_threads)
            else:  # made again when a connection needs it
                of_listener.pool.shutdown()
                del self._pools[settings.name]
        for connection, task in list(self._live.items()):
            if connection.owner is listener:
                self._plan(settings)
                if not task.reason and (rule := denied_by(connection.peer[0])):
                    self._end(task, "access", now, rule)

    def end_pool(self, name: str) -> None:
        """End the threads of a listener that is gone and has no connection any more."""
        if of_listener := self._pools.pop(name, None):
            of_listener.pool.shutdown()

    def drain(self, deadline: float) -> None:
        """Set the time at which the connections of all handlers end."""
        self._cut_at = deadline
        for task in self._live.values():
            task.cut_at = deadline

    def stop(self) -> int:
        """End all connections; return how many they were. Their handlers return a little later."""
        now = self._loop.now
        found = [task for task in self._live.values() if not task.reason]
        for task in found:
            self._end(task, "drain", now)
        return len(found)

    def shutdown(self) -> None:
        """Give up the handlers that have not returned, and end the pools."""
        for task in list(self._live.values()):
            self._abandon(task, monotonic())
        for of_listener in self._pools.values():
            of_listener.pool.shutdown()

    def run_due(self, now: float) -> float:
        """End what has timed out, `TIMEOUTS_PER_TURN` connections in a turn; report handlers that
        do not return, and pools that are free.
        """
        ended = 0
        for task in list(self._live.values()):
            if now - task.ended_at >= STUCK_SECONDS:
                self._abandon(task, now)
                ended += 1
            elif not task.reason:
                ended += self._has_timed_out(task, now)
            if ended == TIMEOUTS_PER_TURN:
                self._sweep_at = now
                return now
        for of_listener in self._pools.values():
            of_listener.pool.assign()
            if of_listener.busy_since and not of_listener.pool.waiting:
                names = of_listener.settings.name, of_listener.service_name
                self._report(HandlersFree(*names, now - of_listener.busy_since))
                of_listener.busy_since = 0.0
        owners = {task.connection.owner for task in self._live.values()}
        sweeps = [sweep_seconds(owner.settings) for owner in owners]
        if any(of_listener.busy_since for of_listener in self._pools.values()):
            sweeps.append(SWEEP_SECONDS)
        self._sweep_at = now + min(sweeps, default=inf)
        return self._sweep_at

    def _has_timed_out(self, task: HandlerTask, now: float) -> bool:
        """End a connection that has timed out, or whose descriptor its handler has closed."""
        try:
            reason, detail = task.connection.timeout_reason(now), ""
        except OSError as error:
            reason, detail = "network", format_errno(error)
        if reason:
            self._end(task, reason, now, detail)
        return bool(reason)

    def _plan(self, settings: ListenerSettings) -> None:
        at = self._loop.now + sweep_seconds(settings)
        if at < self._sweep_at:
            self._sweep_at = at
            self._loop.call_at(at, self)

    def _pool(self, settings: ListenerSettings) -> ListenerPool:
        """Return the pool of a listener; it is made when its first connection comes."""
        found = self._pools.get(settings.name)
        if found is None:
            name, calls = f"handler {settings.name}", self._loop.thread.calls
            pool = ThreadPool(name, settings.handler_threads, calls, self._on_failure)
            found = self._pools[settings.name] = ListenerPool(settings, pool)
        return found

    def _end(self, task: HandlerTask, reason: str, now: float, detail: str = "") -> None:
        """End a connection; its record follows when its handler has returned."""
        task.end(reason, now, detail)
        if self._pools[task.connection.owner.settings.name].pool.cancel(task.pool_task):
            self._returned(task, None)

    def _returned(self, task: HandlerTask, error: BaseException | None) -> None:
        """Close a connection whose handler has returned."""
        if error:
            self._report(task.connection.service_failed(error))
        task.finish(error)
        if task in self._abandoned:
            self._abandoned.remove(task)
        else:
            self._close(task)
        task.connection.close_socket(task.reason)

    def _close(self, task: HandlerTask) -> None:
        """Write the record of a connection and count its end."""
        connection = task.connection
        del self._live[connection]
        counters = connection.owner.counters
        counters.closed[task.reason] += 1
        counters.bytes_received += connection.bytes_received
        counters.bytes_sent += connection.bytes_sent
        if self._report.level >= INFO and connection.has_end_record(task.reason):
            self._report(connection.closed(task.reason, monotonic(), task.detail))
        connection.owner.connection_closed(connection)

    def _abandon(self, task: HandlerTask, now: float) -> None:
        """Close a connection, except its socket, whose handler has not returned after its end."""
        connection = task.connection
        names = connection.listener, connection.service_name
        seconds = now - task.ended_at
        self._report(HandlerStuck(*names, *connection.peer, seconds, connection.connection_id))
        self._abandoned.add(task)
        self._close(task)
