"""Writes records to journald by its native protocol, one datagram each.

The protocol is described at systemd.io/JOURNAL_NATIVE_PROTOCOL. `systemd.journal` is not used: its
send holds the interpreter lock while journald does not read, and so stops every thread.
"""

import errno
import struct
from pathlib import Path

from netsrvd.reporting.datagram_socket import DatagramSocket
from netsrvd.reporting.records import IDENTIFIER, Record

SOCKET = Path("/run/systemd/journal/socket")

SHORTENED = 256
"""Characters of each field that are kept when a record is too long for the socket."""


class JournalLog:
    """The journal. Owned by the reporter's thread."""

    name = "journal"
    __slots__ = ("_socket",)

    def __init__(self, path: Path = SOCKET) -> None:
        self._socket = DatagramSocket(path)

    def write(self, record: Record) -> bool:
        """Write one record; False if it was not taken now and must be offered again."""
        try:
            return self._socket.send(encoded(record, longest=None))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            return self._socket.send(encoded(record, longest=SHORTENED))

    def wait(self, seconds: float) -> None:
        """Wait until it may take more, at most so long."""
        self._socket.wait(seconds)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def encoded(record: Record, longest: int | None) -> bytes:
    """Return the datagram of a record, with fields of at most `longest` characters."""
    parts = [
        f"MESSAGE={record.text[:longest]}\nPRIORITY={record.priority}\n"
        f"MESSAGE_ID={record.message_id}\nSYSLOG_IDENTIFIER={IDENTIFIER}\n".encode()
    ]
    for name, value in record.fields:
        data = value[:longest].encode()
        if b"\n" in data:  # a value with line breaks is sent with its length in 64 bits instead
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
