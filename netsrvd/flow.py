"""A flow: the datagrams of one peer to one local address, their counts and their records."""

from netsrvd.access.sources import Source
from netsrvd.addresses import proxy_fields
from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.settings import ListenerSettings
from netsrvd.tracebacks import described, traceback_of


class Flow:
    """Owned by the udp event loop. Counts the datagrams and those without an answer."""

    __slots__ = (
        "active_at",
        "bytes_received",
        "bytes_unanswered",
        "error",
        "has_began_record",
        "is_link_local",
        "is_logged",
        "local",
        "needs_source",
        "opened_at",
        "peer",
        "proxy",
        "received",
        "refused",
        "reply_control",
        "settings",
        "source",
        "source_unknown",
        "truncated",
        "unanswered",
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
        """The proxy that sent for the peer and gets the answers, if there is one."""
        self.source = source
        """What its limits are counted by."""
        self.opened_at = self.active_at = now
        self.received = self.refused = self.truncated = self.unsent = self.unanswered = 0
        self.bytes_received = self.bytes_unanswered = 0
        """By how much fewer bytes were sent than came: below 0 if the answers are longer."""
        self.error = ""
        """The last error of sending to this peer."""
        self.is_link_local = local[0].startswith(("fe80:", "169.254."))
        """The interface does not follow from a link-local address, so answers leave by that of
        the datagram."""
        self.source_unknown = source_unknown
        """The kernel did not keep the address on which it came in: see `Batch.local`."""
        self.needs_source = self.is_link_local or source_unknown
        """Its answers need more than the routing table to find their way."""
        self.reply_control = b""
        """The control messages of its answers, if its service is timed and has answered."""
        self.is_logged = True
        """False if it has no record of its beginning, and of its end only after an error."""
        self.has_began_record = True
        """It has a record of its beginning, and will have one of its end."""

    @property
    def listener(self) -> str:
        """The name of its listener."""
        return self.settings.name

    @property
    def bytes_sent(self) -> int:
        """How many bytes its answers had."""
        return self.bytes_received - self.bytes_unanswered

    @property
    def has_end_record(self) -> bool:
        """Whether its end has a record."""
        return self.has_began_record or (bool(self.error) and not self.is_logged)

    def began(self) -> FlowBegan:
        """Return the record of its first datagram."""
        return FlowBegan(
            self.settings.name,
            self.settings.service,
            *self.peer,
            *self.local,
            *proxy_fields(self.proxy),
        )

    def service_failed(self, error: BaseException) -> ServiceFailed:
        """Return the record of an exception in its service."""
        return ServiceFailed(
            self.settings.name,
            self.settings.service,
            *self.peer,
            described(error),
            traceback_of(error),
            "",
            *proxy_fields(self.proxy),
        )

    def ended(self, reason: str) -> FlowEnded:
        """Return the record that sums it up."""
        missing = self.refused + self.truncated + self.unsent + self.unanswered
        return FlowEnded(
            self.settings.name,
            self.settings.service,
            *self.peer,
            *self.local,
            reason,
            self.active_at - self.opened_at,
            self.received,
            self.received - missing,
            self.refused,
            self.truncated,
            self.unsent,
            self.bytes_received,
            self.bytes_sent,
            self.error,
            *proxy_fields(self.proxy),
        )
