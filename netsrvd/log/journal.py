"""Writes records to journald by its native protocol, one datagram each.

The protocol is described at systemd.io/JOURNAL_NATIVE_PROTOCOL. `systemd.journal` is not used: its
send holds the interpreter lock while journald does not read, and so stops every thread.
"""

import errno
import os
import struct
from pathlib import Path

from netsrvd.log.datagram_socket import DatagramSocket
from netsrvd.log.records import IDENTIFIER, Record

SOCKET = Path("/run/systemd/journal/socket")

FOLDER = Path("/run/journal")
"""Where systemd-257.conf shows the folder of SOCKET. SOCKET itself is a mounted file there: after
systemd-journald.socket has been stopped and started it leads to a socket that is closed.
"""

SHORTENED = 256
"""Characters of each field that are kept when a record is too long for the socket."""


class JournalLog:
    """The journal. Owned by the log thread."""

    name = "journal"
    __slots__ = ("_socket",)

    def __init__(self, path: Path | None = None) -> None:
        self._socket = DatagramSocket(path or socket_path())

    def write(self, record: Record) -> bool:
        """Write one record; False if it was not taken now and must be offered again."""
        try:
            return self._socket.send(encoded(record, longest=None))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            return self._socket.send(encoded(record, longest=SHORTENED))

    def wait(self, seconds: float) -> None:
        """Wait until it may take more, at most `seconds`."""
        self._socket.wait(seconds)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def socket_path() -> Path:
    """Return where journald's socket is found again when it has been made anew.

    systemd leaves FOLDER behind on the host, where nothing is mounted on it. It sets LOG_NAMESPACE
    where LogNamespace= gives the service another journal.
    """
    in_folder = FOLDER.is_mount() and not os.environ.get("LOG_NAMESPACE")
    return FOLDER / SOCKET.name if in_folder else SOCKET


def encoded(record: Record, longest: int | None) -> bytes:
    """Return the datagram of a record, with fields of at most `longest` characters."""
    head = (
        f"MESSAGE={record.text[:longest]}\nPRIORITY={record.priority}\n"
        f"MESSAGE_ID={record.message_id}\nSYSLOG_IDENTIFIER={IDENTIFIER}\n"
    )
    lines, blocks = [head], []
    for name, value in record.fields:
        if "\n" in value:
            blocks.append(_block(name, value[:longest].encode()))
        else:
            lines.append(f"{name}={value[:longest]}\n")
    return b"".join(("".join(lines).encode(), *blocks))


def _block(name: str, data: bytes) -> bytes:
    """Return a field whose value has line breaks: its length in 64 bits takes their place."""
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
