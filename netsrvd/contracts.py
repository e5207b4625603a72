"""What `tcp.py`, `udp.py` and `handlers/` share: the way to the log, peers and refusals."""

from typing import Protocol

from netsrvd.events import Event

CONGESTED_SECONDS = 0.02
"""How often to look whether the log has room again, with `when_full = "wait"`."""


class Report(Protocol):
    """The way to the log. Each loop has its own, see `log/writer.py`."""

    def __call__(self, event: Event) -> None:
        """Hand an event over; never blocks, never raises."""

    @property
    def level(self) -> int:
        """Return the least important priority that is written; other events need not be made."""

    @property
    def may_wait(self) -> bool:
        """Whether `congested` can be True at all."""

    @property
    def congested(self) -> bool:
        """True while new connections and peers should wait, so that no record is lost."""


Peer = tuple[str, int]
"""An address and a port, as `addresses.host_and_port` gives them."""

Addresses = frozenset[str] | None
"""The local addresses that a socket serves (`addresses.is_among`); None for every one."""

Refusal = tuple[str, str]
"""Why a peer is refused: the reason, one word, and the rule that decided."""

NOT_CONFIGURED: Refusal = "configuration", "the files do not name the address that it asked for"
"""The refusal of what comes by a socket of systemd that the files contradict."""
