"""Output as comma-separated values (RFC 4180): a line for each probe, soon after it is settled."""

import csv
import sys
from collections import deque
from time import monotonic_ns

from netsrvd.probe.report import Report
from netsrvd.probe.settings import Settings
from netsrvd.probe.text import Progress
from netsrvd.probe.trips import State, Stream, Trip

COLUMNS = (
    "target",
    "address",
    "port",
    "source_port",
    "sequence",
    "sent_at_ns",
    "state",
    "round_trip_ns",
    "out_ns",
    "back_ns",
    "reflector_ns",
    "connect_ns",
    "stamps",
    "length",
    "ttl",
    "dscp",
    "other_address",
    "error",
    "duplicates",
    "truncated",
    "damaged",
)

DUPLICATES_NS = 1_000_000_000
"""How long after a probe was sent its line waits for duplicates of the answer, which it counts."""


class CSV:
    """A heading, and a line for each probe."""

    def __init__(self, settings: Settings) -> None:
        self._has_times = settings.has_times
        self._progress = Progress(settings)
        self._writer = csv.writer(sys.stdout)
        self._settled: deque[tuple[Stream, Trip]] = deque()

    def start(self, streams: list[Stream]) -> None:
        """Print the heading."""
        self._progress.start(streams)
        self._writer.writerow(COLUMNS)

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Take note of a probe."""
        self._settled.append((stream, trip))

    def _write(self, stream: Stream, trip: Trip) -> None:
        target = stream.target
        received = trip.state is State.RECEIVED
        times: list[object] = [None] * 4
        if received:
            each_way = (trip.out_ns, trip.back_ns) if self._has_times else (None, None)
            times = [trip.round_trip_ns, *each_way, trip.reflector_ns]
        self._writer.writerow(
            (
                *(target.name, target.host, target.port, stream.source_port or None),
                *(trip.sequence, trip.kernel_sent_ns or trip.sent_at_ns, trip.state),
                *times,
                trip.connect_ns or None,
                trip.stamps if received else None,
                *(trip.length if received else None, trip.ttl, trip.dscp),
                *(trip.other_address, trip.error, trip.duplicates),
                *(int(trip.truncated), int(trip.damaged)),
            )
        )

    def notice(self, stream: Stream, text: str) -> None:
        """Print nothing: late answers and those to no probe have no line."""

    def tick(self) -> None:
        """Print the lines that need not wait any more; show the progress."""
        before_ns = monotonic_ns() - DUPLICATES_NS
        while self._settled and self._settled[0][1].sent_ns <= before_ns:
            self._write(*self._settled.popleft())
        sys.stdout.flush()
        if not sys.stdout.isatty():
            self._progress.tick()

    def finish(self, _report: Report) -> None:
        """Print the other lines."""
        for each in self._settled:
            self._write(*each)
        self._progress.end()
        sys.stdout.flush()

    def close(self) -> None:
        """Wipe the progress."""
        self._progress.end()
