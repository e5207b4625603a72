"""Reads the header by which a proxy names the client that it connects for: the PROXY protocol.

Its specification is proxy-protocol.txt of HAProxy; the sections named here are of that text. A
header is never guessed at: a host in `proxies` must send one, and anything else is wrong (2).
"""

import re
import socket
from functools import cache
from typing import NamedTuple

from netsrvd.addresses import unmapped

LONGEST_V1 = 107
"""Bytes of the longest line of version 1, its CRLF included (2.1)."""

LONGEST = 4096
"""Bytes that a header may have in all. Most have 28 or 52; what makes longer ones are TLVs, such as
the name in a client's certificate. nginx takes as many.
"""

LATE, LONG, WRONG = "proxy-late", "proxy-long", "proxy-header"
"""Why a connection or datagram of a proxy is refused."""

V1 = b"PROXY "
LINE = (
    rb"PROXY (?:UNKNOWN(?: .*)?"
    rb"|TCP4 ([0-9.]+) ([0-9.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
    rb"|TCP6 ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))"
)
"""Compiled, and then kept by `re`, when the first one comes: a start need not wait for it."""
HIGHEST_PORT = 65535

V2 = b"\r\n\r\n\0\r\nQUIT\n"
FIXED = 16
"""Bytes of version 2 before the addresses: signature, version and command, form, length (2.2)."""
LOCAL, PROXY = 0x20, 0x21

TLV_HEAD = 3
TLV_CRC32C = 0x03
CHECKSUM_BYTES = 4


class HeaderError(ValueError):
    """The proxy sent no valid header. `reason` is one of `Refused`; `str()` says what is wrong.

    The proxy or the configuration must be fixed; the connection cannot be served.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Header(NamedTuple):
    """A whole header: how many bytes it has, and which client it names.

    It names none (None) if the proxy speaks for itself, or knows no address of the client: then
    the peer of the connection is the one that counts.
    """

    length: int
    client: tuple[str, int] | None


class Form(NamedTuple):
    """What byte 13 of version 2 says of the addresses: how they came, and what they look like."""

    kind: int
    family: int
    host_bytes: int
    length: int


FORMS = {
    0x11: Form(socket.SOCK_STREAM, socket.AF_INET, 4, 12),
    0x12: Form(socket.SOCK_DGRAM, socket.AF_INET, 4, 12),
    0x21: Form(socket.SOCK_STREAM, socket.AF_INET6, 16, 36),
    0x22: Form(socket.SOCK_DGRAM, socket.AF_INET6, 16, 36),
    0x31: Form(socket.SOCK_STREAM, socket.AF_UNIX, 108, 216),
    0x32: Form(socket.SOCK_DGRAM, socket.AF_UNIX, 108, 216),
}
UNSPECIFIED = 0x00


def read_stream(data: bytes) -> Header | None:
    """Return the header that a connection begins with, None while a part of it is missing.

    Raises HeaderError as soon as no header can come of it. `data` may be longer than the header.
    """
    if data.startswith(V1):
        return _version_1(data)
    if data.startswith(V2):
        return _version_2(data, socket.SOCK_STREAM)
    if V1.startswith(data) or V2.startswith(data):
        return None
    raise HeaderError(WRONG, "it begins neither as version 1 nor as version 2 does")


def read_datagram(data: bytes) -> Header:
    """Return the header that a datagram begins with; raises HeaderError if it has none.

    Only version 2 has a form for datagrams.
    """
    if not data.startswith(V2):
        raise HeaderError(WRONG, "the datagram does not begin as version 2 does")
    header = _version_2(data, socket.SOCK_DGRAM)
    if header is None:
        raise HeaderError(WRONG, "the datagram ends within it")
    return header


def _version_1(data: bytes) -> Header | None:
    line, end, _ = data[:LONGEST_V1].partition(b"\r\n")
    # The last byte so far may be a CR whose LF is on its way.
    if b"\n" in line or b"\r" in (line if end else line[:-1]):
        raise HeaderError(WRONG, "a CR or LF stands alone")
    if not end and len(data) < LONGEST_V1:
        return None
    if not end:
        raise HeaderError(LONG, f"there is no CRLF within {LONGEST_V1} bytes")
    found = re.fullmatch(LINE, line, re.DOTALL)
    if not found:
        raise HeaderError(WRONG, "the line is not as version 1 has it")
    length = len(line) + len(end)
    four, six = found.groups()[:4], found.groups()[4:]
    if four[0]:
        return Header(length, _client_of_line(socket.AF_INET, *four))
    return Header(length, _client_of_line(socket.AF_INET6, *six) if six[0] else None)


def _client_of_line(
    family: int, host: bytes, our_host: bytes, port: bytes, our_port: bytes
) -> tuple[str, int]:
    try:
        packed = socket.inet_pton(family, host.decode())
        socket.inet_pton(family, our_host.decode())
    except OSError:
        raise HeaderError(WRONG, "an address is none of the family that it is said to be") from None
    if max(int(port), int(our_port)) > HIGHEST_PORT:
        raise HeaderError(WRONG, f"a port is above {HIGHEST_PORT}")
    return unmapped(socket.inet_ntop(family, packed)), int(port)


def _version_2(data: bytes, kind: int) -> Header | None:
    if len(data) < FIXED:
        return None
    command, end = data[12], FIXED + int.from_bytes(data[14:FIXED], "big")
    if command not in (LOCAL, PROXY):
        raise HeaderError(WRONG, f"its version and command are 0x{command:02x}")
    if end > LONGEST:
        raise HeaderError(LONG, f"it has {end} bytes; {LONGEST} are taken")
    form = None
    if command == PROXY and data[13] != UNSPECIFIED:
        form = _form(data[13], kind, end - FIXED)
    if len(data) < end:
        return None
    if form is None:  # whatever else it has is to be skipped
        return Header(end, None)
    _check(data[:end], FIXED + form.length)
    return Header(end, _client(form, data))


def _form(number: int, kind: int, length: int) -> Form:
    """Return the form of the addresses, of which there must be as much as it wants."""
    form = FORMS.get(number)
    if form is None:
        raise HeaderError(WRONG, f"its family and protocol are 0x{number:02x}")
    if form.kind != kind:
        raise HeaderError(WRONG, "it speaks of another protocol than it came by")
    if length < form.length:
        raise HeaderError(WRONG, "it is too short for its addresses")
    return form


def _client(form: Form, data: bytes) -> tuple[str, int] | None:
    """Return the address and port in a block; None for a client of the proxy's own host."""
    if form.family == socket.AF_UNIX:
        return None
    host = socket.inet_ntop(form.family, data[FIXED : FIXED + form.host_bytes])
    at = FIXED + 2 * form.host_bytes
    return unmapped(host), int.from_bytes(data[at : at + 2], "big")


def _check(header: bytes, start: int) -> None:
    """Raise HeaderError unless the TLVs from `start` fill the header, with a right checksum if any.

    What else they say is of no use here (2.2.7).
    """
    checked = False
    while start < len(header):
        value = start + TLV_HEAD
        end = value + int.from_bytes(header[start + 1 : value], "big")
        if len(header) < max(value, end):
            raise HeaderError(WRONG, "a TLV runs past its end")
        if header[start] == TLV_CRC32C:
            if checked or end - value != CHECKSUM_BYTES:
                raise HeaderError(WRONG, "its checksum is not one of four bytes")
            if _checksum(header, value) != int.from_bytes(header[value:end], "big"):
                raise HeaderError(WRONG, "its checksum is wrong")
            checked = True
        start = end


def _checksum(header: bytes, at: int) -> int:
    """Return the CRC32C of a header whose own field, at this place, counts as zeros (2.2.3)."""
    return crc32c(header[:at] + bytes(CHECKSUM_BYTES) + header[at + CHECKSUM_BYTES :])


def crc32c(data: bytes) -> int:
    """Return the CRC of Castagnoli (RFC 3720, appendix B.4): 60 ns a byte, 2 µs a usual header."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    """Return what each byte does to the CRC. Made when the first checksum comes: 0.1 ms."""
    found = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        found.append(crc)
    return tuple(found)
