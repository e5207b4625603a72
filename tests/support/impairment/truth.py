"""What the relay did to each packet, as its log says it."""

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.impairment.figures import Spread, spread_of


@dataclass(frozen=True)
class Packet:
    """An IP packet that came to the relay, and what became of it; times are CLOCK_REALTIME."""

    way: str
    """`there`, to the responder, or `back`."""
    fate: str
    """`sent`, or why it was not: `lost`, `mtu`, `ttl`."""
    path: int
    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    """Of ICMP echo the identifier and the sequence number are the ports."""
    length: int
    """Of the IP packet, in bytes, as it came; so are TTL and TOS."""
    ttl: int
    tos: int
    arrived_ns: int
    wanted_ns: tuple[int, ...]
    """The delay of each copy as it was planned."""
    sent_ns: tuple[int, ...]
    """The time at which each copy left; 0 if the relay was stopped before."""
    payload: bytes
    """Its first 64 bytes."""

    @property
    def delays_ns(self) -> list[int]:
        """The delay of each copy that left, as it was."""
        return [sent - self.arrived_ns for sent in self.sent_ns if sent]


@dataclass(frozen=True)
class RoundTrip:
    """A request and its answers, as a tap next to the prober sees them."""

    request: Packet
    answers: tuple[Packet, ...]

    @property
    def sent_ns(self) -> list[int]:
        """The times at which answers left for the prober, in order."""
        return sorted(sent for each in self.answers for sent in each.sent_ns if sent)

    @property
    def ns(self) -> int | None:
        """The time from the arrival of the request to the departure of the first answer."""
        return self.sent_ns[0] - self.request.arrived_ns if self.sent_ns else None

    @property
    def out_ns(self) -> int:
        """How long the relay kept the request."""
        return min(self.request.delays_ns)

    @property
    def back_ns(self) -> int:
        """How long the relay kept the first answer to come out of it."""
        return min(self.answers, key=lambda each: min(each.sent_ns)).delays_ns[0]

    @property
    def echo_sequence(self) -> int:
        """The sequence number of a probe for echo, which is behind a token of 8 bytes."""
        return int.from_bytes(self.request.payload[8:12], "big")

    @property
    def stamp_sequence(self) -> int:
        """The sequence number of a probe for STAMP (RFC 8762, 4.2.1)."""
        return int.from_bytes(self.request.payload[:4], "big")


@dataclass(frozen=True)
class Truth:
    """All packets of a run, in the order of their arrival in each direction."""

    packets: tuple[Packet, ...]

    def way(self, name: str) -> list[Packet]:
        """Return the packets of one direction."""
        return [each for each in self.packets if each.way == name]

    def round_trips(self, key: Callable[[Packet], Hashable | None]) -> list[RoundTrip]:
        """Return each request with its answers, which have an equal key; None is neither."""
        answers: dict[Hashable, list[Packet]] = {}
        for each in self.way("back"):
            answers.setdefault(key(each), []).append(each)
        requests: dict[Hashable, Packet] = {}
        for each in self.way("there"):
            requests.setdefault(key(each), each)
        return [
            RoundTrip(each, tuple(answers.get(found, ())))
            for found, each in requests.items()
            if found is not None
        ]

    def echoes(self) -> list[RoundTrip]:
        """Return the round trips of probes for echo: their beginning is the answer's."""
        return self.round_trips(echo_key)

    def stamps(self) -> list[RoundTrip]:
        """Return the round trips of probes for STAMP."""
        return self.round_trips(stamp_key)

    def errors_ns(self) -> Iterator[int]:
        """Yield by how much later than planned each copy left."""
        for packet in self.packets:
            for wanted, sent in zip(packet.wanted_ns, packet.sent_ns, strict=True):
                if sent:
                    yield sent - packet.arrived_ns - wanted

    def error(self) -> Spread:
        """Return the relay's own error, in nanoseconds."""
        return spread_of([*self.errors_ns()])


def read_log(path: Path) -> Truth:
    """Read the log of a relay that has ended."""
    packets = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        for key in ("wanted_ns", "sent_ns"):
            fields[key] = tuple(fields[key])
        fields["payload"] = bytes.fromhex(fields["payload"])
        packets.append(Packet(**fields))
    return Truth(tuple(packets))


def echo_key(packet: Packet) -> Hashable | None:
    """Return what a probe for echo and its answer have in common, and no other probe."""
    near_port = packet.source_port if packet.way == "there" else packet.destination_port
    is_probe = packet.protocol in {6, 17} and len(packet.payload) >= 12
    return (packet.payload[:12], near_port) if is_probe else None


def stamp_key(packet: Packet) -> Hashable | None:
    """Return the number and time of a STAMP sender, which a reflector copies (RFC 8762, 4.3.1)."""
    if packet.protocol != 17 or len(packet.payload) < 44:
        return None
    at = 0 if packet.way == "there" else 24
    return packet.payload[at : at + 12]
