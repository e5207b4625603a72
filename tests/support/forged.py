"""Datagrams whose sender is not who sends them."""

import socket
import struct


def datagram(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> bytes:
    """Return an IPv4 packet (RFC 791) with a UDP datagram (RFC 768) in it, without checksums.

    The kernel fills in that of a raw packet's IP header; a UDP checksum of 0 is none.
    """
    length = 8 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0)
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    return head + addresses + struct.pack("!HHHH", source[1], target[1], length, 0) + payload


def send(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> None:
    """Send one such datagram; needs root."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(datagram(source, target, payload), (target[0], 0))
