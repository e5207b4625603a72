"""Output for people: a line for each probe, and a summary."""

import sys
from collections import Counter
from collections.abc import Iterator
from time import monotonic

from netsrvd.escapes import escaped
from netsrvd.probe.report import Figures, Report, StreamReport, TargetReport
from netsrvd.probe.settings import Protocol, Settings
from netsrvd.probe.statistics import Offset, Summary
from netsrvd.probe.trips import State, Stream, Trip

MILLISECOND_NS = 1_000_000

HEADINGS = ("min", "mean", "median", "p95", "p99", "max", "deviation")

ROWS = (
    ("round trip", "round_trip"),
    ("PDV", "delay_variation"),
    ("IPDV", "packet_variation"),
    ("out", "out"),
    ("out, IPDV", "out_variation"),
    ("back", "back"),
    ("back, IPDV", "back_variation"),
    ("in the reflector", "reflector"),
    ("connect", "connect"),
)
"""The rows of the table, with their fields of `Figures`."""

PROGRESS_SECONDS = 1.0

MOST_NOTICES = 10
"""Lines between two ticks about duplicates, late answers and datagrams that answer no probe: a host
may send any number of them. The summary counts all.
"""

MOST_VALUES = 10
"""Different errors, addresses and values of a header that a summary shows, the most frequent ones.
"""


def milliseconds(nanoseconds: float) -> str:
    """Return a time in milliseconds with three decimals."""
    return f"{nanoseconds / MILLISECOND_NS:.3f}"


class Text:
    """Lines and a summary; with `quiet` the summary alone, and the progress on a terminal."""

    def __init__(self, settings: Settings, *, quiet: bool) -> None:
        self._settings = settings
        self._quiet = quiet
        self._progress = Progress(settings)
        self._notices = 0
        """Since the last tick."""

    def start(self, streams: list[Stream]) -> None:
        """Say what is going to be probed."""
        self._progress.start(streams)
        if self._quiet:
            return
        ports = self._settings.streams
        what = f"{self._settings.protocol}, {self._settings.size_bytes} bytes"
        if self._settings.protocol in (Protocol.TIME, Protocol.DAYTIME):
            what = f"{self._settings.protocol}"
        rhythm = "on average every" if self._settings.poisson else "every"
        for target in dict.fromkeys(stream.target for stream in streams):
            print(
                f"probing {target}: {what}"
                + (f", from {ports} ports" if ports > 1 else "")
                + f", {rhythm} {self._settings.interval_seconds:g} s"
            )

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Print a line for a probe."""
        if not self._quiet:
            print(f"{self._label(stream)}: seq {trip.sequence}: {outcome(trip, self._settings)}")

    def notice(self, stream: Stream, text: str) -> None:
        """Print a line about a stream, unless there were many."""
        self._notices += 1
        if not self._quiet and self._notices <= MOST_NOTICES:
            print(f"{self._label(stream)}: {text}")

    def _label(self, stream: Stream) -> str:
        if self._settings.streams == 1:
            return str(stream.target)
        return f"{stream.target} from port {stream.source_port}"

    def tick(self) -> None:
        """Write out what was printed; show the progress."""
        if self._quiet:
            self._progress.tick()
            return
        self._end_notices()
        sys.stdout.flush()

    def _end_notices(self) -> None:
        """Say how many lines about streams were left out."""
        if self._notices > MOST_NOTICES and not self._quiet:
            print(f"and {self._notices - MOST_NOTICES} answers more that no probe waited for")
        self._notices = 0

    def finish(self, report: Report) -> None:
        """Print the summary."""
        self._end_notices()
        self._progress.end()
        for target in report.targets:
            if not self._quiet or target is not report.targets[0]:
                print()
            print("\n".join(summary_lines(report, target)))
        if report.most_late_seconds > report.settings.interval_seconds:
            late = f"{1000 * report.most_late_seconds:.3g} ms"
            print(f"\nthis host was too slow for the interval: probes were sent up to {late} late")

    def close(self) -> None:
        """Wipe the progress."""
        self._progress.end()


class Progress:
    """A line on standard error, if that is a terminal, that says how far a run is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._streams: list[Stream] = []
        self._shown = ""
        self._next_at = 0.0

    def start(self, streams: list[Stream]) -> None:
        """Take note of the streams."""
        self._streams = streams

    def tick(self) -> None:
        """Show the line, at most once a second."""
        if not sys.stderr.isatty() or (now := monotonic()) < self._next_at:
            return
        self._next_at = now + PROGRESS_SECONDS
        sent = sum(stream.sent for stream in self._streams)
        lost = sum(stream.lost + stream.failed for stream in self._streams)
        every = self._settings.probe_count * len(self._streams)
        self._write(f"{sent} of {every} probes, {lost} lost" if every else f"{sent}, {lost} lost")

    def end(self) -> None:
        """Wipe the line."""
        if self._shown:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r{text:{len(self._shown)}}\r", end="", file=sys.stderr, flush=True)
        self._shown = text


def outcome(trip: Trip, settings: Settings) -> str:
    """Return what became of a probe, in words."""
    if trip.state is State.LOST:
        return f"lost: no answer in {settings.timeout_seconds:g} s"
    if trip.state is State.FAILED:
        return f"failed: {escaped(trip.error)}"
    parts = [f"{milliseconds(trip.round_trip_ns)} ms"]
    if trip.out_ns is not None and settings.has_times:
        parts.append(f"out {milliseconds(trip.out_ns)}, back {milliseconds(trip.back_ns or 0)}")
    if trip.connect_ns:
        parts.append(f"connect {milliseconds(trip.connect_ns)}")
    if trip.ttl is not None:
        parts.append(f"TTL {trip.ttl}")
    if trip.dscp:
        parts.append(f"DSCP {trip.dscp}")
    if trip.other_address:
        parts.append(f"answered by {trip.other_address}")
    if trip.truncated:
        parts.append(f"truncated to {trip.length} bytes")
    if trip.damaged:
        parts.append("other bytes than were sent")
    return ", ".join(parts)


def summary_lines(report: Report, target: TargetReport) -> Iterator[str]:
    """Yield the summary of a target."""
    settings, figures = report.settings, target.figures
    yield f"--- {target.target}, {settings.protocol} ---"
    yield counts(figures)
    yield from _table(figures)
    yield from remarks(settings, target)
    if len(target.streams) > 1:
        yield ""
        yield from _stream_lines(target)


def counts(figures: Figures) -> str:
    """Return how many probes were sent, and what became of them."""
    parts = [
        f"{figures.sent} sent",
        f"{figures.received} received",
        f"{figures.lost} lost ({100 * figures.loss:.3g} %)",
    ]
    names = ("failed", "duplicates", "late", "unsolicited", "truncated", "damaged")
    parts += [f"{value} {name}" for name in names if (value := getattr(figures, name))]
    if figures.reordering.reordered:
        reordering = figures.reordering
        parts.append(f"{reordering.reordered} reordered by up to {reordering.extent}")
    return ", ".join(parts)


def _table(figures: Figures) -> Iterator[str]:
    """Yield the distributions, in milliseconds."""
    rows = [(title, getattr(figures, name)) for title, name in ROWS]
    rows = [(title, found) for title, found in rows if found]
    if not rows:
        return
    if figures.offset and not figures.offset.agree:  # delays each way would be those of the clocks
        rows = [each for each in rows if each[0] not in ("out", "back")]
    width = max(len("milliseconds"), *(len(title) for title, _ in rows))
    cells = [(title, [*map(milliseconds, _shown(found))]) for title, found in rows]
    columns = [max(9, *(len(each[index]) for _, each in cells)) for index in range(len(HEADINGS))]
    yield "  ".join([f"{'milliseconds':{width}}", *map(str.rjust, HEADINGS, columns)])
    for title, numbers in cells:
        yield "  ".join([f"{title:{width}}", *map(str.rjust, numbers, columns)])


def _shown(found: Summary) -> tuple[float, ...]:
    return (*found[1:],)


def remarks(settings: Settings, target: TargetReport) -> Iterator[str]:
    """Yield what the figures mean."""
    figures = target.figures
    if figures.received:
        yield _stamps(figures)
    if figures.offset:
        yield clocks(settings, figures, figures.offset)
    if settings.protocol in (Protocol.STAMP, Protocol.ECHOPLUS):
        yield _loss_each_way(figures)
    yield from _path(figures)
    yield from _faults(figures)
    if target.limit:
        yield (
            f"the target seems to limit the rate: after {target.limit.burst} answers without loss "
            f"it gives about {target.limit.per_second:.3g} a second; probe with a longer --interval"
        )
    if figures.dropped:
        yield f"dropped by this host, which was too slow to take them: {figures.dropped} answers"
    if figures.forgotten:
        yield f"times are those of the last probes: {figures.forgotten} earlier ones are left out"


def _path(figures: Figures) -> Iterator[str]:
    """Yield what the headers of packets tell."""
    for title, found in (
        ("TTL of answers", figures.ttls),
        ("DSCP of answers", figures.dscps),
        ("TTL at the reflector", figures.reflector_ttls),
        ("DSCP at the reflector", figures.reflector_dscps),
    ):
        # A DSCP of 0 is the usual one; that of a probe is only told where it was asked for.
        if any(found) or (title.endswith("reflector") and found):
            yield f"{title}: {_spread(found)}"
    if figures.addresses:
        yield f"answers from other addresses: {_spread(figures.addresses)}"


def _faults(figures: Figures) -> Iterator[str]:
    """Yield what hosts and connections have reported."""
    for error, count in figures.errors.most_common(MOST_VALUES):
        yield f"failed: {escaped(error)}: {count}"
    for text, count in figures.half_closes.most_common():
        yield f"half-close: {text}" + (f" ({count} connections)" if count > 1 else "")


def _stamps(figures: Figures) -> str:
    kernel, program = figures.stamps["kernel"], figures.stamps["program"]
    if not program:
        return "stamps: kernel"
    if not kernel:
        return "stamps: program; times include its own delays"
    return f"stamps: kernel for {kernel} round trips, program for {program}"


def clocks(settings: Settings, figures: Figures, offset: Offset) -> str:
    """Return how the two clocks compare."""
    low, high = offset.least_ns, offset.most_ns
    said = ""
    if figures.synchronised is not None:
        state = "synchronised" if figures.synchronised else "not synchronised"
        said = f"; the reflector says that its clock is {state}"
    if not offset.is_consistent:
        return f"clocks: their difference has changed during the run{said}"
    span = f"{milliseconds(low)} to {milliseconds(high)} ms"
    if settings.protocol in (Protocol.TIME, Protocol.DAYTIME):
        return f"clock: the target's is {span} ahead" + (", so it may be right" * offset.agree)
    if offset.agree:
        return f"clocks agree as far as delays can tell: they differ by {span}{said}"
    return f"clocks differ: the reflector's is {span} ahead; delays each way are unknown{said}"


def _loss_each_way(figures: Figures) -> str:
    if not figures.lost:
        return "loss each way: none"
    found = figures.directions
    if not figures.received:
        return "loss each way: unknown, as there was no answer in time"
    if found is None and figures.answered_again:
        return "loss each way: unknown, as probes came to the reflector more than once"
    if found is None:
        return "loss each way: unknown, as the reflector does not count for this stream"
    late = f", {found.undecided} undecided" if found.undecided else ""
    return f"loss each way: {found.out} on the way out, {found.back} on the way back{late}"


def _spread(found: Counter[int] | Counter[str]) -> str:
    """Return the most frequent values of a counter, with their counts if there are several."""
    if len(found) == 1:
        return str(next(iter(found)))
    shown = sorted(found.most_common(MOST_VALUES))
    left = len(found) - len(shown)
    more = f" and {left} others" if left else ""
    return ", ".join(f"{value} ({count})" for value, count in shown) + more


def _stream_lines(target: TargetReport) -> Iterator[str]:
    """Yield a line for each stream of a target."""
    yield f"{'port':>5}  {'sent':>7}  {'loss':>7}" + "".join(
        f"  {title:>9}" for title in ("min", "median", "p99", "max")
    )
    for each in target.streams:
        yield stream_line(each)


def stream_line(report: StreamReport) -> str:
    """Return the line of one stream."""
    figures = report.figures
    found = figures.round_trip
    numbers = (found.least, found.median, found.p99, found.most) if found else ()
    cells = [milliseconds(each) for each in numbers] or ["-"] * 4
    line = f"{report.stream.source_port:>5}  {figures.sent:>7}  {100 * figures.loss:>5.3g} %"
    line += "".join(f"  {cell:>9}" for cell in cells)
    if figures.lost and (each_way := figures.directions):
        line += f"  lost: {each_way.out} out, {each_way.back} back"
    return line + (f"  <- {report.differs}" if report.differs else "")
