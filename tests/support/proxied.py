"""What a proxy sends: headers of the PROXY protocol, right and wrong."""

import socket

from netsrvd.proxy_protocol import crc32c

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
CLIENT = ("192.0.2.7", 4711)

BY_HAPROXY = {
    "v1 TCP4": (b"PROXY TCP4 127.0.0.1 127.0.0.1 45014 8114\r\n", ("127.0.0.1", 45014)),
    "v1 TCP6": (b"PROXY TCP6 ::1 ::1 45016 8116\r\n", ("::1", 45016)),
    "v2 TCP4": (
        SIGNATURE + bytes.fromhex("2111000c7f0000017f000001afe01fbc"),
        ("127.0.0.1", 45024),
    ),
    "v2 TCP6": (
        SIGNATURE + bytes.fromhex("21210024" + "00" * 15 + "01" + "00" * 15 + "01afe21fbe"),
        ("::1", 45026),
    ),
    "v2 TCP4 CRC": (
        SIGNATURE + bytes.fromhex("211100137f0000017f000001afea1fc6030004b16a4de1"),
        ("127.0.0.1", 45034),
    ),
    "v2 TCP6 CRC": (
        SIGNATURE
        + bytes.fromhex("2121002b" + "00" * 15 + "01" + "00" * 15 + "01afec1fc8030004bfd6cb68"),
        ("::1", 45036),
    ),
    "v2 TCP4 CRC id": (
        SIGNATURE
        + bytes.fromhex("2111001c7f0000017f000001aff41fd00300047e5d5376050006414243313233"),
        ("127.0.0.1", 45044),
    ),
}
"""What HAProxy 2.6.12 was seen to send, and whom it named."""


def v1(client: tuple[str, int] = CLIENT) -> bytes:
    """Return a header of version 1."""
    host, port = client
    kind, ours = ("TCP6", "::1") if ":" in host else ("TCP4", "127.0.0.1")
    return f"PROXY {kind} {host} {ours} {port} 7\r\n".encode()


def v2(command: int = 0x21, form: int = 0x11, block: bytes = bytes(12), length: int = -1) -> bytes:
    """Return a header of version 2, by default one whose length is right."""
    said = len(block) if length < 0 else length
    return SIGNATURE + bytes((command, form)) + said.to_bytes(2, "big") + block


LOCAL = v2(0x20, 0x00, b"")


def addresses(client: tuple[str, int] = CLIENT) -> bytes:
    """Return an address block; our own end of it is of no interest."""
    host, port = client
    family, ours = (socket.AF_INET6, "::1") if ":" in host else (socket.AF_INET, "127.0.0.1")
    ends = socket.inet_pton(family, host) + socket.inet_pton(family, ours)
    return ends + port.to_bytes(2, "big") + b"\x00\x07"


def tlv(kind: int, value: bytes) -> bytes:
    """Return one TLV."""
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def checked(block: bytes, *others: bytes, form: int = 0x11) -> bytes:
    """Return a header whose first TLV is its checksum."""
    whole = v2(form=form, block=block + tlv(3, bytes(4)) + b"".join(others))
    at = 16 + len(block) + 3
    return whole[:at] + crc32c(whole).to_bytes(4, "big") + whole[at + 4 :]


def datagram(payload: bytes, client: tuple[str, int] = CLIENT) -> bytes:
    """Return a datagram that a proxy sends for a client."""
    return v2(form=0x22 if ":" in client[0] else 0x12, block=addresses(client)) + payload
