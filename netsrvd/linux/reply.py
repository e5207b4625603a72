"""Sends one answer by sendmsg(2), to a datagram whose batch has been overwritten."""

import socket
import sys

from netsrvd.linux.mmsg import LAYOUTS, Layout, packet_info, parse


def send(sock: socket.socket, header: bytes, payload: bytes, *, keep_interface: bool) -> None:
    """Send `payload` to the sender of a datagram, from the address that this was sent to.

    `header` is one of `Batch.headers`. The routing table chooses the interface, or it
    is kept: the answer leaves by the one where the datagram came in (link-local addresses). Raises
    OSError.
    """
    layout = LAYOUTS[sock.family]
    info = packet_info(parse(header, layout.control_at), keep_interface=keep_interface)
    ancillary = [(info.level, info.kind, info.data)]
    sock.sendmsg([payload], ancillary, socket.MSG_DONTWAIT, _name(layout, header))


def _name(layout: Layout, header: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the name in a message header, as Python has it."""
    host = socket.inet_ntop(layout.family, header[layout.host])
    port = int.from_bytes(header[2:4], "big")
    if layout.family == socket.AF_INET:
        return host, port
    return host, port, 0, int.from_bytes(header[layout.scope], sys.byteorder)
