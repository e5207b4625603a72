"""`netsrvd status --warn … --crit …`: one line and an exit status, as monitoring plugins have them.

Ranges are those of the Monitoring Plugins Development Guidelines: `10` means 0 to 10, `10:` 10 or
more, `~:10` 10 or less, `10:20` 10 to 20, `@10:20` outside of that. A value outside of its range is
an alert.
"""

import argparse
import re
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from netsrvd.commands.daemons import Found, NotRunningError, Reply, asking, find
from netsrvd.errors import ControlError, UsageError
from netsrvd.escapes import escaped

OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

FIGURES = {
    "connections": "live connections",
    "refused": "connections and datagrams refused in the last minutes",
    "lost": "log records lost in the last minutes",
    "lag": "seconds by which a loop was late at most in the last minute",
}
"""What has thresholds, by the name that they are given with."""

UNITS = {"lag": "s"}

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_RANGE = re.compile(rf"(@?)(?:(~|{_NUMBER})?(:))?({_NUMBER})?")


class Range(NamedTuple):
    """The values that are no alert."""

    text: str
    low: float
    high: float
    is_inverse: bool

    def alerts(self, value: float) -> bool:
        """Return whether a value is an alert."""
        return (self.low <= value <= self.high) == self.is_inverse


def read_range(text: str) -> Range:
    """Return the range that a text means; raises UsageError."""
    found = _RANGE.fullmatch(text)
    if not found or not (found[2] or found[4]):
        raise UsageError(f"{text!r} is no range: 10, 10:, ~:10, 10:20 or @10:20")
    inverse, low, _, high = found.groups()
    start = -inf if low == "~" else float(low or 0)
    end = float(high) if high else inf
    if start > end:
        raise UsageError(f"{text!r} is no range: its end is below its beginning")
    return Range(text, start, end, bool(inverse))


def read(given: Iterable[str]) -> dict[str, Range]:
    """Return the ranges of `NAME=RANGE` by their names; raises UsageError."""
    found = {}
    for text in given:
        name, equals, limits = text.partition("=")
        if not equals or name not in FIGURES:
            raise UsageError(f"expected NAME=RANGE with {', '.join(FIGURES)}, not {text!r}")
        found[name] = read_range(limits)
    return found


def run(arguments: argparse.Namespace) -> int:
    """Print one line for all daemons; return the status of a monitoring plugin.

    Raises UsageError.
    """
    if arguments.json:
        raise UsageError("--json goes without --warn and --crit")
    warn, crit = read(arguments.warn), read(arguments.crit)
    try:
        found = find(arguments.control)
        states = [_judge(each, warn, crit, labelled=len(found) > 1) for each in found]
    except ControlError as error:
        print(f"NETSRVD UNKNOWN - {escaped(str(error))}")
        return UNKNOWN
    status = max((state for state, _, _ in states), key=(OK, WARNING, UNKNOWN, CRITICAL).index)
    texts = "; ".join(text for _, text, _ in states)
    figures = " ".join(each for _, _, each in states if each)
    print(f"NETSRVD {WORDS[status]} - {texts}{f' | {figures}' if figures else ''}")
    return status


def _judge(
    found: Found, warn: dict[str, Range], crit: dict[str, Range], *, labelled: bool
) -> tuple[int, str, str]:
    """Return the status of a daemon, what it is, and its performance data."""
    if not found.is_running:
        return CRITICAL, f"{found.name} does not run: {found.state}", ""
    try:
        with asking(found) as daemon:
            values = figures(daemon.call("Status"))
    except NotRunningError as error:
        return CRITICAL, escaped(str(error)), ""
    except ControlError as error:
        return UNKNOWN, escaped(str(error)), ""
    status, alerts = OK, []
    for name, value in values.items():
        for level, ranges in ((CRITICAL, crit), (WARNING, warn)):
            if name in ranges and ranges[name].alerts(value):
                status = max(status, level)
                alerts.append(f"{name} {value:g} ({WORDS[level].lower()}: {ranges[name].text})")
                break
    said = ", ".join(f"{value:g} {FIGURES[name]}" for name, value in values.items())
    prefix = f"{found.name}: " if labelled else ""
    data = " ".join(
        f"'{found.name} {name}'={_data(name, value, warn, crit)}"
        if labelled
        else f"{name}={_data(name, value, warn, crit)}"
        for name, value in values.items()
    )
    return status, prefix + ("; ".join(alerts) or said), data


def _data(name: str, value: float, warn: dict[str, Range], crit: dict[str, Range]) -> str:
    limits = ";".join(each[name].text if name in each else "" for each in (warn, crit))
    return f"{value:g}{UNITS.get(name, '')};{limits}".rstrip(";")


def figures(report: Reply) -> dict[str, float]:
    """Return the values of `FIGURES`.

    Refusals and losses are those of the longest time that the daemon has rates for; in the first
    minute they are those since its start.
    """
    run, totals = report["run"], report["totals"]
    refused = sum(totals["refused"].values()) + sum(totals["datagrams_refused"].values())
    lost = run["log_records_lost"]
    if report["rates"]:
        longest = max(report["rates"], key=lambda each: each["seconds"])
        refused = round(longest["refused"] * longest["seconds"])
        lost = round(longest["log_records_lost"] * longest["seconds"])
    return {
        "connections": report["connections"],
        "refused": refused,
        "lost": lost,
        "lag": round(max(run["tcp_lag"], run["udp_lag"]), 3),
    }
