"""Tells systemd how the daemon is (sd_notify(3)); silent where nobody listens."""

import os
import socket
from contextlib import suppress
from time import monotonic_ns

from netsrvd.events import one_line

PATIENCE_SECONDS = 1.0
"""How long a message may wait for a service manager that is busy."""

UINT64_DIGITS = 20


class Notifier:
    """The way to the service manager. Owned by the main thread.

    Its socket is open from the start: that of `systemd.daemon.notify` is a new one each time, which
    cannot be had, so that the watchdog starves, while clients have taken all descriptors.
    """

    __slots__ = ("_socket", "_status")

    def __init__(self) -> None:
        self._status = ""
        self._socket: socket.socket | None = None
        path = os.environ.get("NOTIFY_SOCKET", "")
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(PATIENCE_SECONDS)
            with suppress(OSError):  # it was inherited, and who made it is gone
                self._socket.connect("\0" + path[1:] if path.startswith("@") else path)

    @property
    def watchdog_seconds(self) -> float:
        """Return how often systemd wants to hear of us at least; 0 for never."""
        if self._socket is None or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(
            os.getpid()
        ):
            return 0.0
        text = os.environ.get("WATCHDOG_USEC", "")
        return int(text) / 1e6 if text.isdecimal() and len(text) <= UINT64_DIGITS else 0.0

    def ready(self, status: str) -> None:
        """Tell that the daemon serves, at first or again after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that the configuration is being read again."""
        began_at = f"MONOTONIC_USEC={monotonic_ns() // 1000}"
        self._send("RELOADING=1", began_at, "STATUS=Reloading")

    def stopping(self, status: str, seconds: float) -> None:
        """Tell that the daemon is going to end, which may take so long."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def status(self, status: str) -> None:
        """Show one line in `systemctl status`, if it is a new one."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, *assignments: str) -> None:
        """Send assignments, a line each. Nothing depends on their being heard."""
        if self._socket is not None:
            with suppress(OSError):
                text = "\n".join(map(one_line, assignments))
                self._socket.send(text.encode(errors="replace"))
