"""`netsrvd status`: what runs, since when, whom it serves, and what it refuses or loses."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from netsrvd.addresses import shown
from netsrvd.commands import thresholds
from netsrvd.commands.daemons import (
    UPGRADED,
    CallError,
    Found,
    NotRunningError,
    Reply,
    asking,
    find,
)
from netsrvd.errors import ControlError, UsageError
from netsrvd.escapes import encodable, escaped
from netsrvd.units import span

NOT_RUNNING = 3
"""The exit status of `systemctl is-active` for a unit that is not."""

WIDEST_SOURCES = 5

REMEDIES = {
    "access": "if they may come, add them to `allow`; `netsrvd explain` names the rule",
    "source": "raise max_connections_per_source if these clients are meant to have more",
    "rate": "raise connection_rate or datagram_rate if these clients are meant to come as fast",
    "bytes": "raise byte_rate if these clients are meant to send as much",
    "budget": "all answers together have reached reply_rate: raise it if that is meant",
    "port": "refused_ports has their source ports: other services, which would answer back",
    "configuration": "they ask for addresses that no file names; run `netsrvd apply`",
    "descriptors": "raise LimitNOFILE= or lower max_connections",
    "destination": "they were sent to multicast or broadcast addresses, which is never answered",
    "sender": "their senders are addresses of no single host",
    "busy": "the handler has no thread: raise handler_threads",
    "packet": "they are no packets of the protocol that the listener serves",
    "proxy-header": "switch the PROXY protocol on in the proxy, or take it out of `proxies`",
    "proxy-long": "their PROXY headers are too long",
    "proxy-late": "no PROXY header came within proxy_timeout",
}
"""What an administrator does about refusals of each reason."""

LOST_RECORDS = (
    "the log does not take them fast enough: look at journald, raise `queue`, or set "
    'when_full = "wait"'
)
DROPPED = "they came faster than they were read: a larger SO_RCVBUF helps against bursts"
UNSENT = "the service failed or the network did not take the answers; see the log"
ERRORS = "see the log for the errors of the kernel"

BOLD, GREEN, YELLOW, RED = "1", "32", "33", "31"


def run(arguments: argparse.Namespace) -> int:
    """Print the status of each daemon; return 0 if one at least runs, 3 if none does.

    With thresholds: one line and a status as monitoring plugins have them. Raises UsageError, and
    ControlError if those that run do not answer.
    """
    if arguments.what == "connections":
        return _connections(arguments)
    if arguments.listener or arguments.address:
        raise UsageError("--listener and --address go with `netsrvd status connections`")
    if arguments.warn or arguments.crit:
        return thresholds.run(arguments)
    found = find(arguments.control)
    answers = [_asked(each) for each in found]
    errors = [each for each in answers if isinstance(each, ControlError)]
    if errors and not any(isinstance(each, dict) for each in answers):
        raise errors[0]
    reports = [
        {"problem": str(each)} if isinstance(each, ControlError) else each for each in answers
    ]
    if arguments.json:
        print(
            json.dumps({"daemons": [_as_json(*each) for each in zip(found, reports, strict=True)]})
        )
    else:
        page = Page(coloured=_has_colours())
        for number, (each, report) in enumerate(zip(found, reports, strict=True)):
            print(*[""] * bool(number), *page.lines(each, report), sep="\n")
    return os.EX_OK if any(each is not None for each in reports) else NOT_RUNNING


def _asked(found: Found) -> Reply | ControlError | None:
    """Return what a daemon says, with its sources, or why it does not; None if it does not run.

    Of one whose code was replaced only `problem` is known.
    """
    if not found.is_running:
        return None
    try:
        with asking(found) as daemon:
            report = daemon.call("Status")
            report["sources"] = daemon.call("TopSources", count=WIDEST_SOURCES)["sources"]
            report["refused_sources"] = daemon.call("RefusedSources", count=WIDEST_SOURCES)[
                "sources"
            ]
            return report
    except NotRunningError as error:
        print(f"netsrvd: {escaped(str(error))}", file=sys.stderr)
        return None
    except ControlError as error:
        upgraded = isinstance(error, CallError) and error.name == UPGRADED
        return {"problem": str(error)} if upgraded else error


def _as_json(found: Found, report: Reply | None) -> dict[str, Any]:
    return {
        "name": found.name,
        "running": report is not None,
        "state": found.state,
        "sockets": [each._asdict() for each in found.sockets],
        "status": report,
    }


def _has_colours() -> bool:
    """Return whether standard output is a terminal that is to have colours (no-color.org)."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdout.isatty() and not is_plain


# --- for people -------------------------------------------------------------------------------


class Page:
    """The text of a status, in colours or without."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured
        self._runs, self._is_off = encodable("●", "*"), encodable("○", "-")

    def lines(self, found: Found, report: Reply | None) -> Iterator[str]:
        """Yield the lines about one daemon."""
        if report is None:
            yield from self._not_running(found)
        elif "problem" in report:
            problem = escaped(report["problem"])
            yield f"{self._paint(YELLOW, self._runs)} {found.name} runs; {problem}"
            if found.status:
                yield f"  It has told systemd: {escaped(found.status)}"
        else:
            yield from self._running(found, report)

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text

    def _not_running(self, found: Found) -> Iterator[str]:
        if not found.state:
            yield f"{self._paint(RED, self._is_off)} nothing runs at {escaped(found.path)}"
            return
        since = f" since {found.since}" if found.since else ""
        yield f"{self._paint(RED, self._is_off)} {found.name} does not run: {found.state}{since}"
        listening = [each.name for each in found.sockets if each.state == "active"]
        others = [f"{each.name} ({each.state})" for each in found.sockets if each.state != "active"]
        if listening:
            yield f"  Sockets that listen, and start it when a client comes: {', '.join(listening)}"
        if others:
            yield f"  Sockets that do not listen: {', '.join(others)}"
        if not found.sockets:
            yield "  systemctl(1) as root shows the state of its sockets"
        elif not listening:
            yield f"  Nothing would start it: systemctl start {found.name}"

    def _running(self, found: Found, report: Reply) -> Iterator[str]:
        run = report["run"]
        name = "netsrvd" if not found.state else found.name
        mark = self._paint(GREEN, self._runs)
        head = self._paint(BOLD, f"{name} {escaped(report['version'])}")
        since = f"runs since {moment(run['start_time'])} ({span(report['seconds'])})"
        yield f"{mark} {head} {since}, PID {report['pid']}"
        yield from self._configuration(report)
        limit = run["connections_limit"]
        yield f"  Now: {report['connections']} of {limit} connections, {report['flows']} flows"
        for rates in report["rates"]:
            yield f"  Last {span(rates['seconds'])}: {_rates(rates)}"
        yield ""
        yield from self._table(LISTENER_HEADINGS, map(_listener_row, report["listeners"]))
        yield from self._trouble(report)
        if report["refused_sources"]:
            yield ""
            rows = map(refused_row, report["refused_sources"])
            yield from self._table(REFUSED_HEADINGS, rows)
        if report["sources"]:
            yield ""
            yield from self._table(SOURCE_HEADINGS, map(source_row, report["sources"]))

    def _configuration(self, report: Reply) -> Iterator[str]:
        read = moment(report["run"]["reload_success_time"])
        yield f"  Configuration: {escaped(report['configuration'])}, in force since {read}"
        if report["fault"]:
            text = f"Reload failed, the old configuration is in force: {escaped(report['fault'])}"
            yield self._paint(RED, f"  {text}")
            yield "    Fix the file, run `netsrvd check`, and reload."
        for problem in report["problems"]:
            yield self._paint(YELLOW, f"  Not in force: {escaped(problem)}")
            yield "    Run `netsrvd apply`."

    def _trouble(self, report: Reply) -> Iterator[str]:
        """Yield what was refused and lost since the start, and what to do."""
        found = list(_trouble(report))
        if found:
            yield ""
            yield self._paint(BOLD, "Since the start")
        for what, remedy in found:
            yield f"  {self._paint(YELLOW, escaped(what))}: {remedy}"

    def _table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """Yield aligned columns; those whose heading begins with `>` are aligned to the right."""
        titles = [each.removeprefix(">") for each in headings]
        cells = [titles, *([escaped(cell) for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for number, row in enumerate(cells):
            padded = (
                cell.rjust(width) if heading.startswith(">") else cell.ljust(width)
                for cell, width, heading in zip(row, widths, headings, strict=True)
            )
            line = "  ".join(padded).rstrip()[:columns]
            yield line if number else self._paint(BOLD, line)


def amount(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def moment(seconds: float) -> str:
    """Return a time, given in seconds since 1970, as it is here, with its distance from UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def _rates(rates: Reply) -> str:
    return (
        f"{rates['accepted']:.1f} connections, {rates['datagrams_received']:.1f} datagrams, "
        f"{rates['refused']:.1f} refusals, {amount(rates['received_bytes'])} received, "
        f"{amount(rates['sent_bytes'])} sent a second"
    )


LISTENER_HEADINGS = (
    *("LISTENER", "SERVICE", "ADDRESS", "ORIGIN", ">LIVE", ">TOTAL", ">REFUSED"),
    *(">RECEIVED", ">SENT"),
)
SOURCE_HEADINGS = ("WIDEST SOURCE", "LISTENER", ">LIVE", ">RECEIVED", ">SENT")
REFUSED_HEADINGS = ("REFUSED SOURCE", "LISTENER", "REASON", ">TIMES")


def _listener_row(listener: Reply) -> tuple[str, ...]:
    addresses = [shown(each["host"], each["port"]) for each in listener["addresses"]]
    origins = dict.fromkeys(each["origin"] for each in listener["addresses"])
    return (
        listener["name"],
        listener["service"],
        f"{listener['protocol']} {', '.join(addresses) or '(closed)'}",
        ", ".join({"bound": "own"}.get(each, each) for each in origins) or "-",
        *listener_figures(listener),
    )


def listener_figures(listener: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of what is live, what came, what was refused, received and sent."""
    counters, gauges = listener["counters"], listener["gauges"]
    is_tcp = listener["protocol"] == "tcp"
    return (
        str(gauges["connections" if is_tcp else "flows_live"]),
        str(counters["accepted" if is_tcp else "datagrams_received"]),
        str(sum(counters["refused" if is_tcp else "datagrams_refused"].values())),
        amount(counters["bytes_received"]),
        amount(counters["bytes_sent"]),
    )


def source_row(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a source that has connections or flows."""
    return (
        source["source"],
        f"{source['listener']} {source['protocol']}",
        str(source["live"]),
        amount(source["bytes_received"]),
        amount(source["bytes_sent"]),
    )


def refused_row(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a source that is refused."""
    return (
        source["source"],
        f"{source['listener']} {source['protocol']}",
        source["reason"],
        str(source["times"]),
    )


def _trouble(report: Reply) -> Iterator[tuple[str, str]]:
    """Yield what was refused or lost, each with what to do about it."""
    for listener in report["listeners"]:
        counters, where = listener["counters"], f"{listener['name']} {listener['protocol']}"
        for name, what in (("refused", "connections"), ("datagrams_refused", "datagrams")):
            for reason, count in counters.get(name, {}).items():
                if count:
                    yield (
                        f"{where}: {count} {what} refused, {reason}",
                        REMEDIES.get(reason, "see the log"),
                    )
        for name, what, remedy in (
            ("accept_errors", "errors of accept", ERRORS),
            ("receive_errors", "errors of receiving", ERRORS),
            ("datagrams_dropped", "datagrams dropped by the kernel", DROPPED),
            ("datagrams_unsent", "answers not sent", UNSENT),
        ):
            if count := counters.get(name, 0):
                yield f"{where}: {count} {what}", remedy
    if lost := report["run"]["log_records_lost"]:
        yield f"{lost} log records lost", LOST_RECORDS
    if lost := report["run"]["connections_lost"]:
        yield f"{lost} connections lost at the restart", "see the log"


# --- connections ------------------------------------------------------------------------------

CONNECTION_HEADINGS = (
    *("CLIENT", "LISTENER", "LOCAL", "AGE", "IDLE", "RECEIVED", "SENT", "WAITING", "ID"),
)
WIDTHS = (28, 14, 24, 12, 12, 11, 11, 11, 0)


def _connections(arguments: argparse.Namespace) -> int:
    """Print the live connections of each daemon, one a line.

    All are received before the first is printed: the daemon waits for no pager.
    """
    if arguments.warn or arguments.crit:
        raise UsageError("--warn and --crit go without `connections`")
    found = [each for each in find(arguments.control) if each.is_running]
    if not found:
        print("netsrvd: no daemon runs", file=sys.stderr)
        return NOT_RUNNING
    lines = [] if arguments.json else [_line(CONNECTION_HEADINGS)]
    for each in found:
        try:
            with asking(each) as daemon:
                live = _live(daemon.replies, arguments)
                lines += [_connection_line(one, each.name, as_json=arguments.json) for one in live]
        except NotRunningError as error:
            print(f"netsrvd: {escaped(str(error))}", file=sys.stderr)
            return NOT_RUNNING
    for line in lines:
        print(line)
    return os.EX_OK


def _live(replies: Any, arguments: argparse.Namespace) -> Iterator[Reply]:
    chosen = {"listener": arguments.listener, "address": arguments.address}
    for reply in replies("Connections", **chosen):
        if reply.get("connection"):
            yield reply["connection"]


def _connection_line(one: Reply, daemon: str, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"daemon": daemon, **one})
    return _line(
        (
            shown(one["peer_address"], one["peer_port"]),
            one["listener"],
            shown(one["local_address"], one["local_port"]),
            span(one["seconds"]),
            span(one["idle_seconds"]),
            amount(one["bytes_received"]),
            amount(one["bytes_sent"]),
            amount(one["send_buffer_bytes"]),
            one["id"] + (f" by {one['proxy']}" if one["proxy"] else ""),
        )
    )


def _line(cells: Sequence[str]) -> str:
    padded = (escaped(cell).ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))
    return " ".join(padded).rstrip()
