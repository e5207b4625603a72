"""Packets of UDPEchoPlus (TR-143 Amendment 1, appendix A.1.4): made and read, by both ends.

Six words of 32 bits, big-endian, stand at the beginning of an echoed datagram. Times are in
microseconds, of a clock that begins anywhere and wraps. The functions know no socket and no clock.
"""

from struct import Struct
from typing import NamedTuple

HEAD_BYTES = 24

_head = Struct("!6I")
_request = Struct("!I16xI")
_answer = Struct("!4I")
_WORD = 0xFFFFFFFF


class Packet(NamedTuple):
    """What stands at the beginning of a request or a reply; a request has zeros in the middle."""

    generator_sequence: int
    """TestGenSN: of the client, which counts its requests."""
    response_sequence: int
    """TestRespSN: of the server, which counts the requests that it has answered."""
    received_us: int
    """TestRespRecvTimeStamp: when the server got the request."""
    replied_us: int
    """TestRespReplyTimeStamp: when it answered."""
    failures: int
    """TestRespReplyFailureCount: how many requests it could not answer."""
    iteration: int
    """TestIterationNumber: of the client."""


def make_request(generator_sequence: int, iteration: int, data: bytes = b"") -> bytes:
    """Return a client's datagram: its two numbers, and data that are echoed."""
    return _request.pack(generator_sequence & _WORD, iteration & _WORD) + data


def read(data: bytes) -> Packet | None:
    """Return what a datagram begins with; None if it is too short, and so a plain echo."""
    return Packet._make(_head.unpack_from(data)) if len(data) >= HEAD_BYTES else None


def make_reply(
    request: bytes, response_sequence: int, received_us: int, replied_us: int, failures: int
) -> bytes:
    """Return the answer to a datagram of at least `HEAD_BYTES`: the same with the server's words.

    Numbers and times wrap at 32 bits.
    """
    words = _answer.pack(
        response_sequence & _WORD, received_us & _WORD, replied_us & _WORD, failures & _WORD
    )
    return request[:4] + words + request[4 + len(words) :]
