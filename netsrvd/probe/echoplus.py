"""Probes for UDPEchoPlus (TR-143): their packets, and what replies say."""

from netsrvd.packets import udpechoplus
from netsrvd.packets.udpechoplus import HEAD_BYTES
from netsrvd.probe.echo import pattern
from netsrvd.probe.exchange import Answer

LEAST_BYTES = HEAD_BYTES

_WORD = 1 << 32
MICROSECOND_NS = 1000


class EchoPlus:
    """The probes of one stream. `token`, 32 random bits, is their iteration number.

    The reflector's clock begins anywhere: its times are good for what lies between them. They are
    returned without the wrap of their 32 bits of microseconds.
    """

    first_sequence = 0
    has_sequence = True

    def __init__(self, size_bytes: int, token: int) -> None:
        self._token = token % _WORD
        self._rest = pattern(size_bytes - HEAD_BYTES)
        self._last_us = 0

    def request(self, sequence: int, _now_ns: int = 0) -> bytes:
        """Return the payload of a probe."""
        return udpechoplus.make_request(sequence, self._token, self._rest)

    def quoted(self, payload: bytes) -> int | None:
        """Return the sequence number of a probe that ICMP quotes; None if it cannot be told."""
        packet = udpechoplus.read(payload)
        known = packet is not None and packet.iteration == self._token
        return packet.generator_sequence if packet and known else None

    def read(self, payload: bytes) -> Answer | None:
        """Return what a reply says. A plain echo is one, too: it has no times."""
        packet = udpechoplus.read(payload)
        if packet is None or packet.iteration != self._token:
            return None
        rest = payload[HEAD_BYTES:]
        answer = Answer(
            packet.generator_sequence,
            truncated=len(rest) < len(self._rest),
            damaged=rest != self._rest[: len(rest)],
        )
        if not any((packet.response_sequence, packet.received_us, packet.replied_us)):
            return answer
        # Of the times that 32 bits may mean, the one nearest to that of the reply before.
        half = _WORD // 2
        self._last_us += (packet.received_us - self._last_us + half) % _WORD - half
        inside_us = (packet.replied_us - packet.received_us) % _WORD
        return answer._replace(
            received_ns=self._last_us * MICROSECOND_NS,
            sent_ns=(self._last_us + inside_us) * MICROSECOND_NS,
            reflector_count=packet.response_sequence,
        )
