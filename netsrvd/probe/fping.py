"""The command line and output of fping(8), as far as programs that call it use them.

SmokePing's probe FPing is one: `fping -C 20 -q -B1 -r1 -4 -i10 HOST …`.
"""

import argparse
import os
import sys
from typing import NoReturn

from netsrvd.errors import NetsrvdError, UsageError
from netsrvd.probe.arguments import seconds, whole
from netsrvd.probe.report import Report, TargetReport
from netsrvd.probe.settings import Settings
from netsrvd.probe.text import MILLISECOND_NS
from netsrvd.probe.trips import State, Stream, Trip

ALL_REACHED, SOME_UNREACHED, NO_ADDRESS, BAD_ARGUMENTS, SYSTEM_ERROR = range(5)
"""Exit statuses of fping(8)."""

NAME = "netsrvd probe --fping"

MOST_PROBES = 1_000_000
MOST_TOS = 255

HEADERS_BYTES = 28
"""Of IPv4 and UDP, which fping counts with those of ICMP."""


class Parser(argparse.ArgumentParser):
    """A parser that ends with the status of fping for a wrong argument."""

    def error(self, message: str) -> NoReturn:
        """Print the error, and exit."""
        self.exit(BAD_ARGUMENTS, f"{NAME}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of fping's options."""
    made = Parser(prog=NAME, allow_abbrev=False)
    counts = whole("count", 1, MOST_PROBES)
    family = made.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
    made.add_argument(
        "-C", dest="vcount", type=counts, metavar="N", help="probes, each time is shown"
    )
    made.add_argument(
        "-c", dest="count", type=counts, metavar="N", help="probes, statistics follow"
    )
    made.add_argument("-q", dest="quiet", action="store_true", help="no lines of single probes")
    sizes = whole("bytes", 0, 65507)
    made.add_argument("-b", dest="size", type=sizes, default=56, metavar="BYTES", help="payload")
    for option, name, default, text in (
        ("-t", "timeout", 0.5, "time-out"),
        ("-p", "period", 1.0, "interval"),
    ):
        made.add_argument(
            option, dest=name, type=_milliseconds, default=default, metavar="MS", help=text
        )
    made.add_argument("-i", dest="interval", type=float, metavar="MS", help="ignored")
    made.add_argument("-B", dest="backoff", type=float, help="ignored")
    made.add_argument("-r", dest="retries", type=int, help="ignored")
    made.add_argument("-S", dest="source", default="", metavar="ADDRESS", help="source address")
    made.add_argument("-I", dest="interface", default="", metavar="NAME", help="interface")
    made.add_argument("-O", dest="tos", type=_tos, metavar="TOS", help="TOS")
    made.add_argument("-H", dest="ttl", type=whole("TTL", 1, 255), metavar="N", help="TTL")
    made.add_argument("hosts", nargs="+", metavar="HOST", help="HOST or HOST:PORT")
    return made


def _milliseconds(text: str) -> float:
    """Return a number of milliseconds in seconds."""
    try:
        return seconds(f"{text}ms")
    except argparse.ArgumentTypeError:
        reason = f"expected milliseconds such as 500, not {text!r}"
        raise argparse.ArgumentTypeError(reason) from None


def _tos(text: str) -> int:
    """Return a type of service, of a decimal number or a hexadecimal one such as 0xb8."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST_TOS:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 0xff, not {text!r}")
    return value


class FPing:
    """Lines on standard output; on standard error a line of times for each target."""

    def __init__(self, settings: Settings, *, quiet: bool, times: bool) -> None:
        self._settings = settings
        self._quiet = quiet
        self._times = times
        self._width = 0
        self._totals: dict[Stream, tuple[int, int]] = {}

    def start(self, streams: list[Stream]) -> None:
        """Take note of the longest name."""
        self._width = max(len(_name(stream)) for stream in streams)

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Print the line of a probe."""
        total, received = self._totals.get(stream, (0, 0))
        if trip.state is State.RECEIVED:
            total, received = total + trip.round_trip_ns, received + 1
        self._totals[stream] = total, received
        if self._quiet:
            return
        lost = 100 * (stream.lost + stream.failed) // max(1, stream.sent - stream.pending)
        average = _time(total / received) if received else "NaN"
        name = f"{_name(stream):{self._width}} : [{trip.sequence}]"
        if trip.state is State.RECEIVED:
            what = f"{trip.length + HEADERS_BYTES} bytes, {_time(trip.round_trip_ns)} ms"
        else:
            what = "timed out"
        print(f"{name}, {what} ({average} avg, {lost}% loss)", flush=True)

    def notice(self, stream: Stream, text: str) -> None:
        """Print nothing."""

    def tick(self) -> None:
        """Show nothing."""

    def finish(self, report: Report) -> None:
        """Print the line of each target on standard error."""
        sys.stdout.flush()
        if not self._quiet:
            print(file=sys.stderr)
        for target in report.targets:
            for each in target.streams:
                line = self._times_of(each.stream) if self._times else _statistics(target)
                print(f"{_name(each.stream):{self._width}} : {line}", file=sys.stderr)

    def close(self) -> None:
        """Do nothing: the terminal is as it was."""

    def _times_of(self, stream: Stream) -> str:
        return " ".join(
            _time(trip.round_trip_ns) if trip.state is State.RECEIVED else "-"
            for trip in stream.trips
        )


def status(report: Report) -> int:
    """Return the exit status of fping."""
    return SOME_UNREACHED if report.status != os.EX_OK else ALL_REACHED


def status_of(error: NetsrvdError) -> int:
    """Return the exit status of fping for what keeps it from probing."""
    return BAD_ARGUMENTS if isinstance(error, UsageError) else SYSTEM_ERROR


def _statistics(target: TargetReport) -> str:
    figures = target.figures
    line = f"xmt/rcv/%loss = {figures.sent}/{figures.received}/{100 * figures.loss:.0f}%"
    if found := figures.round_trip:
        line += f", min/avg/max = {'/'.join(map(_time, (found.least, found.mean, found.most)))}"
    return line


def _name(stream: Stream) -> str:
    """Return the name that the caller knows: SmokePing looks its targets up by it."""
    return stream.target.given or stream.target.name


def _time(nanoseconds: float) -> str:
    """Return milliseconds with three digits, as fping has them, but not less than a microsecond."""
    value = nanoseconds / MILLISECOND_NS
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0  # noqa: PLR2004
    return f"{value:.{digits}f}"
