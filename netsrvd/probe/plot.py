"""A picture of a run, drawn by matplotlib: round trips over time, and their distribution."""

import os
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from netsrvd.errors import FileError, UsageError
from netsrvd.probe.report import Report, StreamReport
from netsrvd.probe.text import MILLISECOND_NS
from netsrvd.probe.trips import State, Stream

FORMS = {".png", ".svg"}

SECOND_NS = 1_000_000_000

MOST_NAMED = 10
"""Streams that have a color and a line in the legend; others are gray, unless they differ."""

INCHES = (11, 5)
DOTS_AN_INCH = 110


def checked(path: Path) -> Path:
    """Return a path whose ending names a form. Raises UsageError for another, or no folder."""
    if path.suffix not in FORMS:
        raise UsageError(f"--plot {path}: expected a name that ends in .png or .svg")
    if not path.parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")
    return path


def draw(report: Report, path: Path) -> None:
    """Draw a report into a file, all of it or nothing. Raises FileError if it cannot be written."""
    figure = Figure(figsize=INCHES, layout="constrained", dpi=DOTS_AN_INCH)
    over_time, distribution = figure.subplots(1, 2, width_ratios=(2, 1))
    streams = [each for target in report.targets for each in target.streams]
    start = min((t.sent_at_ns for each in streams for t in each.stream.trips), default=0)
    for number, each in enumerate(streams):
        color = _color(each, number, len(streams))
        _stream(over_time, distribution, each, start, color)
        _mark_losses(over_time, each.stream, start, color)
    _label(report, over_time, distribution)
    mpl.rcParams["svg.hashsalt"] = "netsrvd"  # the same input makes the same file
    file = path.resolve()
    if file.exists() and not file.is_file():  # a device or a pipe is written to, not replaced
        unfinished = file
    else:
        unfinished = file.with_name(f".netsrvd-plot-{os.getpid()}")
    try:
        figure.savefig(unfinished, format=path.suffix[1:])
        unfinished.replace(file)
    except OSError as error:
        raise FileError(f"--plot {path}: {error.strerror}") from error
    finally:
        if unfinished != file:
            unfinished.unlink(missing_ok=True)


def _color(report: StreamReport, number: int, count: int) -> str:
    if report.differs:
        return "tab:red"
    return f"C{number % 10}" if count <= MOST_NAMED else "0.6"


def _name(report: StreamReport) -> str:
    port = f", port {report.stream.source_port}" if report.stream.source_port else ""
    differs = f": {report.differs}" if report.differs else ""
    return f"{report.stream.target}{port}{differs}"


def _stream(
    over_time: Axes, distribution: Axes, report: StreamReport, start: int, color: str
) -> None:
    received = [trip for trip in report.stream.trips if trip.state is State.RECEIVED]
    moments = [(trip.sent_at_ns - start) / SECOND_NS for trip in received]
    times = [trip.round_trip_ns / MILLISECOND_NS for trip in received]
    above = 3 if report.differs else 2
    over_time.plot(moments, times, ".", color=color, markersize=4, zorder=above)
    ordered = sorted(times)
    shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
    label = _name(report) if report.differs or color != "0.6" else None
    distribution.step(ordered, shares, where="post", color=color, label=label, zorder=above)


def _mark_losses(over_time: Axes, stream: Stream, start: int, color: str) -> None:
    """Mark each loss of a stream by a cross at the bottom."""
    lost = [
        (trip.sent_at_ns - start) / SECOND_NS
        for trip in stream.trips
        if trip.state in (State.LOST, State.FAILED)
    ]
    bottom = over_time.get_xaxis_transform()
    over_time.plot(lost, [0.02] * len(lost), "x", color=color, markersize=5, transform=bottom)


def _label(report: Report, over_time: Axes, distribution: Axes) -> None:
    targets = report.targets
    title = str(targets[0].target) if len(targets) == 1 else f"{len(targets)} targets"
    sent = sum(each.figures.sent for each in targets)
    lost = sum(each.figures.lost for each in targets)
    share = 100 * lost / sent if sent else 0
    over_time.set_title(f"{title}, {report.settings.protocol}: {sent} sent, {share:.3g} % lost (×)")  # noqa: RUF001
    over_time.set_xlabel("seconds")
    over_time.set_ylabel("round trip, milliseconds")
    over_time.margins(y=0.1)
    distribution.set_title("distribution")
    distribution.set_xlabel("round trip, milliseconds")
    distribution.set_ylabel("share of the answers")
    if distribution.get_legend_handles_labels()[0]:
        distribution.legend(loc="lower right", fontsize="small")
    for axes in (over_time, distribution):
        axes.grid(visible=True, alpha=0.3)
