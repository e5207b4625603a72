"""Probes for echo (RFC 862): a token of the stream, a sequence number, and a pattern.

The token keeps datagrams of others, and of an earlier run with the same source port, apart.
"""

import struct

from netsrvd.probe.exchange import Answer

_HEADER = struct.Struct(">8sI")

TOKEN_BYTES = 8
LEAST_BYTES = _HEADER.size
"""The shortest probe."""

PATTERN = bytes(range(256))


class Echo:
    """The probes of one stream; `token` is 8 random bytes, `size_bytes` the length of each."""

    first_sequence = 0
    has_sequence = True

    def __init__(self, size_bytes: int, token: bytes) -> None:
        self._token = token
        self._rest = pattern(size_bytes - LEAST_BYTES)

    def request(self, sequence: int, _now_ns: int = 0) -> bytes:
        """Return the payload of a probe."""
        return _HEADER.pack(self._token, sequence) + self._rest

    def quoted(self, payload: bytes) -> int | None:
        """Return the sequence number of a probe that ICMP quotes; None if it cannot be told."""
        answer = self.read(payload)
        return answer and answer.sequence

    def read(self, payload: bytes) -> Answer | None:
        """Return what a reply says; one that lacks the token or the number is of none."""
        if len(payload) < LEAST_BYTES:
            return None
        token, sequence = _HEADER.unpack_from(payload)
        if token != self._token:
            return None
        rest = payload[LEAST_BYTES:]
        truncated = len(rest) < len(self._rest)
        damaged = rest != self._rest[: len(rest)]
        return Answer(sequence, truncated=truncated, damaged=damaged)


def pattern(count: int) -> bytes:
    """Return that many bytes, which count from 0 to 255 again and again."""
    whole, part = divmod(max(0, count), len(PATTERN))
    return PATTERN * whole + PATTERN[:part]
