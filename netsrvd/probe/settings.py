"""What a run of `netsrvd probe` is asked to do."""

from enum import StrEnum
from typing import NamedTuple


class Protocol(StrEnum):
    """A protocol of probes; the value is its option without the dashes."""

    UDP = "udp"
    TCP = "tcp"
    STAMP = "stamp"
    ECHOPLUS = "echoplus"
    TIME = "time"
    DAYTIME = "daytime"


DEFAULT_PORTS = {
    Protocol.UDP: 51423,
    Protocol.TCP: 51423,
    Protocol.STAMP: 862,
    Protocol.ECHOPLUS: 51423,
    Protocol.TIME: 37,
    Protocol.DAYTIME: 13,
}
"""The port of a target that names none."""

KEPT_TRIPS = 1_000_000
"""Probes of a run whose details are kept, of all streams together, about 300 bytes each. A longer
run forgets the oldest ones; counts go on.
"""


class Settings(NamedTuple):
    """The settings of a run. Times are in seconds, sizes in bytes."""

    protocol: Protocol = Protocol.UDP
    probe_count: int = 10
    """Probes a stream; 0 for no end."""
    duration_seconds: float = 0.0
    """How long probes are sent; 0 for no end."""
    interval_seconds: float = 1.0
    """Between two probes of a stream; the mean of it with `poisson`."""
    poisson: bool = False
    """Whether intervals are distributed exponentially (RFC 2330, 11.1)."""
    size_bytes: int = 64
    """Length of the payload of a datagram, or of the bytes of one exchange by TCP."""
    timeout_seconds: float = 1.0
    """A probe without an answer after this time is lost."""
    source: str = ""
    interface: str = ""
    source_port: int = 0
    """The first source port; 0 for those that the kernel chooses."""
    streams: int = 1
    """Source ports a target."""
    dscp: int | None = None
    ttl: int | None = None
    dont_fragment: bool = False
    kernel_stamps: bool = True
    key: bytes | None = None
    """The key of authenticated STAMP; None for open mode."""
    session_id: int = 0
    """The session identifier of STAMP (RFC 8972); 0 for none."""

    @property
    def has_times(self) -> bool:
        """Whether reflectors tell times of a clock that can be compared with the own one."""
        return self.protocol is Protocol.STAMP
