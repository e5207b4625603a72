"""What a protocol of datagrams gives the prober: requests, and the meaning of replies.

It has no sockets and reads no clock.
"""

from typing import NamedTuple, Protocol


class Answer(NamedTuple):
    """What a reply says. Times are in nanoseconds of the reflector's clock."""

    sequence: int | None
    """The sequence number of the probe; None where replies have none."""
    truncated: bool = False
    damaged: bool = False
    received_ns: int | None = None
    """When the reflector received the probe."""
    sent_ns: int | None = None
    """When the reflector sent the reply."""
    reflector_count: int | None = None
    """The reflector's own sequence number, or its count of replies."""
    ttl: int | None = None
    """The TTL with which the probe arrived there."""
    dscp: int | None = None
    """The DSCP with which the probe arrived there."""
    synchronised: bool | None = None
    error_ns: int | None = None
    """The error of its clock that the reflector states."""
    clock: tuple[int, int] | None = None
    """The earliest and the latest time that the reply may mean."""


class Exchange(Protocol):
    """One protocol, for one stream."""

    first_sequence: int
    """The sequence number of the first probe."""

    has_sequence: bool
    """Whether replies tell which probe they answer. If not, each probe has a socket of its own."""

    def request(self, sequence: int, now_ns: int) -> bytes:
        """Return the payload of a probe that is sent at this time of CLOCK_REALTIME.

        `sequence`, as all numbers here, is one of 32 bits (`Trip.number`).
        """

    def quoted(self, payload: bytes) -> int | None:
        """Return the sequence number of a probe that ICMP quotes; None if it cannot be told."""

    def read(self, payload: bytes) -> Answer | None:
        """Return what a reply says; None for what is no reply to this stream."""
