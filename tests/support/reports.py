"""What stands in for the way to the log: it keeps the events, and may be congested."""

import threading

from netsrvd.events import DEBUG, Event
from tests.support import patience


class Reports:
    """Keeps what is reported. Any thread may report; the test thread looks."""

    level = DEBUG
    may_wait = True

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.congested = False
        self._more = threading.Condition()

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        with self._more:
            self.events.append(event)
            self._more.notify_all()

    @property
    def kinds(self) -> list[str]:
        """The names of the events' classes."""
        return [type(event).__name__ for event in self.events]

    def wait_for(self, kind: type[Event], count: int = 1) -> list[Event]:
        """Return the events of a class as soon as there are `count` of them."""

        def found() -> list[Event]:
            return [event for event in self.events if isinstance(event, kind)]

        with self._more:
            came = self._more.wait_for(lambda: len(found()) >= count, patience.SECONDS)
        assert came, f"{count} {kind.__name__} did not come, only {self.kinds}"
        return found()


class Failures:
    """What stands in for `on_failure`: keeps the name and exception of threads that failed."""

    def __init__(self) -> None:
        self.found: list[tuple[str, BaseException]] = []

    def __call__(self, name: str, error: BaseException) -> None:
        """Keep a failure."""
        self.found.append((name, error))
