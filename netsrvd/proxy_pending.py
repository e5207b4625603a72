"""Connections of proxies whose PROXY header has not come yet."""

import select
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, takewhile
from math import inf

from netsrvd.connection import AnySocket
from netsrvd.contracts import CONGESTED_SECONDS, Peer, Refusal, Report
from netsrvd.counters import Counters
from netsrvd.errnos import format_errno
from netsrvd.event_loop import READ, EventLoop
from netsrvd.proxy_protocol import LATE, LONG, LONGEST, WRONG, HeaderError, read_stream
from netsrvd.settings import ListenerSettings

PROBE_SECONDS = 0.5
"""How long a connection that a proxy makes for itself may stay silent. Health checks leave sooner
and have no record; a client of a service that speaks first waits for this long.
"""

TIMEOUTS_PER_TURN = 16
"""Connections whose wait is ended in one turn."""

NOT_A_PROXY = "access", "proxies no longer has it"

PENDING_EVENTS = READ | select.EPOLLRDHUP | select.EPOLLET
"""A header is only peeked at until it is whole, so the bytes stay in the socket: a level-triggered
wait would return at once for ever."""

Admit = Callable[[AnySocket, Peer, Peer | None, float], None]
"""Serves a connection. Arguments: socket, client, proxy if that is another one, time."""

Reject = Callable[[AnySocket, Peer, Refusal | None, float, None], None]
"""Closes a connection and reports why, if there is a reason."""


class PendingConnection:
    """One connection that waits. Owned by the event loop."""

    __slots__ = ("events", "header_bytes", "peer", "pending", "since", "sock")

    def __init__(
        self, pending: "PendingConnections", sock: AnySocket, peer: Peer, since: float
    ) -> None:
        self.pending = pending
        self.sock = sock
        self.peer = peer
        self.since = since
        self.header_bytes = 0
        """The length of a whole header by which the proxy speaks for itself; 0 before it came."""
        self.events = 0
        """What epoll(7) has reported, and will not report again, while the log had no room."""

    def on_ready(self, events: int, now: float) -> None:
        """Look at what has come."""
        self.pending.on_ready(self, events, now)


class PendingConnections:
    """The pending connections of one listener. Owned by the event loop.

    A header is taken off the socket only when the connection is admitted, to the byte. So a
    connection that is handed over before is in the state in which it was accepted. While the log
    has no room, no header is read and no wait is ended.
    """

    __slots__ = (
        "_admit",
        "_counters",
        "_held",
        "_loop",
        "_own",
        "_reject",
        "_report",
        "_settings",
        "_waiting",
    )

    def __init__(
        self,
        loop: EventLoop,
        settings: ListenerSettings,
        counters: Counters,
        report: Report,
        *,
        admit: Admit,
        reject: Reject,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._counters = counters
        self._report = report
        self._admit = admit
        self._reject = reject
        self._waiting: dict[int, PendingConnection] = {}
        """Those without a whole header, the oldest first."""
        self._own: dict[int, PendingConnection] = {}
        """Those with a header by which the proxy speaks for itself, the oldest first."""
        self._held: dict[int, PendingConnection] = {}
        """Those of both that have `events` to be looked at as soon as the log has room."""

    @property
    def count(self) -> int:
        """How many wait (any thread)."""
        return len(self._waiting) + len(self._own)

    def _due_at(self) -> float:
        """Return when `run_due` has something to do."""
        waits = (self._waiting, self._wait_seconds), (self._own, PROBE_SECONDS)
        ends = (next(iter(table.values())).since + seconds for table, seconds in waits if table)
        return min(ends, default=inf)

    @property
    def _wait_seconds(self) -> float:
        """How long to wait for a header; a connection lasts no longer either."""
        settings = self._settings
        return min(settings.proxy_seconds, settings.max_connection_seconds or inf)

    @property
    def _wait_rule(self) -> str:
        """The setting that limits the wait."""
        seconds = self._wait_seconds
        is_usual = seconds == self._settings.proxy_seconds
        return f"{'proxy_timeout' if is_usual else 'max_connection_seconds'} = {seconds:g} s"

    def update(
        self, settings: ListenerSettings, is_proxy: Callable[[str], bool], now: float
    ) -> None:
        """Use new settings; reject connections of peers that are no proxies any more."""
        self._settings = settings
        for one in self._all():
            if not is_proxy(one.peer[0]):
                self._end(one, NOT_A_PROXY, now)
        self._plan()

    def add(self, sock: AnySocket, peer: Peer, now: float) -> None:
        """Wait for the header of a connection; it has often come already."""
        one = PendingConnection(self, sock, peer, now)
        sock.setblocking(False)
        try:
            self._loop.add(sock.fileno(), one, PENDING_EVENTS)  # reports what has come already
        except OSError as error:
            rule = f"it cannot be watched, {format_errno(error)}; raise fs.epoll.max_user_watches"
            self._reject(sock, peer, ("descriptors", rule), now, None)
        else:
            self._waiting[sock.fileno()] = one
            self._plan()

    def on_ready(self, one: PendingConnection, events: int, now: float) -> None:
        """Read the header of a connection, unless the log has no room for its record."""
        if self._report.congested:
            one.events |= events
            self._held[one.sock.fileno()] = one
            self._loop.call_at(now + CONGESTED_SECONDS, self)
        else:
            self._read_header(one, events, now)

    def _read_header(self, one: PendingConnection, events: int, now: float) -> None:
        """Peek at what has come and act on it."""
        try:
            data = one.sock.recv(LONGEST, socket.MSG_PEEK)
        except BlockingIOError:  # the event was for an earlier connection of this descriptor
            return
        except OSError:  # it was reset
            data = b""
        has_ended = bool(events & ~READ) or not data
        if one.header_bytes:
            self._own_spoke(one, data, now, has_ended=has_ended)
            return
        if not data:
            self._probe_ended(one, now)
            return
        try:
            header = read_stream(data)
        except HeaderError as error:
            self._counters.proxy_long += error.reason == LONG
            self._counters.proxy_wrong += error.reason == WRONG
            self._end(one, (error.reason, str(error)), now)
            return
        if header is None:
            if has_ended:
                self._counters.proxy_wrong += 1
                self._end(one, (WRONG, "the connection ended within it"), now)
        elif header.client in (None, one.peer):
            self._speaks_for_itself(one, header.length, data, now, has_ended=has_ended)
        else:
            self._serve(one, header.length, header.client, now)

    def run_due(self, now: float) -> float:
        """End the waits that are over, `TIMEOUTS_PER_TURN` of each sort at most."""
        for one in list(islice(self._held.values(), TIMEOUTS_PER_TURN)):
            if self._report.congested:
                break
            del self._held[one.sock.fileno()]
            events, one.events = one.events, 0
            self._read_header(one, events, now)
        if self._report.congested:
            return now + CONGESTED_SECONDS
        if self._held:
            return now
        for one in _overdue(self._waiting, now - self._wait_seconds):
            self._read_header(one, READ, now)  # it may have come behind the others of this turn
            if self._waiting.get(one.sock.fileno()) is one:
                rule = f"no whole header within {self._wait_rule}"
                self._counters.proxy_late += 1
                self._end(one, (LATE, rule), now)
        for one in _overdue(self._own, now - PROBE_SECONDS):
            self._serve(one, one.header_bytes, None, now)
        return self._due_at()

    def detach(self) -> list[AnySocket]:
        """Return the sockets of all connections that wait; the caller owns them."""
        found = [one.sock for one in self._all()]
        for one in self._all():
            self._forget(one)
        return found

    def close(self, now: float) -> None:
        """Close all of them without a record: they have not been accepted."""
        for one in self._all():
            self._end(one, None, now)

    def _speaks_for_itself(
        self, one: PendingConnection, length: int, data: bytes, now: float, *, has_ended: bool
    ) -> None:
        """Wait for data behind the header: a health check sends none."""
        del self._waiting[one.sock.fileno()]
        one.since, one.header_bytes = now, length
        self._own[one.sock.fileno()] = one
        self._plan()
        if len(data) > length or has_ended:
            self._own_spoke(one, data, now, has_ended=has_ended)

    def _own_spoke(
        self, one: PendingConnection, data: bytes, now: float, *, has_ended: bool
    ) -> None:
        if len(data) > one.header_bytes:
            self._serve(one, one.header_bytes, None, now)
        elif has_ended:
            self._probe_ended(one, now)

    def _probe_ended(self, one: PendingConnection, now: float) -> None:
        """Close a connection that has ended without data."""
        self._counters.proxy_probes += 1
        self._end(one, None, now)

    def _serve(self, one: PendingConnection, length: int, client: Peer | None, now: float) -> None:
        """Take the header off the socket and serve the connection."""
        self._forget(one)
        with suppress(OSError):  # it was reset; the service sees that as well
            one.sock.recv(length)
        proxy = None if client is None else one.peer
        self._admit(one.sock, client or one.peer, proxy, now)

    def _end(self, one: PendingConnection, refusal: Refusal | None, now: float) -> None:
        self._forget(one)
        self._reject(one.sock, one.peer, refusal, now, None)

    def _forget(self, one: PendingConnection) -> None:
        descriptor = one.sock.fileno()
        self._waiting.pop(descriptor, None)
        self._own.pop(descriptor, None)
        self._held.pop(descriptor, None)
        self._loop.remove(descriptor)

    def _plan(self) -> None:
        self._loop.call_at(self._due_at(), self)

    def _all(self) -> list[PendingConnection]:
        return [*self._waiting.values(), *self._own.values()]


def _overdue(table: dict[int, PendingConnection], until: float) -> list[PendingConnection]:
    """Return connections at the head of a table that have waited since `until` or longer."""
    overdue = takewhile(lambda one: one.since <= until, table.values())
    return list(islice(overdue, TIMEOUTS_PER_TURN))
