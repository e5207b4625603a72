"""Errors that repeat: reported once when they begin and once when they end."""

from collections.abc import Callable
from math import inf

from netsrvd.errnos import format_errno
from netsrvd.events import Event

QUIET_SECONDS = 1.0
"""After this time without an error, the errors have ended."""

PAUSE_SECONDS = 0.1
"""How long to leave a socket alone after an error that may pass."""

LASTING_SECONDS = 1.0
"""Errors that have lasted for this time are not expected to pass."""


class ErrorThrottle:
    """The errors of one system call on the sockets of a listener. Owned by its event loop.

    `began` and `ended` are the events: of this listener, at the address of the last error.
    """

    __slots__ = (
        *("_began", "_began_at", "_ended", "_errors", "_last_at", "_listener", "_pause_until"),
        *("_report", "_where", "due_at"),
    )

    def __init__(
        self,
        report: Callable[[Event], None],
        listener: str,
        began: Callable[[str, str, int, str, int], Event],
        ended: Callable[[str, str, int, int, float], Event],
    ) -> None:
        self._report = report
        self._listener = listener
        self._began = began
        self._ended = ended
        self._where = "", 0
        self._errors = 0
        self._began_at = self._last_at = self._pause_until = 0.0
        self.due_at = inf
        """When `expire` has something to do, or a pause ends."""

    def record(self, error: OSError, where: tuple[str, int], now: float, *, pause: bool) -> None:
        """Count an error at an address; with `pause` its socket is left alone for
        `PAUSE_SECONDS`.
        """
        self._last_at, self._where = now, where
        self._pause_until = now + PAUSE_SECONDS if pause else 0.0
        self.due_at = self._pause_until or now + QUIET_SECONDS
        self._errors += 1
        if self._errors == 1:
            self._began_at = now
            pause_ms = int(PAUSE_SECONDS * 1000) if pause else 0
            self._report(self._began(self._listener, *where, format_errno(error), pause_ms))

    def pausing(self, now: float) -> bool:
        """Return whether the socket is to be left alone now."""
        return now < self._pause_until

    def persistent(self, now: float) -> bool:
        """Return whether the errors have lasted for `LASTING_SECONDS`."""
        return self._errors > 0 and now - self._began_at >= LASTING_SECONDS

    def expire(self, now: float) -> None:
        """Report the end of the errors, if there was none for `QUIET_SECONDS`."""
        if now < self.due_at:
            return
        quiet_at = self._last_at + QUIET_SECONDS
        if now >= quiet_at:
            seconds = self._last_at - self._began_at
            self._report(self._ended(self._listener, *self._where, self._errors, seconds))
            self._errors = 0
        self.due_at = quiet_at if self._errors else inf
