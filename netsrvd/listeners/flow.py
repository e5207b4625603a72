"""The datagrams of one peer to one of our addresses: what is known of them, and their records."""

from netsrvd.events.flows import FlowBegan, FlowEnded, FlowRefused
from netsrvd.settings import ListenerSettings


class Flow:
    """Owned by one datagram thread. Counts what came and what was not answered."""

    __slots__ = (
        "active_at",
        "bytes_received",
        "bytes_unanswered",
        "error",
        "local",
        "opened_at",
        "peer",
        "pinned",
        "received",
        "refusal",
        "refused",
        "settings",
        "source_unknown",
        "special",
        "truncated",
        "unsent",
    )

    def __init__(
        self,
        settings: ListenerSettings,
        peer: tuple[str, int],
        local: tuple[str, int],
        refusal: tuple[str, str] | None,
        now: float,
        *,
        source_unknown: bool,
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.local = local
        self.refusal = refusal
        self.opened_at = self.active_at = now
        self.received = self.refused = self.truncated = self.unsent = 0
        self.bytes_received = self.bytes_unanswered = 0
        self.error = ""
        """The last error of sending to this peer."""
        self.pinned = local[0].startswith(("fe80:", "169.254."))
        """A link-local address does not tell its interface, so answers leave where it was asked."""
        self.source_unknown = source_unknown
        """The kernel did not keep on which address it came in: see `Batch.local`."""
        self.special = self.pinned or source_unknown
        """Its answers need more than the routing table to find their way."""

    def began(self) -> FlowBegan | FlowRefused:
        """Return the record of its first datagram."""
        name, service = self.settings.name, self.settings.service
        if self.refusal:
            return FlowRefused(name, service, *self.peer, *self.local, *self.refusal)
        return FlowBegan(name, service, *self.peer, *self.local)

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
            self.received - self.refused - self.truncated - self.unsent,
            self.refused,
            self.truncated,
            self.unsent,
            self.bytes_received,
            self.bytes_received - self.bytes_unanswered,
            self.error,
        )
