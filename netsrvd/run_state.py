"""What the main thread shares with those that look at the daemon, or ask for a reload, from other
threads.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from netsrvd.linux.mounts import Outside


class RunNotes:
    """Texts about the configuration. Never changes: a new object takes its place.

    A NamedTuple would take four times as long to make at each start.
    """

    __slots__ = ("configuration", "fault", "problems")

    def __init__(
        self, configuration: str = "", fault: str = "", problems: tuple[str, ...] = ()
    ) -> None:
        self.configuration = configuration
        """The path of the file."""
        self.fault = fault
        """Why the last reload failed; empty if it succeeded."""
        self.problems = problems
        """What of the configuration the passed sockets do not put into force."""


class ReloadRequest:
    """A caller that waits for a reload. Never changes."""

    __slots__ = ("answer", "outside")

    def __init__(self, outside: Outside, answer: Callable[[str, Sequence[str]], None]) -> None:
        self.outside = outside
        """What the caller sees of the host."""
        self.answer = answer
        """Tells the caller why the reload failed, or an empty text and warnings (any thread)."""


class ReloadRequests:
    """The callers that wait for a reload. A loop adds them, the main thread takes them all when a
    reload begins: so each gets the answer of one that began after it asked.
    """

    __slots__ = ("_has_ended", "_waiting", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._waiting: deque[ReloadRequest] = deque()
        self._has_ended = False

    @property
    def are_waiting(self) -> bool:
        """Whether there is one."""
        return bool(self._waiting)

    def add(self, request: ReloadRequest) -> None:
        """Have the main thread reload (in the loop's thread)."""
        self._waiting.append(request)
        if self._has_ended:
            self.end()
        else:
            self._wake()

    def take(self) -> list[ReloadRequest]:
        """Return the callers that wait so far; each is to be answered."""
        found: list[ReloadRequest] = []
        with suppress(IndexError):
            while True:
                found.append(self._waiting.popleft())
        return found

    def end(self) -> None:
        """Reload no more: tell the callers that wait, and those that come later."""
        self._has_ended = True  # first: a caller that is added meanwhile is taken here or there
        for request in self.take():
            request.answer("the daemon is stopping; the next start reads the configuration", ())
