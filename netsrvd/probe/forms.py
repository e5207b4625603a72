"""What every form of output offers, and how it shows times."""

from typing import Protocol

from netsrvd.probe.report import Report
from netsrvd.probe.trips import Stream, Trip


class Form(Protocol):
    """One form of output."""

    def start(self, streams: list[Stream]) -> None:
        """Say what is going to be probed."""

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Say what became of a probe."""

    def notice(self, stream: Stream, text: str) -> None:
        """Say something about a stream."""

    def tick(self) -> None:
        """Say how far it is; called twice a second."""

    def finish(self, report: Report) -> None:
        """Say the results."""

    def close(self) -> None:
        """Leave the terminal as it was; called last, also after an error."""
