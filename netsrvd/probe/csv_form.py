"""Output as comma-separated values (RFC 4180): a line for each probe, as soon as it is settled."""

import csv
import sys

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
)


class CSV:
    """A heading, and a line for each probe."""

    def __init__(self, settings: Settings) -> None:
        self._has_times = settings.has_times
        self._progress = Progress(settings)
        self._writer = csv.writer(sys.stdout)

    def start(self, streams: list[Stream]) -> None:
        """Print the heading."""
        self._progress.start(streams)
        self._writer.writerow(COLUMNS)

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Print the line of a probe."""
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
                *(trip.other_address, trip.error),
            )
        )

    def notice(self, stream: Stream, text: str) -> None:
        """Print nothing: duplicates and late answers have no line."""

    def tick(self) -> None:
        """Write out what was printed; show the progress."""
        sys.stdout.flush()
        if not sys.stdout.isatty():
            self._progress.tick()

    def finish(self, _report: Report) -> None:
        """Write out the rest."""
        self._progress.end()
        sys.stdout.flush()

    def close(self) -> None:
        """Wipe the progress."""
        self._progress.end()
