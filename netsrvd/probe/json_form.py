"""Output as one JSON object. Its version goes up with each change that is no addition."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from netsrvd.probe.report import Figures, Report, StreamReport, TargetReport
from netsrvd.probe.settings import Settings
from netsrvd.probe.text import Progress
from netsrvd.probe.trips import State, Stream, Trip

FORMAT, VERSION = "netsrvd-probe", 1

TRIP_FIELDS = (
    "round_trip_ns",
    "reflector_ns",
    "stamps",
    "length",
    "ttl",
    "dscp",
    "reflector_ttl",
    "reflector_dscp",
    "reflector_count",
)
"""What a round trip has, if it was received; the others are below."""


class JSON:
    """One object when the run is over."""

    def __init__(self, settings: Settings) -> None:
        self._progress = Progress(settings)

    def start(self, streams: list[Stream]) -> None:
        """Begin to show the progress."""
        self._progress.start(streams)

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Print nothing: all is printed in the end."""

    def notice(self, stream: Stream, text: str) -> None:
        """Print nothing: counts tell it in the end."""

    def tick(self) -> None:
        """Show the progress."""
        self._progress.tick()

    def finish(self, report: Report) -> None:
        """Print the object."""
        self._progress.end()
        print(json.dumps(shape(report), indent=1))

    def close(self) -> None:
        """Wipe the progress."""
        self._progress.end()


def shape(report: Report) -> dict[str, object]:
    """Return a report as JSON has it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "began_at": _moment(report.began_at),
        "ended_at": _moment(report.ended_at),
        "interrupted": report.interrupted,
        "most_late_seconds": report.most_late_seconds,
        "configuration": configuration(report.settings),
        "targets": [_target(report.settings, target) for target in report.targets],
    }


def configuration(settings: Settings) -> dict[str, object]:
    """Return the settings, of the key only whether there is one."""
    found = settings._asdict()
    found["authenticated"] = found.pop("key") is not None
    return found


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def _target(settings: Settings, target: TargetReport) -> dict[str, object]:
    return {
        "name": target.target.name,
        "address": target.target.host,
        "port": target.target.port,
        "statistics": figures(target.figures),
        "rate_limit": target.limit._asdict() if target.limit else None,
        "streams": [_stream(settings, each) for each in target.streams],
    }


def _stream(settings: Settings, report: StreamReport) -> dict[str, object]:
    return {
        "source_port": report.stream.source_port or None,
        "differs": report.differs or None,
        "statistics": figures(report.figures),
        "round_trips": [trip(settings, each) for each in report.stream.trips],
    }


def figures(found: Figures) -> dict[str, object]:
    """Return figures as JSON has them; times are in nanoseconds."""
    return dict(_figures(found)) | {"loss": found.loss}


def _figures(found: Figures) -> Iterator[tuple[str, object]]:
    for name, value in found._asdict().items():
        if name == "offset":
            bounds = value and {**value._asdict(), "agree": value.agree}
            yield "clock_offset", bounds
        elif hasattr(value, "_asdict"):
            yield name, value._asdict()
        else:
            yield name, value


def trip(settings: Settings, found: Trip) -> dict[str, object]:
    """Return one probe as JSON has it."""
    shown: dict[str, object] = {
        "sequence": found.sequence,
        "sent_at_ns": found.kernel_sent_ns or found.sent_at_ns,
        "state": found.state,
    }
    if found.state is State.RECEIVED:
        shown |= {name: getattr(found, name) for name in TRIP_FIELDS}
        if settings.has_times:
            shown |= {"out_ns": found.out_ns, "back_ns": found.back_ns}
    for name in ("connect_ns", "duplicates", "truncated", "damaged", "other_address", "error"):
        if value := getattr(found, name):
            shown[name] = value
    if found.remote_clock:
        shown["clock_ns"] = found.remote_clock
    return shown
