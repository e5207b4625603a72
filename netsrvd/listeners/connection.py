"""One TCP connection from accept to close: what is known of it, and its two records."""

import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import time, time_ns

from netsrvd.addresses import proxy_fields
from netsrvd.counters import Counters
from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.listeners.contracts import StreamFactory, StreamService
from netsrvd.settings import ListenerSettings
from netsrvd.tracebacks import described, traceback_of

LINGER_SECONDS = 2.0
"""How long to wait for the client's end after ours. A connection that is closed before all that
came was read is reset, and a reset takes from the client what it has not read yet (RFC 1122,
4.2.2.13).
"""


RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""struct linger { int l_onoff; int l_linger; }: what is not sent yet is given up (socket(7))."""

FAULTS = frozenset({"error", "network", "access", "lost"})
"""Reasons of an end that have a record in any case: something failed, or the client is refused."""

SHORTEST_SWEEP_SECONDS = 0.01


class Silent:
    """A service of our own, besides those of the listeners. It is not handed over."""

    __slots__ = ()
    finished = heedless = False

    def greeting(self) -> bytes:
        """Return nothing."""
        return b""

    def respond(self, data: bytes) -> bytes:  # noqa: ARG002 - for one who answers
        """Return nothing."""
        return b""

    def more(self) -> bytes:
        """Return nothing."""
        return b""

    def memory(self) -> None:
        """Return nothing."""

    def recall(self, memory: object) -> None:
        """Do nothing."""


class Parting(Silent):
    """The service of a connection that has said all: it listens for the client's end."""

    __slots__ = ()
    heedless = True


PARTING = Parting()


class Connection:
    """Made by an acceptor, then owned by the worker that takes it, which closes the socket."""

    __slots__ = (
        "_make_service",
        "_taken",
        "active_at",
        "backlog",
        "bytes_received",
        "bytes_sent",
        "client_done",
        "departed",
        "identity",
        "is_logged",
        "local",
        "opened_at",
        "parts_at",
        "peer",
        "proxy",
        "service",
        "service_name",
        "settings",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        identity: str,
        peer: tuple[str, int],
        local: tuple[str, int],
        settings: ListenerSettings,
        make_service: StreamFactory,
        departed: Callable[[], None],
        now: float,
        proxy: tuple[str, int] | None = None,
    ) -> None:
        self.sock = sock
        self.identity = identity
        self.peer = peer
        self.local = local
        self.is_logged = True
        """False if it has no record of its beginning, and of its end only at a fault."""
        self.proxy = proxy
        """Who connected for the peer, if that was another one."""
        self.settings = settings
        self.service_name = settings.service
        """Of the service that it has, whatever its listener serves by now."""
        self._make_service: StreamFactory | None = make_service
        self.departed = departed
        self.opened_at = self.active_at = now
        self.bytes_received = self.bytes_sent = 0
        self._taken = -1
        """Of the bytes that were sent, those that the client had when it was last looked at."""
        self.backlog: memoryview | None = None
        """What the peer has not taken yet. While it stands, nothing more is read."""
        self.client_done = False
        """The client has shut down its side: what is left to send is sent, then we close."""
        self.parts_at = 0.0
        """All is said and sent; what the client still sends is thrown away until then."""

    @property
    def listener(self) -> str:
        """The name of its listener."""
        return self.settings.name

    @property
    def is_movable(self) -> bool:
        """Whether another process could go on with it: not if it is about to end, or a visitor."""
        return bool(self.identity) and not self.parts_at

    def begin(self) -> bytes:
        """Make the service and return its greeting; may raise whatever the service raises."""
        if self._make_service is None:  # it has begun in another process, and goes on
            return b""
        return self._made(self._make_service).greeting()

    def resume(
        self,
        memory: object,
        opened_at: float,
        active_at: float,
        counts: tuple[int, int],
        backlog: bytes,
        *,
        client_done: bool,
    ) -> None:
        """Be a connection that began in another process; may raise whatever the service raises."""
        self.opened_at, self.active_at = opened_at, active_at
        self.bytes_received, self.bytes_sent = counts
        self.backlog = memoryview(backlog) if backlog else None
        self.client_done = client_done
        assert self._make_service is not None
        self._made(self._make_service).recall(memory)

    def _made(self, make_service: StreamFactory) -> StreamService:
        self.service: StreamService = make_service(self, time())
        self._make_service = None
        return self.service

    def part(self, now: float) -> None:
        """Let the client have all that was said, to the last byte, before the connection closes."""
        self.sock.shutdown(socket.SHUT_WR)
        self.parts_at = now + LINGER_SECONDS
        self.service = PARTING

    def accepted(self) -> Accepted:
        """Return the record of its beginning."""
        return Accepted(
            self.identity,
            self.settings.name,
            self.service_name,
            *self.peer,
            *self.local,
            *proxy_fields(self.proxy),
        )

    def closed(self, reason: str, now: float, error: str) -> Closed:
        """Return the record of its end."""
        return Closed(
            self.identity,
            self.settings.name,
            self.service_name,
            *self.peer,
            *self.local,
            reason,
            now - self.opened_at,
            self.bytes_received,
            self.bytes_sent,
            error,
            *proxy_fields(self.proxy),
        )

    def has_end_record(self, reason: str) -> bool:
        """Return whether the end of the connection for this reason has a record."""
        return self.is_logged or reason in FAULTS

    def service_failed(self, error: BaseException) -> ServiceFailed:
        """Return the record of a bug in its service."""
        names = self.settings.name, self.service_name
        what = described(error), traceback_of(error)
        return ServiceFailed(*names, *self.peer, *what, self.identity, *proxy_fields(self.proxy))

    def count_into(self, counters: Counters) -> None:
        """Count its end, and the bytes of all its life."""
        counters.closed += 1
        counters.bytes_received += self.bytes_received
        counters.bytes_sent += self.bytes_sent

    def close(self, reason: str) -> None:
        """Close its socket; by a reset if the client does not take what was sent."""
        with suppress(OSError):  # EBADF: a handler has closed the descriptor by its number
            if reason == "write" or (reason == "age" and self.backlog is not None):
                # The kernel would go on offering it to the client (tcp(7)).
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            self.sock.close()

    def overdue(self, now: float) -> str:
        """Return the reason to end it now: a time-out, or its age; else nothing."""
        if self.parts_at:
            return "finished" if now >= self.parts_at else ""
        longest = self.settings.max_connection_seconds
        if longest and now - self.opened_at >= longest:
            return "age"
        if self.backlog is None:
            limit, reason = self.settings.idle_seconds, "idle"
        else:
            limit, reason = self.settings.write_seconds, "write"
            self._look_at_client(now)
        return reason if limit and now - self.active_at >= limit else ""

    def _look_at_client(self, now: float) -> None:
        """Take note whether the client has taken anything since the last look.

        The kernel has room for more only when a third of its buffer is free, and that may be
        megabytes: a client can read all the time without us being able to send.
        """
        from netsrvd.linux.outgoing import unacknowledged_bytes  # noqa: PLC0415 - few are so slow

        try:
            unacknowledged = unacknowledged_bytes(self.sock)
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            return  # MPTCP did not tell before Linux 5.17
        before, self._taken = self._taken, self.bytes_sent - unacknowledged
        if 0 <= before < self._taken:
            self.active_at = now


Take = Callable[[Connection], None]
"""Takes a connection over from an acceptor, in any thread."""


def identities() -> Callable[[], str]:
    """Return what draws the ids of connections: unique on this host, also across restarts."""
    prefix, numbers = f"{time_ns() // 1_000_000:x}", count(1)
    return lambda: f"{prefix}-{next(numbers)}"


def sweep_seconds(settings: ListenerSettings, so_far: float, longest: float) -> float:
    """Return how often to look for overdue connections: for the shortest time-out there is.

    `so_far` is what those before need, `longest` the time-out of a connection without any.
    """
    limits = settings.idle_seconds, settings.write_seconds, settings.max_connection_seconds
    shortest = min(filter(None, limits), default=longest)
    return max(SHORTEST_SWEEP_SECONDS, min(so_far, shortest / 4))
