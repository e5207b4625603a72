"""Tells systemd how the daemon is (sd_notify(3)); silent where nobody listens."""

import os
from time import monotonic_ns


class Notifier:
    """The way to the service manager. Owned by the main thread."""

    __slots__ = ("_notify", "_status")

    def __init__(self) -> None:
        self._status = ""
        self._notify = None
        if os.environ.get("NOTIFY_SOCKET"):
            from systemd.daemon import notify  # noqa: PLC0415 - 20 ms that others save

            self._notify = notify

    @property
    def watchdog_seconds(self) -> float:
        """Return how often systemd wants to hear of us at least; 0 for never."""
        if self._notify is None or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(
            os.getpid()
        ):
            return 0.0
        text = os.environ.get("WATCHDOG_USEC", "")
        return int(text) / 1e6 if text.isdecimal() else 0.0

    def ready(self, status: str) -> None:
        """Tell that the daemon serves, at first or again after a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Tell that the configuration is being read again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}\nSTATUS=Reloading")

    def stopping(self, status: str) -> None:
        """Tell that the daemon is going to end."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Show one line in `systemctl status`, if it is a new one."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if self._notify is not None:
            self._notify(state)
