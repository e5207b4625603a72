"""Output for Nagios and its like: one line with performance data, and a status from 0 to 3.

The form is that of the Monitoring Plugins Development Guidelines.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from netsrvd.errors import NetsrvdError, UsageError
from netsrvd.escapes import escaped
from netsrvd.probe.report import Figures, Report, TargetReport
from netsrvd.probe.text import MILLISECOND_NS
from netsrvd.probe.trips import Stream, Trip

OK, WARNING, CRITICAL, UNKNOWN = range(4)
NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

_PAIR = re.compile(r"([0-9]+(?:\.[0-9]+)?),([0-9]+(?:\.[0-9]+)?)%?")


class Thresholds(NamedTuple):
    """Above or at which median round trip and loss a state is reached."""

    milliseconds: float
    percent: float

    def reached(self, figures: Figures) -> bool:
        """Return whether a target has reached them; without an answer it has."""
        found = figures.round_trip
        if not found:
            return True
        slow = found.median / MILLISECOND_NS >= self.milliseconds
        return slow or 100 * figures.loss >= self.percent


def thresholds(text: str, option: str) -> Thresholds:
    """Return what `MILLISECONDS,PERCENT%` means, as check_ping(8) has it. Raises UsageError."""
    found = _PAIR.fullmatch(text)
    if not found:
        raise UsageError(f"{option} {text}: expected MILLISECONDS,PERCENT% such as 100,20%")
    return Thresholds(float(found[1]), float(found[2]))


class Nagios:
    """One line when the run is over."""

    def __init__(self, warning: Thresholds | None, critical: Thresholds | None) -> None:
        self._warning = warning
        self._critical = critical

    def start(self, streams: list[Stream]) -> None:
        """Print nothing."""

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Print nothing."""

    def notice(self, stream: Stream, text: str) -> None:
        """Print nothing."""

    def tick(self) -> None:
        """Show nothing."""

    def finish(self, report: Report) -> None:
        """Print the line."""
        status = self.status(report)
        texts = ", ".join(_text(target) for target in report.targets)
        data = " ".join(each for target in report.targets for each in self._data(report, target))
        print(f"PROBE {NAMES[status]} - {texts} | {data}")

    def close(self) -> None:
        """Do nothing: the terminal is as it was."""

    def status(self, report: Report) -> int:
        """Return the exit status: that of the worst target."""
        return max(self._status(target.figures) for target in report.targets)

    def _status(self, figures: Figures) -> int:
        if not figures.sent:
            return UNKNOWN
        if not figures.received or (self._critical and self._critical.reached(figures)):
            return CRITICAL
        return WARNING if self._warning and self._warning.reached(figures) else OK

    def _data(self, report: Report, target: TargetReport) -> Iterator[str]:
        """Yield performance data: value, warning, critical, least and most."""
        name = f"{target.target}_".replace("'", "").replace("=", "")
        start = name if len(report.targets) > 1 else ""
        found = target.figures.round_trip
        slow = ";".join(_limit(each and each.milliseconds) for each in self._both())
        lossy = ";".join(_limit(each and each.percent) for each in self._both())
        if found:
            for title, value in (("rtt", found.median), ("rtt_p99", found.p99)):
                bounds = slow if title == "rtt" else ";"
                yield f"'{start}{title}'={value / MILLISECOND_NS:.6f}ms;{bounds};0"
        yield f"'{start}loss'={100 * target.figures.loss:.6g}%;{lossy};0;100"

    def _both(self) -> tuple[Thresholds | None, Thresholds | None]:
        return self._warning, self._critical


def text_of(error: NetsrvdError) -> str:
    """Return an error as one line; what stands behind a | would be taken for performance data."""
    return escaped(str(error)).replace("|", "!")


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _text(target: TargetReport) -> str:
    figures = target.figures
    found = figures.round_trip
    median = f"median {found.median / MILLISECOND_NS:.3f} ms, " if found else ""
    return f"{target.target}: {median}loss {100 * figures.loss:.3g}%"
