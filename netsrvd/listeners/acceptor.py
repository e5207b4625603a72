"""The accept loop: takes connections from one listening socket and hands them to the workers."""

import errno
import socket
from collections.abc import Callable
from itertools import cycle
from time import monotonic

from netsrvd.addresses import host_and_port
from netsrvd.counters import Counters
from netsrvd.duty import Duty, OnFailure
from netsrvd.events import Event
from netsrvd.events.connections import (
    AcceptRecovered,
    AcceptTrouble,
    ListenerFull,
    ListenerRelieved,
    Refused,
)
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.contracts import Gate, Report, StreamFactory
from netsrvd.listeners.trouble import Trouble, named
from netsrvd.listeners.watch import CONGESTED_MS, Watch
from netsrvd.listeners.worker import Worker
from netsrvd.settings import ListenerSettings

ACCEPTS_A_TURN = 64
"""Connections taken before the mailbox is looked at again."""

PEER_ERRORS = frozenset(
    {
        *(errno.ECONNABORTED, errno.EINTR, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT),
        *(errno.ENETDOWN, errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP),
        *(errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET),
    }
)
"""Errors of the one connection that accept(2) took off the queue: the next one may be well."""

CAPACITY_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that last until something is given back: the connection stays in the queue."""


class Acceptor:
    """One TCP listening socket and its thread, which owns all that changes in here.

    `stop()` closes the socket; connections that were accepted live on with their workers. Any
    error of accept that is neither the peer's nor a shortage (EBADF, EINVAL, …) ends the thread.
    """

    __slots__ = (
        "_duty",
        "_full_since",
        "_gate",
        "_identify",
        "_live",
        "_report",
        "_service",
        "_settings",
        "_stopping",
        "_trouble",
        "_waiting",
        "_workers",
        "counters",
        "local",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        settings: ListenerSettings,
        gate: Gate,
        service: StreamFactory,
        workers: list[Worker],
        report: Report,
        identify: Callable[[], str],
        on_failure: OnFailure,
    ) -> None:
        self.sock = sock
        self.local = host_and_port(sock.getsockname())
        self.counters = Counters()
        self._settings = settings
        self._gate = gate
        self._service = service
        self._workers = cycle(workers)
        self._report = report
        self._identify = identify
        self._live = 0
        self._full_since = 0.0
        self._waiting = False
        self._stopping = False
        self._trouble = Trouble(report, self._trouble_began, self._trouble_ended)
        name = f"acceptor {settings.name} {self.local[0]}"
        self._duty = Duty(name, self._run, on_failure)

    @property
    def duty(self) -> Duty:
        """The thread, to be started, watched and joined."""
        return self._duty

    def stop(self) -> None:
        """Ask the thread to close the socket and end."""
        self._duty.mailbox.post(self._stop)

    def update(self, settings: ListenerSettings, gate: Gate, service: StreamFactory) -> None:
        """Give the thread new settings, for the connections to come."""
        self._duty.mailbox.post(self._update, settings, gate, service)

    def departed(self) -> None:
        """Tell that one of its connections has ended (called by workers)."""
        self._duty.mailbox.leave(self._depart)
        if self._waiting:
            self._duty.mailbox.wake()

    def _stop(self) -> None:
        self._stopping = True

    def _update(self, settings: ListenerSettings, gate: Gate, service: StreamFactory) -> None:
        self._settings, self._gate, self._service = settings, gate, service

    def _depart(self) -> None:
        self._live -= 1

    def _run(self) -> None:
        watch, now = Watch(self.sock, self._duty.mailbox), monotonic()
        with self.sock:
            while not self._stopping:
                wanted = self._wants_connections(now)
                patience_ms = 0 if wanted and self._has_room() else self._patience_ms(now)
                ready = watch.wait(patience_ms, wanted=wanted)
                now = monotonic()
                if ready:
                    self._take_waiting()
                elif wanted and self._has_room():
                    self._relieved(now)
                self._trouble.settle(now)

    def _wants_connections(self, now: float) -> bool:
        """Return whether to look at the listening socket: full means not listening."""
        return not (self._is_full(now) or self._trouble.pausing(now) or self._report.congested)

    def _patience_ms(self, now: float) -> int | None:
        if self._report.congested:
            return CONGESTED_MS
        return self._trouble.next_look_ms(now)

    def _is_full(self, now: float) -> bool:
        limit = self._settings.max_connections
        # From here on a departure wakes this thread; those that came before are in the mailbox.
        self._waiting = self._live >= limit or self._full_since > 0
        if self._waiting:
            self._duty.mailbox.deliver()
        full = self._live >= limit
        if full and not self._full_since:
            self._full_since = now
            self._report(ListenerFull(self._settings.name, *self.local, self._live))
        return full

    def _has_room(self) -> bool:
        """Return whether it was full and clearly is no longer, unless somebody waits for room."""
        return self._full_since > 0 and self._live <= self._settings.max_connections * 9 // 10

    def _relieved(self, now: float) -> None:
        seconds, self._full_since = now - self._full_since, 0.0
        self._report(ListenerRelieved(self._settings.name, *self.local, self._live, seconds))

    def _take_waiting(self) -> None:
        """Accept what waits in the kernel's queue, as far as there is room."""
        for _ in range(min(ACCEPTS_A_TURN, self._settings.max_connections - self._live)):
            try:
                sock, address = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                return
            self._take(sock, host_and_port(address))

    def _failed(self, error: OSError) -> None:
        if error.errno not in PEER_ERRORS and error.errno not in CAPACITY_ERRORS:
            raise error
        self.counters.accept_errors += 1
        self._trouble.occurred(error, monotonic(), pause=error.errno in CAPACITY_ERRORS)

    def _take(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        settings = self._settings
        local = host_and_port(sock.getsockname())
        refusal = self._gate.refusal(peer[0])
        if refusal:
            sock.close()
            self.counters.refused += 1
            self._report(Refused(settings.name, settings.service, *peer, *local, *refusal))
            return
        sock.setblocking(False)
        identity, now = self._identify(), monotonic()
        connection = Connection(
            sock, identity, peer, local, settings, self._service, self.departed, now
        )
        self._live += 1
        self.counters.accepted += 1
        self._report(connection.accepted())
        next(self._workers).take(connection)

    def _trouble_began(self, error: OSError, pause_ms: int) -> Event:
        return AcceptTrouble(self._settings.name, *self.local, named(error), pause_ms)

    def _trouble_ended(self, errors: int, seconds: float) -> Event:
        return AcceptRecovered(self._settings.name, *self.local, errors, seconds)
