"""What all UDP sockets of a listener share."""

from netsrvd.counters import Counters
from netsrvd.listeners.contracts import DatagramGate, DatagramService, Report
from netsrvd.listeners.flow import Answerer
from netsrvd.listeners.refusals import Refusals
from netsrvd.settings import ListenerSettings

FLOW_RECORDS = 1000
"""New flows of a second that have records of their own: forged senders must not fill the log."""


class Desk:
    """What all UDP sockets of a listener share. Owned by the listener's datagram thread."""

    __slots__ = (
        *("answerer", "counters", "flows_told", "flows_untold", "gate", "refusals", "report"),
        *("service", "settings", "told_until"),
    )

    def __init__(
        self,
        settings: ListenerSettings,
        service: DatagramService,
        gate: DatagramGate,
        refusals: Refusals,
        counters: Counters,
        report: Report,
    ) -> None:
        self.settings = settings
        self.service = service
        self.gate = gate
        self.refusals = refusals
        self.counters = counters
        self.report = report
        self.answerer: Answerer | None = None
        """Who answers in the service's place, if the listener has a handler."""
        self.flows_told = self.flows_untold = 0
        self.told_until = 0.0

    def may_tell(self, now: float) -> bool:
        """Return whether one more new flow may have records."""
        if now >= self.told_until:
            self.told_until, self.flows_told = now + 1.0, 0
        self.flows_told += 1
        told = self.flows_told <= FLOW_RECORDS
        self.flows_untold += not told
        return told
