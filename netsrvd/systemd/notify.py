"""Sends the daemon's state to systemd (sd_notify(3)); does nothing without NOTIFY_SOCKET."""

import errno
import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic_ns

from netsrvd.escapes import escaped
from netsrvd.events import one_line

PATIENCE_SECONDS = 1.0
"""How long a message may wait for a service manager that is busy."""

BARRIER_SECONDS = 10.0
"""How long systemd may take for all messages, which may have thousands of descriptors."""

MOST_DESCRIPTORS = 250
"""In one message; the kernel takes 253 (SCM_MAX_FD in unix(7))."""

UINT64_DIGITS = 20


class Notifier:
    """The way to the service manager. Owned by the main thread.

    Its socket is open from the start: that of `systemd.daemon.notify` is a new one each time, which
    fails, so that the watchdog is not fed, while clients have taken all descriptors.
    """

    __slots__ = ("_socket", "_status")

    def __init__(self) -> None:
        self._status = ""
        self._socket: socket.socket | None = None
        path = os.environ.get("NOTIFY_SOCKET", "")
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(PATIENCE_SECONDS)
            with suppress(OSError):  # it was inherited, and its maker has ended
                self._socket.connect("\0" + path[1:] if path.startswith("@") else path)

    @property
    def store_room(self) -> int:
        """Return how many descriptors `fdstore` may be given (FileDescriptorStoreMax=).

        systemd says it since version 254; before that the unit has to.
        """
        text = os.environ.get("FDSTORE") or os.environ.get("NETSRVD_FDSTORE", "")
        return _number(text) if self._socket is not None else 0

    @property
    def watchdog_seconds(self) -> float:
        """Return the interval within which systemd wants WATCHDOG=1; 0 for never."""
        if self._socket is None or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(
            os.getpid()
        ):
            return 0.0
        return _number(os.environ.get("WATCHDOG_USEC", "")) / 1e6

    def ready(self, status: str) -> None:
        """Report that the daemon serves, at first or again after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that the configuration is being read again."""
        began_at = f"MONOTONIC_USEC={monotonic_ns() // 1000}"
        self._send("RELOADING=1", began_at, "STATUS=Reloading")

    def stopping(self, status: str, seconds: float) -> None:
        """Report that the daemon is going to end, within `seconds`."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, status: str) -> None:
        """Show one line in `systemctl status`, if it is a new one."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def feed_watchdog(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def fdstore(self, name: str, descriptors: Sequence[int]) -> None:
        """Put descriptors into systemd's store for the next process, under this name (FDSTORE=1).

        A connection that ends meanwhile is kept, too: its end must still be recorded. Raises
        OSError if systemd does not take the message; it does not report how many it keeps.
        """
        fields = ("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0")
        for start in range(0, len(descriptors), MOST_DESCRIPTORS):
            self._deliver(fields, descriptors[start : start + MOST_DESCRIPTORS])

    def fdstore_remove(self, name: str) -> None:
        """Make systemd close all that it keeps under this name."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def barrier(self) -> None:
        """Wait until systemd has processed all messages so far (BARRIER=1).

        Raises OSError if that takes too long.
        """
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._deliver(("BARRIER=1",), [theirs])
        finally:
            os.close(theirs)
        try:
            ended = select.poll()
            ended.register(ours, 0)
            if not ended.poll(BARRIER_SECONDS * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "systemd does not answer")
        finally:
            os.close(ours)

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def _deliver(self, fields: Sequence[str], descriptors: Sequence[int]) -> None:
        if self._socket is None:
            raise OSError(errno.ENOTCONN, "there is no service manager")
        socket.send_fds(self._socket, ["\n".join(fields).encode()], list(descriptors))

    def _send(self, *assignments: str) -> None:
        """Send assignments, a line each. An error is ignored."""
        if self._socket is not None:
            with suppress(OSError):
                # systemctl(1) shows a status as it is, on a terminal too.
                text = "\n".join(escaped(one_line(each)) for each in assignments)
                self._socket.send(text.encode(errors="replace"))


def _number(text: str) -> int:
    """Return the number in a variable of systemd, 0 for anything else."""
    return int(text) if text.isdecimal() and len(text) <= UINT64_DIGITS else 0
