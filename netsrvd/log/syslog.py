"""Writes records to the local syslog daemon, one datagram each, in the form of syslog(3).

If the daemon listens on a stream socket, each record ends with a NUL instead.
"""

import errno
import os
import time
from pathlib import Path

from netsrvd.log.datagram_socket import DatagramSocket
from netsrvd.log.records import IDENTIFIER, Record

SOCKET = Path("/dev/log")
FACILITY_DAEMON = 3 << 3
LONGEST_LINE = 8192
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class SyslogLog:
    """The syslog daemon. Owned by the log thread."""

    name = "syslog"
    __slots__ = ("_socket",)

    def __init__(self, path: Path = SOCKET) -> None:
        self._socket = DatagramSocket(path, or_stream=True)

    def write(self, record: Record) -> bool:
        """Write one record; False if it was not taken now and must be offered again."""
        datagram = encoded(record, time.localtime(), os.getpid())
        try:
            return self._socket.send(shortened(datagram, LONGEST_LINE))
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            return self._socket.send(shortened(datagram, LONGEST_LINE // 8))

    def wait(self, seconds: float) -> None:
        """Wait until it may take more, at most `seconds`."""
        self._socket.wait(seconds)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def encoded(record: Record, now: time.struct_time, pid: int) -> bytes:
    """Return the datagram of a record: RFC 3164's form without a host name, as glibc writes it."""
    priority = FACILITY_DAEMON | record.priority
    stamp = f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"
    traceback = record.traceback().replace("\n", "#012")  # as syslog daemons show a line break
    text = f"{record.text} {traceback}" if traceback else record.text
    return f"<{priority}>{stamp} {IDENTIFIER}[{pid}]: {text}".encode()


def shortened(datagram: bytes, longest: int) -> bytes:
    """Return a text of at most this number of bytes, without a part of a character at the end."""
    return datagram[:longest].decode(errors="ignore").encode()
