"""What is recorded of probes: `Trip` for one, `Stream` for those with the same addresses and ports.

Times of the kernel are of CLOCK_REALTIME, as its stamps are; those of the program of both clocks.
All are in nanoseconds.
"""

from enum import StrEnum

from netsrvd.probe.targets import Target

NUMBERS = 1 << 32
"""Packets have 32 bits for the sequence number of a probe: after the last one comes 0 again."""

STEP_NS = 20_000_000
"""A difference between the two clocks that is taken as a step of CLOCK_REALTIME; preemption between
two readings makes smaller ones.
"""


class State(StrEnum):
    """What became of a probe."""

    PENDING = "pending"
    RECEIVED = "received"
    LOST = "lost"
    """No answer came within the time-out."""
    FAILED = "failed"
    """It was not sent, or a host reported by ICMP or TCP that it does not arrive."""


class Stamps(StrEnum):
    """Which clock readings a round-trip time is the difference of."""

    KERNEL = "kernel"
    PROGRAM = "program"


class Trip:
    """One probe, and its answer."""

    __slots__ = (
        "arrival",
        "connect_ns",
        "damaged",
        "dscp",
        "duplicates",
        "error",
        "kernel_received_ns",
        "kernel_sent_ns",
        "length",
        "other_address",
        "received_at_ns",
        "received_ns",
        "reflector_count",
        "reflector_dscp",
        "reflector_error_ns",
        "reflector_received_ns",
        "reflector_sent_ns",
        "reflector_synchronised",
        "reflector_ttl",
        "remote_clock",
        "sent_at_ns",
        "sent_ns",
        "sequence",
        "state",
        "truncated",
        "ttl",
    )

    def __init__(self, sequence: int, sent_ns: int, sent_at_ns: int) -> None:
        self.sequence = sequence
        self.sent_ns = sent_ns
        """Of CLOCK_MONOTONIC, before the system call."""
        self.sent_at_ns = sent_at_ns
        """Of CLOCK_REALTIME, before the system call."""
        self.kernel_sent_ns = 0
        """When the kernel gave it to the network device; 0 if unknown."""
        self.received_ns = 0
        self.received_at_ns = 0
        self.kernel_received_ns = 0
        """When the kernel took the answer from the network device; 0 if unknown."""
        self.state = State.PENDING
        self.arrival = -1
        """The place of its answer in the order of arrivals, from 0."""
        self.duplicates = 0
        """Further answers."""
        self.length = 0
        """Bytes of the answer."""
        self.ttl: int | None = None
        """TTL or hop limit of the answer."""
        self.dscp: int | None = None
        self.truncated = False
        """Whether the answer is shorter than the probe, where it should not be."""
        self.damaged = False
        """Whether the answer has other bytes than the probe, where it should not."""
        self.other_address = ""
        """Where the answer came from, unless that is the target."""
        self.error = ""
        self.connect_ns = 0
        """How long connect(2) took, for the first probe of a connection."""
        self.reflector_received_ns: int | None = None
        """When the reflector received it, of its own clock."""
        self.reflector_sent_ns: int | None = None
        self.reflector_count: int | None = None
        """The reflector's own sequence number, or count of answers."""
        self.reflector_dscp: int | None = None
        """DSCP with which the probe arrived."""
        self.reflector_ttl: int | None = None
        """TTL or hop limit with which the probe arrived."""
        self.reflector_synchronised: bool | None = None
        """Whether the reflector says that its clock is synchronised."""
        self.reflector_error_ns: int | None = None
        """The error of its clock that the reflector states."""
        self.remote_clock: tuple[int, int] | None = None
        """The earliest and latest time that the answer may mean (`time`, `daytime`)."""

    @property
    def number(self) -> int:
        """The sequence number as packets have it."""
        return self.sequence % NUMBERS

    @property
    def stamps(self) -> Stamps:
        """Which stamps its times are from."""
        return Stamps.KERNEL if self._kernel_is_plausible() else Stamps.PROGRAM

    def _kernel_is_plausible(self) -> bool:
        """Return whether the kernel's stamps can be used.

        They lie between the program's. They do not where CLOCK_REALTIME was stepped meanwhile.
        """
        if not (self.kernel_sent_ns and self.kernel_received_ns):
            return False
        between = self.kernel_received_ns - self.kernel_sent_ns
        elapsed = self.received_ns - self.sent_ns
        step = self.received_at_ns - self.sent_at_ns - elapsed
        return 0 <= between <= elapsed + STEP_NS and abs(step) < STEP_NS

    @property
    def times(self) -> tuple[int, int]:
        """When it was sent and when the answer came, of CLOCK_REALTIME."""
        if self._kernel_is_plausible():
            return self.kernel_sent_ns, self.kernel_received_ns
        return self.sent_at_ns, self.sent_at_ns + self.received_ns - self.sent_ns

    @property
    def elapsed_ns(self) -> int:
        """From sending to receiving, with the time in the reflector."""
        sent, received = self.times
        return received - sent

    @property
    def reflector_ns(self) -> int | None:
        """How long the reflector kept it, if it says so."""
        if self.reflector_received_ns is None or self.reflector_sent_ns is None:
            return None
        return self.reflector_sent_ns - self.reflector_received_ns

    @property
    def round_trip_ns(self) -> int:
        """The round-trip time, without the time in the reflector if that is known (RFC 8762, 4)."""
        return self.elapsed_ns - (self.reflector_ns or 0)

    @property
    def out_ns(self) -> int | None:
        """The delay to the reflector, as the two clocks have it."""
        came = self.reflector_received_ns
        return None if came is None else came - self.times[0]

    @property
    def back_ns(self) -> int | None:
        """The delay from the reflector, as the two clocks have it."""
        left = self.reflector_sent_ns
        return None if left is None else self.times[1] - left


class Stream:
    """Probes from one source port to one target, in the order of sending.

    It has no sockets and reads no clock. At most `most_kept` trips are kept; counts are of all.
    """

    def __init__(self, target: Target, most_kept: int, first_sequence: int = 0) -> None:
        self.target = target
        self.source_port = 0
        self.first_sequence = first_sequence
        self.trips: list[Trip] = []
        self.sent = 0
        self.received = 0
        self.lost = 0
        self.failed = 0
        self.duplicates = 0
        self.answered_again = 0
        """Those of the duplicates that the reflector has counted: it got a probe again."""
        self.late = 0
        """Answers that came after the time-out."""
        self.unsolicited = 0
        """Datagrams that answer none of the probes."""
        self.dropped = 0
        """Answers that the full receive buffer of the socket has cost."""
        self.half_close = ""
        """TCP: what came after the end of sending; empty if that was not tried."""
        self._most_kept = most_kept
        self._next = first_sequence

    @property
    def pending(self) -> int:
        """Probes that have neither an answer nor an end yet."""
        return self.sent - self.received - self.lost - self.failed

    @property
    def forgotten(self) -> int:
        """Probes that are no longer kept."""
        return self.sent - len(self.trips)

    def begin(self, sent_ns: int, sent_at_ns: int) -> Trip:
        """Record a probe that is being sent."""
        trip = Trip(self._next, sent_ns, sent_at_ns)
        self._next += 1
        self.sent += 1
        self.trips.append(trip)
        if len(self.trips) >= 2 * self._most_kept:
            del self.trips[: self._most_kept]
        return trip

    def find(self, number: int) -> Trip | None:
        """Return the probe whose `Trip.number` this is, if it was sent and is kept."""
        index = (number - self._next + len(self.trips)) % NUMBERS
        return self.trips[index] if index < len(self.trips) else None

    def receive(self, trip: Trip) -> bool:
        """Record an answer; return whether it is the first one and in time."""
        if trip.state is State.RECEIVED:
            trip.duplicates += 1
            self.duplicates += 1
            return False
        if trip.state is not State.PENDING:
            self.late += 1
            return False
        trip.state = State.RECEIVED
        trip.arrival = self.received
        self.received += 1
        return True

    def lose(self, trip: Trip) -> None:
        """Record that a probe had no answer in time."""
        trip.state = State.LOST
        self.lost += 1

    def fail(self, trip: Trip, error: str) -> None:
        """Record why a probe does not arrive."""
        trip.state, trip.error = State.FAILED, error
        self.failed += 1
