"""One TCP connection from accept to close: what is known of it, and its two records."""

import socket
from collections.abc import Callable

from netsrvd.events.connections import Accepted, Closed
from netsrvd.listeners.contracts import StreamFactory, StreamService
from netsrvd.settings import ListenerSettings


class Connection:
    """Made by an acceptor, then owned by the worker that takes it, which closes the socket."""

    __slots__ = (
        "_make_service",
        "active_at",
        "backlog",
        "bytes_received",
        "bytes_sent",
        "client_done",
        "departed",
        "identity",
        "local",
        "opened_at",
        "peer",
        "service",
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
    ) -> None:
        self.sock = sock
        self.identity = identity
        self.peer = peer
        self.local = local
        self.settings = settings
        self._make_service = make_service
        self.departed = departed
        self.opened_at = self.active_at = now
        self.bytes_received = self.bytes_sent = 0
        self.backlog: memoryview | None = None
        """What the peer has not taken yet. While it stands, nothing more is read."""
        self.client_done = False
        """The client has shut down its side: what is left to send is sent, then we close."""

    def begin(self) -> bytes:
        """Make the service and return its greeting; may raise whatever the service raises."""
        self.service: StreamService = self._make_service()
        return self.service.greeting()

    def accepted(self) -> Accepted:
        """Return the record of its beginning."""
        return Accepted(
            self.identity, self.settings.name, self.settings.service, *self.peer, *self.local
        )

    def closed(self, reason: str, now: float, error: str) -> Closed:
        """Return the record of its end."""
        return Closed(
            self.identity,
            self.settings.name,
            self.settings.service,
            *self.peer,
            *self.local,
            reason,
            now - self.opened_at,
            self.bytes_received,
            self.bytes_sent,
            error,
        )

    def overdue(self, now: float) -> str:
        """Return the reason to end it now, for being silent or taking nothing; else nothing."""
        if self.backlog is None:
            limit, reason = self.settings.idle_seconds, "idle"
        else:
            limit, reason = self.settings.write_seconds, "write"
        return reason if limit and now - self.active_at >= limit else ""
