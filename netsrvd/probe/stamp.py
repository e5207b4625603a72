"""Probes for STAMP (RFC 8762): their packets, and what replies say.

Numbers begin at 1, not at 0 as the RFC has them: a stateful reflector counts from 0, and so cannot
be taken for one that copies the number of the sender.
"""

from netsrvd.packets import stamp
from netsrvd.packets.stamp import PacketError
from netsrvd.probe.exchange import Answer

MOST_SENT = 65536
"""Probes whose timestamps are remembered, to recognise their replies by."""

READING_NS = 1000
"""The error of the timestamp that is stated: what reading the clock takes. Whether the clock is
synchronised is not known here, so bit S is not set.
"""


UNKNOWN = 0x3FFF
"""Scale and multiplier of the largest error, 17,000 years: the reflector does not know a time."""


class Stamp:
    """The probes of one stream. Without a key they are open, otherwise authenticated.

    With a DSCP the reflector is asked to reply with the same, and to tell the one that arrived
    (class of service, RFC 8972, 4.4). A packet that is shorter than `size_bytes` is padded.
    """

    first_sequence = 1
    has_sequence = True

    def __init__(self, size_bytes: int, key: bytes | None, ssid: int, dscp: int | None) -> None:
        self._size = size_bytes
        self._key = key
        self._ssid = ssid
        self._dscp = dscp
        self._error_estimate = stamp.make_error_estimate(READING_NS, is_synchronised=False)
        self._sent: dict[int, tuple[bytes, int, int]] = {}

    def request(self, sequence: int, now_ns: int) -> bytes:
        """Return the payload of a probe."""
        timestamp = stamp.ntp_timestamp(now_ns)
        payload = stamp.make_request(
            sequence,
            timestamp,
            self._error_estimate,
            ssid=self._ssid,
            tlvs=self._tlvs(sequence),
            key=self._key,
        )
        if len(self._sent) >= MOST_SENT:
            del self._sent[next(iter(self._sent))]
        self._sent[sequence] = timestamp, now_ns, len(payload)
        return payload

    def _tlvs(self, sequence: int) -> bytes:
        tlvs = b""
        if self._dscp is not None:
            value = (self._dscp << 10).to_bytes(2, "big") + bytes(2)
            tlvs = stamp.make_tlv(stamp.CLASS_OF_SERVICE, value)
            if self._key is not None:
                tlvs += stamp.make_hmac_tlv(self._key, sequence, tlvs)
        left = self._size - base_bytes(self._key) - len(tlvs)
        if left >= stamp.HEAD_BYTES:
            return tlvs + stamp.make_tlv(stamp.EXTRA_PADDING, bytes(left - stamp.HEAD_BYTES))
        return tlvs + bytes(max(0, left))

    def quoted(self, payload: bytes) -> int | None:
        """Return the sequence number of a probe that ICMP quotes; None if it cannot be told."""
        sequence = int.from_bytes(payload[:4], "big")
        timestamp, _, _ = self._sent.get(sequence, (b"", 0, 0))
        at = stamp.TIMESTAMP_AT if self._key is None else stamp.AUTHENTICATED_TIMESTAMP_AT
        return sequence if timestamp and payload.startswith(timestamp, at) else None

    def read(self, payload: bytes) -> Answer | None:
        """Return what a reply says; one without the timestamp of its probe is of none."""
        try:
            reply = stamp.read_reply(payload, self._key)
        except PacketError:
            return None
        timestamp, now_ns, length = self._sent.get(reply.sender_sequence, (b"", 0, 0))
        if reply.sender_timestamp != timestamp:
            return None
        estimate = reply.error_estimate
        answer = Answer(
            reply.sender_sequence,
            truncated=len(payload) < length,
            reflector_count=reply.sequence,
            ttl=reply.sender_ttl,
            dscp=self._dscp_there(reply),
        )
        if estimate & UNKNOWN == UNKNOWN:
            return answer
        return answer._replace(
            received_ns=stamp.time_of(reply.received, estimate, now_ns),
            sent_ns=stamp.time_of(reply.timestamp, estimate, now_ns),
            synchronised=bool(estimate & stamp.SYNCHRONISED),
            error_ns=round(stamp.error_ns(estimate)),
        )

    def _dscp_there(self, reply: stamp.Reply) -> int | None:
        """Return the DSCP with which the probe arrived, if the reflector tells it.

        With a key, TLVs without the right HMAC TLV are not believed (RFC 8972, 4.8).
        """
        if self._dscp is None:
            return None
        if self._key and not stamp.are_tlvs_authentic(reply.tlvs, reply.sequence, self._key):
            return None
        for each in stamp.read_tlvs(reply.tlvs):
            if each.type == stamp.CLASS_OF_SERVICE and not each.flags and len(each.value) > 1:
                return int.from_bytes(each.value[:2], "big") >> 4 & 63
        return None


def base_bytes(key: bytes | None) -> int:
    """Return the length of a packet without TLVs."""
    return stamp.OPEN_BYTES if key is None else stamp.AUTHENTICATED_BYTES
