"""Serves TCP connections: one thread, one epoll(7) loop, any number of connections."""

import errno
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.listeners.connection import Connection, sweep_seconds
from netsrvd.listeners.contracts import Report
from netsrvd.listeners.watch import retry_later
from netsrvd.settings import ListenerSettings
from netsrvd.tracebacks import described

RECEIVE_BYTES = 65_536
"""Read at once, which also bounds what one echo connection can have waiting to be sent."""

LONGEST_SWEEP_SECONDS = 1.0
"""How late a time-out may be noticed; a look at 8,000 connections takes about a millisecond."""

TAKEN_A_TURN = 16
"""New connections that a worker takes before it serves the others again. 16 take 2 ms; clients that
connect as fast as the daemon accepts would otherwise be all that it serves.
"""

MOST_WAITING = 32
"""Connections that may wait for a worker before its acceptors pause. The kernel's queue holds the
others, where they take no place of the listener and no descriptor of the daemon.
"""

RETRY_SECONDS = 0.1
"""How long to leave a socket alone that takes nothing although epoll says that it has room."""

RESET_ERRORS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ESHUTDOWN, errno.ENOTCONN})


RuleAgainst = Callable[[str], str]
"""Returns the rule that keeps an address out, or nothing."""


class Worker:
    """The connections that acceptors handed over, and the thread that owns them.

    `drain()` has `on_empty` called, in this thread, as soon as no connection is left; `stop()`
    closes what is left. An exception in a connection's code ends that connection alone.
    """

    __slots__ = (
        "_connections",
        "_draining",
        "_duty",
        "_epoll",
        "_now",
        "_on_empty",
        "_report",
        "_resting",
        "_retry_at",
        "_stopping",
        "_sweep_at",
        "_sweep_seconds",
        "_wakes",
        "counters",
        "cut",
    )

    def __init__(
        self, number: int, report: Report, on_empty: Callable[[], None], on_failure: OnFailure
    ) -> None:
        self.counters = Counters()
        self.cut = 0
        """Connections that were still open when the worker stopped."""
        self._connections: dict[int, Connection] = {}
        self._wakes: dict[Callable[[], None], None] = {}
        """What wakes the acceptors that have paused."""
        self._epoll = select.epoll()
        self._report = report
        self._on_empty = on_empty
        self._draining = self._stopping = False
        self._resting: dict[int, Connection] = {}
        """Those whose sockets are left alone until `_retry_at`."""
        self._retry_at = 0.0
        self._now = monotonic()
        self._sweep_at = 0.0
        self._sweep_seconds = LONGEST_SWEEP_SECONDS
        self._duty = Duty(f"worker {number}", self._run, on_failure)

    @property
    def duty(self) -> Duty:
        """The thread, to be started, watched and joined."""
        return self._duty

    @property
    def live(self) -> int:
        """How many connections it has, a moment ago."""
        return len(self._connections)

    @property
    def drained(self) -> bool:
        """Whether nothing is left of what it was handed before `drain()`."""
        return self._draining and not self._connections

    def connections(self) -> list[Connection]:
        """Return those that are live, to be looked at (any thread)."""
        return list(self._connections.values())

    def take(self, connection: Connection) -> None:
        """Hand over a connection."""
        self._duty.mailbox.post(self._take, connection)

    def has_room(self, wake: Callable[[], None]) -> bool:
        """Return whether more connections may be handed over now (any thread).

        If it returns False, the worker calls `wake` once when it has taken those that wait.
        """
        if self._duty.mailbox.waiting < MOST_WAITING:
            return True
        self._wakes[wake] = None
        return self._duty.mailbox.waiting < MOST_WAITING  # the worker may have looked before

    def update(self, listeners: Mapping[str, tuple[ListenerSettings, RuleAgainst]]) -> None:
        """Give the live connections of these listeners, by name, their new settings.

        Those whose peer a rule is against are ended.
        """
        self._duty.mailbox.post(self._update, listeners)

    def surrender(self, given: list[Connection]) -> None:
        """Have the thread put those that are movable into `given`, and no longer serve them."""
        self._duty.mailbox.post(self._surrender, given)

    def drain(self) -> None:
        """Ask to be told by `on_empty` when no connection is left."""
        self._duty.mailbox.post(self._drain)

    def stop(self) -> None:
        """Ask the thread to close all connections and end."""
        self._duty.mailbox.post(self._stop)

    def _take(self, connection: Connection) -> None:
        # It may have come after this turn of the loop began, and must not end before it came.
        self._now = max(self._now, connection.opened_at)
        descriptor = connection.sock.fileno()
        self._connections[descriptor] = connection
        self._plan_sweeps(connection.settings)
        try:
            self._epoll.register(descriptor, select.EPOLLIN)
            greeting = connection.begin()
            if connection.backlog is None:
                self._answer(connection, greeting)
            else:
                self._keep(connection, connection.backlog)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends one connection
            self._failed(connection, error)
        if connection.backlog is None:
            # Most clients have spoken by now, which saves a turn of the loop.
            self._serve([(descriptor, select.EPOLLIN)])

    def _update(self, listeners: Mapping[str, tuple[ListenerSettings, RuleAgainst]]) -> None:
        self._now = monotonic()
        for connection in list(self._connections.values()):
            known = listeners.get(connection.settings.name)
            if known is not None:
                connection.settings, rule_against = known
                self._plan_sweeps(connection.settings)
                if rule := rule_against(connection.peer[0]):
                    self._close(connection, "access", rule)

    def _surrender(self, given: list[Connection]) -> None:
        for connection in list(self._connections.values()):
            if connection.is_movable:
                with suppress(OSError):  # it has never been registered
                    self._epoll.unregister(connection.sock)
                given.append(self._connections.pop(connection.sock.fileno()))
        if self._draining and not self._connections:
            self._on_empty()

    def _drain(self) -> None:
        self._draining = True
        if not self._connections:
            self._on_empty()

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        mailbox, connections = self._duty.mailbox, self._connections
        self._epoll.register(mailbox, select.EPOLLIN)
        with self._epoll:
            while not self._stopping:
                try:
                    ready = self._epoll.poll(self._patience if connections else None)
                except OSError as error:
                    ready = retry_later(error)
                self._now = monotonic()
                self._serve(ready)
                mailbox.deliver(TAKEN_A_TURN)
                if self._wakes and mailbox.waiting < TAKEN_A_TURN:
                    self._wake_acceptors()
                if self._resting and self._now >= self._retry_at:
                    self._retry()
                if self._now >= self._sweep_at:
                    self._sweep()
            self._cut_all()

    @property
    def _patience(self) -> float:
        """For how many seconds there is nothing to do unless epoll tells of something."""
        return min(self._sweep_seconds, RETRY_SECONDS) if self._resting else self._sweep_seconds

    def _wake_acceptors(self) -> None:
        while self._wakes:
            wake, _ = self._wakes.popitem()
            wake()

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        """Take one step for each connection that epoll tells of. The hot path of TCP.

        With `_answer` it is 0.3 µs of Python a message; each further call would add 0.05
        (docs/performance.md).
        """
        connections, now = self._connections, self._now
        for descriptor, events in ready:
            connection = connections.get(descriptor)
            if connection is None:  # the mailbox, or closed in this turn
                continue
            try:
                if connection.backlog is not None:
                    self._go_on(connection, events)
                    continue
                data = connection.sock.recv(RECEIVE_BYTES)
                connection.active_at = now
                if data:
                    connection.bytes_received += len(data)
                    data = connection.service.respond(data)
                else:
                    connection.client_done = True
                self._answer(connection, data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends one connection
                self._failed(connection, error)

    def _answer(self, connection: Connection, data: bytes) -> None:
        """Send `data`; then let the service say more, or close when all is said."""
        if data:
            try:
                sent = connection.sock.send(data)
            except BlockingIOError:
                sent = 0
            connection.bytes_sent += sent
            if sent < len(data):
                self._keep(connection, memoryview(data)[sent:])
                return
        service = connection.service
        if service.finished and not connection.client_done:
            connection.part(self._now)
        elif service.finished:
            self._close(connection, "client")
        elif more := service.more():
            # It is sent in the next turn: a service without an end leaves room for others.
            self._keep(connection, memoryview(more))
        elif connection.client_done:
            self._close(connection, "finished" if connection.parts_at else "client")

    def _keep(self, connection: Connection, backlog: memoryview) -> None:
        """Send the rest when the peer can take it, and answer nothing until then."""
        connection.backlog = backlog
        reads = connection.service.heedless and not connection.client_done
        self._epoll.modify(connection.sock, select.EPOLLOUT | (select.EPOLLIN if reads else 0))

    def _go_on(self, connection: Connection, events: int) -> None:
        """Take a step for a connection whose client has not taken everything yet."""
        if events & select.EPOLLIN:  # of a service that throws away what it is sent
            data = connection.sock.recv(RECEIVE_BYTES)
            connection.bytes_received += len(data)
            if not data:
                connection.client_done = True
                self._epoll.modify(connection.sock, select.EPOLLOUT)
        if events & ~select.EPOLLIN:
            self._send_backlog(connection)

    def _send_backlog(self, connection: Connection) -> None:
        backlog = connection.backlog
        assert backlog is not None
        try:
            sent = connection.sock.send(backlog)
        except BlockingIOError:
            self._rest(connection)
            return
        connection.active_at = self._now
        connection.bytes_sent += sent
        if sent < len(backlog):
            connection.backlog = backlog[sent:]
            return
        connection.backlog = None
        self._epoll.modify(connection.sock, select.EPOLLIN)
        self._answer(connection, b"")

    def _rest(self, connection: Connection) -> None:
        """Leave a connection alone for a moment whose socket has room and takes nothing.

        The kernel lacks memory for sockets then (net.ipv4.tcp_mem, MemoryMax=). EPOLLOUT would come
        again at once, and the loop would spin.
        """
        if not self._resting:
            self._retry_at = self._now + RETRY_SECONDS
        self._resting[connection.sock.fileno()] = connection
        reads = connection.service.heedless and not connection.client_done
        self._epoll.modify(connection.sock, select.EPOLLIN if reads else 0)

    def _retry(self) -> None:
        resting, self._resting = self._resting, {}
        for descriptor, connection in resting.items():
            if self._connections.get(descriptor) is connection and connection.backlog is not None:
                self._keep(connection, connection.backlog)

    def _close(self, connection: Connection, reason: str, error: str = "") -> None:
        """End a connection and write its record."""
        del self._connections[connection.sock.fileno()]
        # A close would not be enough: epoll(7) goes on telling of a socket that came from another
        # process for as long as systemd has its descriptor, too.
        with suppress(OSError):  # it has never been registered
            self._epoll.unregister(connection.sock)
        connection.departed()  # before its client can see the end, and come again
        connection.close(reason)
        if connection.identity:  # a visitor has none, and no record
            connection.count_into(self.counters)
            if connection.has_end_record(reason):
                self._report(connection.closed(reason, self._now, error))
        if self._draining and not self._connections:
            self._on_empty()

    def _plan_sweeps(self, settings: ListenerSettings) -> None:
        """Look for overdue connections often enough."""
        so_far = self._sweep_seconds
        self._sweep_seconds = sweep_seconds(settings, so_far, LONGEST_SWEEP_SECONDS)

    def _sweep(self) -> None:
        self._sweep_at = self._now + self._sweep_seconds
        for connection in list(self._connections.values()):
            try:
                reason = connection.overdue(self._now)
            except OSError as error:
                self._failed(connection, error)
                continue
            if reason:
                self._close(connection, reason)

    def _cut_all(self) -> None:
        self.cut = len(self._connections)
        for connection in list(self._connections.values()):
            self._close(connection, "drain")

    def _failed(self, connection: Connection, error: Exception) -> None:
        """End a connection for what was raised while a step was taken for it."""
        if isinstance(error, BlockingIOError):  # nothing to be taken, or no room: no failure at all
            return
        if isinstance(error, OSError):
            reset = error.errno in RESET_ERRORS
            self._close(connection, "reset" if reset else "network", "" if reset else str(error))
            return
        self._report(connection.service_failed(error))
        self._close(connection, "error", described(error))
