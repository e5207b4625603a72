"""Trouble that repeats itself: told once when it begins and once when it ends."""

import errno
import os
from collections.abc import Callable
from math import inf

from netsrvd.events import Event

QUIET_SECONDS = 1.0
"""Without an error for so long, the trouble is over."""

PAUSE_SECONDS = 0.1
"""How long to leave a socket alone after an error that waiting may cure."""


LASTING_SECONDS = 1.0
"""Trouble of this age is not about to pass."""


def named(error: OSError) -> str:
    """Return the error's symbol and its meaning, such as `EMFILE: Too many open files`."""
    number = error.errno or 0
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"


class Trouble:
    """The errors of one system call on the sockets of a listener. Owned by their thread.

    `began` and `ended` are the events that tell: of this listener, at the address that was in
    trouble last.
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
        """When there is something to settle, or a pause to end."""

    def occurred(self, error: OSError, where: tuple[str, int], now: float, *, pause: bool) -> None:
        """Take an error at an address into account; with `pause` its socket is to be left alone for
        a moment.
        """
        self._last_at, self._where = now, where
        self._pause_until = now + PAUSE_SECONDS if pause else 0.0
        self.due_at = self._pause_until or now + QUIET_SECONDS
        self._errors += 1
        if self._errors == 1:
            self._began_at = now
            pause_ms = int(PAUSE_SECONDS * 1000) if pause else 0
            self._report(self._began(self._listener, *where, named(error), pause_ms))

    def pausing(self, now: float) -> bool:
        """Return whether the socket is to be left alone now."""
        return now < self._pause_until

    def lasts(self, now: float) -> bool:
        """Return whether it is more than a passing one."""
        return self._errors > 0 and now - self._began_at >= LASTING_SECONDS

    def settle(self, now: float) -> None:
        """Tell the end of the trouble, if it has been quiet for long enough."""
        if now < self.due_at:
            return
        quiet_at = self._last_at + QUIET_SECONDS
        if now >= quiet_at:
            seconds = self._last_at - self._began_at
            self._report(self._ended(self._listener, *self._where, self._errors, seconds))
            self._errors = 0
        self.due_at = quiet_at if self._errors else inf
