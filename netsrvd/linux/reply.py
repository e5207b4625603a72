"""Sends one answer by sendmsg(2), to a datagram whose batch has been overwritten."""

import socket
import sys

from netsrvd.addresses import UNKNOWN
from netsrvd.linux.mmsg import IP_PKTINFO, LAYOUTS, Layout

HEADER_BYTES = 16
"""struct cmsghdr { size_t cmsg_len; int cmsg_level; int cmsg_type; }, before its data."""

PACKET_INFO = {
    # struct in_pktinfo { int ipi_ifindex; struct in_addr ipi_spec_dst; struct in_addr ipi_addr; };
    socket.AF_INET: (IP_PKTINFO, 12),
    # struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; };
    socket.AF_INET6: (socket.IPV6_PKTINFO, 20),
}


def send(sock: socket.socket, envelope: bytes, payload: bytes, *, pinned: bool) -> None:
    """Send `payload` to the sender of a datagram, from the address that this was sent to.

    `envelope` is one of `Batch.envelopes`. The routing table chooses the interface, unless the
    answer is `pinned` to the one where it came in (link-local addresses). Raises OSError.
    """
    layout = LAYOUTS[sock.family]
    option, length = PACKET_INFO[sock.family]
    at = layout.control_at + HEADER_BYTES
    control = bytearray(HEADER_BYTES) + envelope[at : at + length]
    if not pinned:
        control[layout.interface] = bytes(4)
    if control[layout.local] == socket.inet_aton(UNKNOWN):  # the kernel kept only what was asked
        control[layout.local] = control[layout.asked]
    ancillary = [(layout.level, option, control[HEADER_BYTES:])]
    sock.sendmsg([payload], ancillary, socket.MSG_DONTWAIT, _name(layout, envelope))


def _name(layout: Layout, envelope: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address in an envelope's name, as Python has it."""
    host = socket.inet_ntop(layout.family, envelope[layout.host])
    port = int.from_bytes(envelope[2:4], "big")
    if layout.family == socket.AF_INET:
        return host, port
    return host, port, 0, int.from_bytes(envelope[layout.scope], sys.byteorder)
