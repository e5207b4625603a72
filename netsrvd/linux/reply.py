"""Sends one answer by sendmsg(2), to a datagram whose batch has been overwritten."""

import socket
import sys

from netsrvd.linux.mmsg import LAYOUTS, Layout, packet_info, parse


def send(sock: socket.socket, envelope: bytes, payload: bytes, *, pinned: bool) -> None:
    """Send `payload` to the sender of a datagram, from the address that this was sent to.

    `envelope` is one of `Batch.envelopes`. The routing table chooses the interface, unless the
    answer is `pinned` to the one where it came in (link-local addresses). Raises OSError.
    """
    layout = LAYOUTS[sock.family]
    info = packet_info(parse(envelope, layout.control_at), pinned=pinned)
    ancillary = [(info.level, info.kind, info.data)]
    sock.sendmsg([payload], ancillary, socket.MSG_DONTWAIT, _name(layout, envelope))


def _name(layout: Layout, envelope: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address in an envelope's name, as Python has it."""
    host = socket.inet_ntop(layout.family, envelope[layout.host])
    port = int.from_bytes(envelope[2:4], "big")
    if layout.family == socket.AF_INET:
        return host, port
    return host, port, 0, int.from_bytes(envelope[layout.scope], sys.byteorder)
