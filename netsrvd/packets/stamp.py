"""Packets of STAMP (RFC 8762 and its extensions of RFC 8972): made and read, by both ends.

A sender's request is answered by a reflector. Open packets are those of TWAMP Light (RFC 5357,
appendix I), too; authenticated ones carry an HMAC. Optional TLVs follow the base packet. Integers
are big-endian. The functions know no socket, no clock and no setting.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import NamedTuple

PORT = 862

OPEN_BYTES, AUTHENTICATED_BYTES = 44, 112
"""Length of a base packet, of either direction."""
SHORTEST_REQUEST_BYTES = 14
"""A sender of TWAMP Light may leave out all behind the error estimate (RFC 5357, 4.1.2)."""
SHORTEST_REPLY_BYTES, REPLY_WITH_TTL_BYTES = 38, 41
"""Some reflectors of TWAMP Light end their reply behind the sender's error estimate: no TTL."""

TIMESTAMP_AT, AUTHENTICATED_TIMESTAMP_AT = 4, 16

HMAC_BYTES = 16
HMAC_AT = AUTHENTICATED_BYTES - HMAC_BYTES

SYNCHRONISED, PTP = 0x8000, 0x4000
"""Bits S and Z of an error estimate: the clock is synchronised; the timestamp's format is PTP's."""
MOST_SCALE, MOST_MULTIPLIER = 63, 255

UNRECOGNISED, MALFORMED, INTEGRITY = 0x80, 0x40, 0x20
"""Flags U, M and I of a TLV. A sender sets U; a reflector that understands the TLV clears it."""
EXTRA_PADDING, TIMESTAMP_INFORMATION, CLASS_OF_SERVICE, DIRECT_MEASUREMENT = 1, 3, 4, 5
ACCESS_REPORT, FOLLOW_UP_TELEMETRY, HMAC, DESTINATION_ADDRESS = 6, 7, 8, 9
"""Types of TLVs that can be understood. Location (2) would tell where the host is. Return path (10)
and reflected test packet control (12) would have packets sent to others, or more than one.
"""
HEAD_BYTES = 4
LENGTHS = {
    TIMESTAMP_INFORMATION: (4,),
    CLASS_OF_SERVICE: (4,),
    DIRECT_MEASUREMENT: (12,),
    ACCESS_REPORT: (4,),
    FOLLOW_UP_TELEMETRY: (16,),
    HMAC: (HMAC_BYTES,),
    DESTINATION_ADDRESS: (4, 16),
}
"""Length that the value of a type has; one of another length is malformed."""
MOST_TLVS = 32
"""TLVs of a packet that are looked at. The others are returned as they came, with the U that their
sender has set: not understood. Each costs about a microsecond."""

SYNC_NTP, SYNC_PTP, SYNC_LOCAL = 1, 2, 5
BY_HARDWARE, BY_SOFTWARE, BY_CONTROL_PLANE = 1, 2, 3
"""What synchronises a clock, and how a time was taken, in TLVs 3 and 7 (RFC 8972, 4.3 and 4.7)."""

FROM_1900_TO_1970 = 2_208_988_800
TAI_OFFSET_SECONDS = 37
"""TAI less UTC, since 2017."""

_SECOND_NS = 1_000_000_000
_ERA = 1 << 32

_open_request = Struct("!I8sHH28x")
_open_reply = Struct("!I8sHH8sI8sH2xB3x")
_authenticated_request = Struct("!I12x8sHH68x")
_authenticated_reply = Struct("!I12x8sHH4x8s8xI12x8sH6xB15x")
_shortest_request = Struct("!I8sH")
_shortest_reply = Struct("!I8sHH8sI8sH")
_two_words = Struct("!II")


class PacketError(ValueError):
    """The bytes are no packet that may be used. `reason` is SHORT, CORRUPT or UNAUTHENTIC."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


SHORT, CORRUPT, UNAUTHENTIC = "short", "corrupt", "unauthentic"


class Request(NamedTuple):
    """A sender's packet. Timestamps have the format that bit Z of their error estimate says."""

    sequence: int
    timestamp: bytes
    error_estimate: int
    ssid: int
    """The identifier of a session (RFC 8972, 3), 0 for none."""
    tlvs: bytes
    """What follows the base packet: TLVs, or padding of TWAMP Light."""


class Reply(NamedTuple):
    """A reflector's packet."""

    sequence: int
    timestamp: bytes
    """When it was sent (T3)."""
    error_estimate: int
    """Of `timestamp` and of `received`."""
    ssid: int
    received: bytes
    """When the request came (T2)."""
    sender_sequence: int
    sender_timestamp: bytes
    sender_error_estimate: int
    sender_ttl: int | None
    """The TTL with which the request came; None in a short reply of TWAMP Light."""
    tlvs: bytes


class Tlv(NamedTuple):
    """An optional part of a packet. `value` is shorter than it says if the packet ends within."""

    flags: int
    type: int
    value: bytes


# --- times ------------------------------------------------------------------------------------


def ntp_timestamp(time_ns: int) -> bytes:
    """Return the NTP timestamp (RFC 5905, 6) of a time in nanoseconds since 1970 UTC."""
    seconds, nanoseconds = divmod(time_ns, _SECOND_NS)
    return _two_words.pack((seconds + FROM_1900_TO_1970) % _ERA, (nanoseconds << 32) // _SECOND_NS)


def ptp_timestamp(time_ns: int, tai_offset_seconds: int = TAI_OFFSET_SECONDS) -> bytes:
    """Return the truncated PTP timestamp (TAI) of a time in nanoseconds since 1970 UTC."""
    seconds, nanoseconds = divmod(time_ns, _SECOND_NS)
    return _two_words.pack((seconds + tai_offset_seconds) % _ERA, nanoseconds)


def time_of(
    timestamp: bytes,
    error_estimate: int,
    near_ns: int,
    tai_offset_seconds: int = TAI_OFFSET_SECONDS,
) -> int:
    """Return the time of a timestamp in nanoseconds since 1970 UTC.

    Its format is that of bit Z of `error_estimate`. A timestamp has 32 bits of seconds: of the
    times that it may mean, the nearest to `near_ns` is returned.
    """
    seconds, part = _two_words.unpack(timestamp)
    if error_estimate & PTP:
        seconds, nanoseconds = seconds - tai_offset_seconds, part
    else:
        seconds -= FROM_1900_TO_1970
        nanoseconds = (part * _SECOND_NS + (1 << 31)) >> 32
    time_ns = int(seconds * _SECOND_NS + nanoseconds)
    era_ns = _ERA * _SECOND_NS
    return time_ns + (near_ns - time_ns + era_ns // 2) // era_ns * era_ns


def make_error_estimate(error_ns: int, *, is_synchronised: bool, is_ptp: bool = False) -> int:
    """Return the error estimate (RFC 4656, 4.1.2) of a clock that is at most `error_ns` wrong.

    The error is rounded up, to at least 0.23 ns. What is above 68 years becomes the largest.
    """
    units = max(1, -(-(error_ns << 32) // _SECOND_NS))
    scale = max(0, units.bit_length() - 8)
    multiplier = -(-units >> scale)
    if multiplier > MOST_MULTIPLIER:
        scale, multiplier = scale + 1, -(-units >> (scale + 1))
    if scale > MOST_SCALE:
        scale, multiplier = MOST_SCALE, MOST_MULTIPLIER
    bits = SYNCHRONISED * is_synchronised | PTP * is_ptp
    return bits | scale << 8 | multiplier


def error_ns(error_estimate: int) -> float:
    """Return the error of an error estimate in nanoseconds."""
    scale, multiplier = error_estimate >> 8 & MOST_SCALE, error_estimate & MOST_MULTIPLIER
    return float(multiplier * _SECOND_NS * 2.0 ** (scale - 32))


# --- base packets -----------------------------------------------------------------------------


def digest(key: bytes, data: bytes) -> bytes:
    """Return the HMAC of RFC 8762, 4.4: the first 16 bytes of HMAC-SHA-256."""
    import hmac  # noqa: PLC0415 - it loads libcrypto: 2 MB, which an open reflector need not have

    return hmac.digest(key, data, "sha256")[:HMAC_BYTES]


def make_request(
    sequence: int,
    timestamp: bytes,
    error_estimate: int,
    *,
    ssid: int = 0,
    tlvs: bytes = b"",
    key: bytes | None = None,
) -> bytes:
    """Return a sender's packet, authenticated if there is a key."""
    if key is None:
        return _open_request.pack(sequence, timestamp, error_estimate, ssid) + tlvs
    base = _authenticated_request.pack(sequence, timestamp, error_estimate, ssid)
    return base + digest(key, base) + tlvs


def read_request(data: bytes, key: bytes | None = None) -> Request:
    """Return what a sender's packet says; raises PacketError.

    With a key, a packet without the right HMAC is UNAUTHENTIC, also one that is too short for it.
    """
    if key is not None:
        _check_hmac(data, key)
        found = _authenticated_request.unpack_from(data)
        request = Request._make((*found, data[AUTHENTICATED_BYTES:]))
    elif len(data) >= OPEN_BYTES:
        request = Request._make((*_open_request.unpack_from(data), data[OPEN_BYTES:]))
    elif len(data) >= SHORTEST_REQUEST_BYTES:
        end = SHORTEST_REQUEST_BYTES + 2
        ssid = int.from_bytes(data[SHORTEST_REQUEST_BYTES:end], "big") if len(data) >= end else 0
        request = Request._make((*_shortest_request.unpack_from(data), ssid, b""))
    else:
        raise PacketError(SHORT, f"it has {len(data)} bytes of {SHORTEST_REQUEST_BYTES}")
    _check_error_estimate(request.error_estimate)
    return request


def make_reply(
    request: Request,
    timestamp: bytes,
    received: bytes,
    error_estimate: int,
    *,
    sequence: int,
    ttl: int,
    tlvs: bytes = b"",
    key: bytes | None = None,
) -> bytes:
    """Return a reflector's answer to a request, authenticated if there is a key.

    `timestamp` is the time of sending (T3), `received` that of the request's arrival (T2), `ttl`
    the one with which it came. A stateless reflector repeats the sequence number of the request.
    `tlvs` are those of `reflect_tlvs`.
    """
    layout = _open_reply if key is None else _authenticated_reply
    base = layout.pack(
        sequence,
        timestamp,
        error_estimate,
        request.ssid,
        received,
        request.sequence,
        request.timestamp,
        request.error_estimate,
        ttl,
    )
    return base + tlvs if key is None else base + digest(key, base) + tlvs


def read_reply(data: bytes, key: bytes | None = None) -> Reply:
    """Return what a reflector's packet says; raises PacketError.

    Without a key, a reply of TWAMP Light may be as short as 38 bytes.
    """
    if key is not None:
        _check_hmac(data, key)
        found = _authenticated_reply.unpack_from(data)
        reply = Reply._make((*found, data[AUTHENTICATED_BYTES:]))
    elif len(data) >= OPEN_BYTES:
        reply = Reply._make((*_open_reply.unpack_from(data), data[OPEN_BYTES:]))
    elif len(data) >= SHORTEST_REPLY_BYTES:
        ttl = data[REPLY_WITH_TTL_BYTES - 1] if len(data) >= REPLY_WITH_TTL_BYTES else None
        reply = Reply._make((*_shortest_reply.unpack_from(data), ttl, b""))
    else:
        raise PacketError(SHORT, f"it has {len(data)} bytes of {SHORTEST_REPLY_BYTES}")
    _check_error_estimate(reply.error_estimate)
    return reply


def _is_equal(one: bytes, other: bytes) -> bool:
    """Return whether two digests are the same, in a time that does not tell where they differ."""
    from hmac import compare_digest  # noqa: PLC0415 - as above

    return compare_digest(one, other)


def _check_hmac(data: bytes, key: bytes) -> None:
    if len(data) < AUTHENTICATED_BYTES:
        raise PacketError(UNAUTHENTIC, f"it has {len(data)} bytes of {AUTHENTICATED_BYTES}")
    if not _is_equal(digest(key, data[:HMAC_AT]), data[HMAC_AT:AUTHENTICATED_BYTES]):
        raise PacketError(UNAUTHENTIC, "its HMAC is not that of the key")


def _check_error_estimate(error_estimate: int) -> None:
    """Raise PacketError for a multiplier of 0, which makes a packet corrupt (RFC 4656, 4.1.2)."""
    if not error_estimate & MOST_MULTIPLIER:
        raise PacketError(CORRUPT, "the multiplier of its error estimate is 0")


# --- TLVs -------------------------------------------------------------------------------------

Answers = Mapping[int, Callable[[bytes], bytes | None]]
"""For each type that a reflector understands: what makes the value of the answer, of the same
length, from the value of the request, or None for one that is not understood after all."""


def make_tlv(kind: int, value: bytes, flags: int = UNRECOGNISED) -> bytes:
    """Return a TLV, as a sender sends it unless `flags` say otherwise."""
    return bytes((flags, kind)) + len(value).to_bytes(2, "big") + value


def make_hmac_tlv(key: bytes, sequence: int, tlvs: bytes, flags: int = UNRECOGNISED) -> bytes:
    """Return the HMAC TLV that protects a packet's sequence number and the TLVs before it."""
    return make_tlv(HMAC, digest(key, sequence.to_bytes(4, "big") + tlvs), flags)


def has_tlvs(tlvs: bytes) -> bool:
    """Return whether what follows a base packet begins with a TLV, and not with padding."""
    return len(tlvs) >= HEAD_BYTES and bool(tlvs[1])


def read_tlvs(tlvs: bytes) -> tuple[Tlv, ...]:
    """Return the TLVs of a packet, at most `MOST_TLVS`. The last may be cut by the packet's end."""
    return tuple(
        Tlv(tlvs[start], tlvs[start + 1], tlvs[start + HEAD_BYTES : end])
        for start, end in _places(tlvs)
    )


def are_tlvs_authentic(tlvs: bytes, sequence: int, key: bytes) -> bool:
    """Return whether the HMAC TLV of a packet is right (RFC 8972, 4.8).

    `sequence` is the packet's own sequence number. A packet without TLVs, or with nothing but one
    of extra padding, needs no HMAC TLV.
    """
    places = _places(tlvs)
    kinds = [tlvs[start + 1] for start, _ in places]
    return kinds in ([], [EXTRA_PADDING]) or _has_right_hmac(tlvs, places, sequence, key)


def reflect_tlvs(
    tlvs: bytes,
    answers: Answers,
    *,
    sequence: int,
    reply_sequence: int,
    key: bytes | None = None,
    is_authenticated: bool = False,
) -> bytes:
    """Return the TLVs of a reply, as long as those of the request with this sequence number.

    A TLV is answered, or marked: U if its type has no answer, M if its length is wrong or the
    packet ends within it (what follows it is returned as it came). With a key, all are marked I if
    the HMAC TLV is not right, or is missing in an authenticated packet.
    """
    places = _places(tlvs)
    if not places:
        return tlvs
    found = bytearray(tlvs)
    kinds = [tlvs[start + 1] for start, _ in places]
    has_hmac = key is not None and HMAC in kinds
    must_have = is_authenticated and key is not None and kinds != [EXTRA_PADDING]
    if has_hmac or must_have:
        assert key is not None
        if not _has_right_hmac(tlvs, places, sequence, key):
            for start, _ in places:
                found[start] |= INTEGRITY
            return bytes(found)
    for start, end in places:
        if has_hmac and found[start + 1] == HMAC:
            continue
        if not _answer(found, start, end, answers):
            break
    if has_hmac:
        assert key is not None
        at = places[kinds.index(HMAC)][0]
        made = make_hmac_tlv(key, reply_sequence, bytes(found[:at]), 0)
        found[at : at + len(made)] = made
    return bytes(found)


def _places(tlvs: bytes) -> list[tuple[int, int]]:
    """Return where each TLV begins and where it says that it ends, if need be behind the packet.

    Type 0 is reserved: there begins the padding of TWAMP Light, which usually is of zeros.
    """
    places: list[tuple[int, int]] = []
    start, last = 0, len(tlvs) - HEAD_BYTES
    while start <= last and tlvs[start + 1] and len(places) < MOST_TLVS:
        end = start + HEAD_BYTES + (tlvs[start + 2] << 8 | tlvs[start + 3])
        places.append((start, end))
        start = end
    return places


def _has_right_hmac(tlvs: bytes, places: list[tuple[int, int]], sequence: int, key: bytes) -> bool:
    """Return whether the HMAC TLV is there, is right, and is followed by extra padding alone."""
    for number, (start, end) in enumerate(places):
        if tlvs[start + 1] == HMAC:
            is_last = all(tlvs[at + 1] == EXTRA_PADDING for at, _ in places[number + 1 :])
            wanted = digest(key, sequence.to_bytes(4, "big") + tlvs[:start])
            return _is_equal(wanted, tlvs[start + HEAD_BYTES : end]) and is_last
    return False


def _answer(tlvs: bytearray, start: int, end: int, answers: Answers) -> bool:
    """Answer one TLV in its place; return False if it is malformed."""
    kind, at = tlvs[start + 1], start + HEAD_BYTES
    answer = answers.get(kind)
    lengths = LENGTHS.get(kind) if answer else None
    if end > len(tlvs) or (lengths is not None and end - at not in lengths):
        tlvs[start] = MALFORMED if answer else UNRECOGNISED | MALFORMED
        return False
    value = None if answer is None else answer(bytes(tlvs[at:end]))
    if value is None:
        tlvs[start] = UNRECOGNISED
    else:
        assert len(value) == end - at, "the answer to a TLV has its length"
        tlvs[start], tlvs[at:end] = 0, value
    return True


def as_received(value: bytes) -> bytes:
    """Answer extra padding (RFC 8972, 4.1) or an access report (4.6): with the same value."""
    return value


def answer_class_of_service(value: bytes, tos: int, permitted: frozenset[int]) -> bytes:
    """Answer a class of service (RFC 8972, 4.4, with erratum 8199).

    `tos` is the byte of the request's IP header, DSCP and ECN. The reply must have DSCP1 of the
    request if that is permitted, or else the DSCP with which the request came: see `reply_dscp`.
    """
    dscp = value[0] >> 2
    word = dscp << 10 | tos >> 2 << 4 | (tos & 3) << 2 | (dscp not in permitted)
    return word.to_bytes(2, "big") + bytes(2)


def reply_dscp(value: bytes, tos: int, permitted: frozenset[int]) -> int:
    """Return the DSCP of the reply to a request with a class of service."""
    dscp = value[0] >> 2
    return dscp if dscp in permitted else tos >> 2
