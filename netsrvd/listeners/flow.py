"""The datagrams of one peer to one of our addresses: what is known of them, and their records."""

import socket
from typing import Protocol

from netsrvd.addresses import proxy_fields
from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.listeners.contracts import Handler, Source
from netsrvd.settings import ListenerSettings
from netsrvd.tracebacks import described, traceback_of


class Flow:
    """Owned by one datagram thread. Counts what came and what was not answered."""

    __slots__ = (
        "active_at",
        "bytes_received",
        "bytes_unanswered",
        "error",
        "is_logged",
        "local",
        "opened_at",
        "peer",
        "pinned",
        "proxy",
        "received",
        "refused",
        "settings",
        "silent",
        "source",
        "source_unknown",
        "special",
        "told",
        "truncated",
        "unsent",
    )

    def __init__(
        self,
        settings: ListenerSettings,
        peer: tuple[str, int],
        local: tuple[str, int],
        source: Source,
        now: float,
        *,
        source_unknown: bool,
        proxy: tuple[str, int] | None = None,
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.local = local
        self.proxy = proxy
        """Who sent for the peer, and gets the answers, if that was another one."""
        self.source = source
        self.opened_at = self.active_at = now
        self.received = self.refused = self.truncated = self.unsent = self.silent = 0
        self.bytes_received = self.bytes_unanswered = 0
        """By how much fewer bytes were sent than came: below 0 where the answers are longer."""
        self.error = ""
        """The last error of sending to this peer."""
        self.pinned = local[0].startswith(("fe80:", "169.254."))
        """A link-local address does not tell its interface, so answers leave where it was asked."""
        self.source_unknown = source_unknown
        """The kernel did not keep on which address it came in: see `Batch.local`."""
        self.special = self.pinned or source_unknown
        """Its answers need more than the routing table to find their way."""
        self.is_logged = True
        """False if it has no record of its beginning, and of its end only after an error."""
        self.told = True
        """It has a record of its beginning, and will have one of its end."""

    @property
    def listener(self) -> str:
        """The name of its listener."""
        return self.settings.name

    @property
    def has_end_record(self) -> bool:
        """Whether its end has a record."""
        return self.told or (bool(self.error) and not self.is_logged)

    def began(self) -> FlowBegan:
        """Return the record of its first datagram."""
        names = self.settings.name, self.settings.service
        return FlowBegan(*names, *self.peer, *self.local, *proxy_fields(self.proxy))

    def service_failed(self, error: BaseException) -> ServiceFailed:
        """Return the record of a bug in its service."""
        names = self.settings.name, self.settings.service
        what = described(error), traceback_of(error)
        return ServiceFailed(*names, *self.peer, *what, "", *proxy_fields(self.proxy))

    def ended(self, reason: str) -> FlowEnded:
        """Return the record that sums it up."""
        return FlowEnded(
            self.settings.name,
            self.settings.service,
            *self.peer,
            *self.local,
            reason,
            self.active_at - self.opened_at,
            self.received,
            self.received - self.refused - self.truncated - self.unsent - self.silent,
            self.refused,
            self.truncated,
            self.unsent,
            self.bytes_received,
            self.bytes_received - self.bytes_unanswered,
            self.error,
            *proxy_fields(self.proxy),
        )


class Answerer(Protocol):
    """Who answers datagrams later, by a handler: `listeners/handlers/answerer.py`."""

    @property
    def handler(self) -> Handler:
        """What makes the answers."""

    @property
    def is_busy(self) -> bool:
        """Whether an answer may still come."""

    @property
    def is_full(self) -> bool:
        """Whether no more datagrams may wait."""

    @property
    def rule(self) -> str:
        """Why one more is refused then."""

    def ask(self, payload: bytes, flow: Flow, envelope: bytes, sock: socket.socket) -> None:
        """Have a datagram answered."""

    def look(self, now: float) -> None:
        """Tell what takes long."""

    def resize(self, threads: int) -> None:
        """Have so many threads."""

    def dismiss(self) -> None:
        """Begin no more answers."""
