"""What `netsrvd top` draws, by rich: a frame is as large as the terminal."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from netsrvd.addresses import shown
from netsrvd.commands.status import amount, listener_figures, refused_row, source_row
from netsrvd.commands.top_figures import (
    FIGURES,
    ORDERS,
    Figure,
    History,
    Order,
    bars,
)
from netsrvd.escapes import blocks, escaped
from netsrvd.units import span

Reply = Mapping[str, Any]

VIEWS = {"1": "overview", "2": "connections", "3": "refused", "4": "sources"}
"""Each view by its key."""

HEAD_LINES, FOOT_LINES = 4, 1
LEAST_COLUMNS, LEAST_LINES = 20, 6


class Frame(NamedTuple):
    """All that a frame shows."""

    name: str
    """The daemon that is shown."""
    report: Reply | None
    """Its answer to Status; None if it has given none."""
    problem: str
    """Why the figures are old, or nothing."""
    view: str
    order: Order
    history: History
    rows: Sequence[Reply]
    """What the view lists."""
    total: int
    """How many there are of them."""
    has_others: bool
    """Whether there are other daemons to show."""


class Screen:
    """The terminal as rich draws on it."""

    def __init__(self) -> None:
        # An exported COLUMNS or LINES would be the size for ever.
        size = ("COLUMNS", "LINES")
        environment = {name: value for name, value in os.environ.items() if name not in size}
        self._console = Console(file=sys.stdout, highlight=False, _environ=environment)
        self._blocks = blocks()
        self._live: Live | None = None

    @property
    def rows(self) -> int:
        """The number of rows that a list can have."""
        return max(1, self._console.size.height - HEAD_LINES - FOOT_LINES - 1)

    def open(self) -> None:
        """Take the whole terminal."""
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._live.start()

    def close(self) -> None:
        """Show again what was there before."""
        if self._live:
            self._live.stop()
            self._live = None

    def draw(self, frame: Frame) -> None:
        """Draw a frame in the size that the terminal has now."""
        width, height = self._console.size
        if self._live is None or width < LEAST_COLUMNS or height < LEAST_LINES:
            return
        room = height - HEAD_LINES - FOOT_LINES
        body = [*self._body(frame, width, room)]
        blank = [Text("")] * (room - sum(map(_height, body)))
        self._live.update(Group(*_head(frame), *body, *blank, _foot(frame)), refresh=True)

    def _body(self, frame: Frame, width: int, height: int) -> Iterator[Text | Table]:
        if frame.report is None:
            return
        if frame.view == "overview":
            yield from self._overview(frame, width, height)
        elif frame.view == "connections":
            title = f"{frame.total} connections, by {frame.order.title}"
            rows = map(_connection, frame.rows)
            yield from _list(title, CONNECTIONS, rows, height, frame.total)
        elif frame.view == "refused":
            title = "sources that are refused, the most often refused ones first"
            yield from _list(title, REFUSED, map(refused_row, frame.rows), height)
        else:
            title = "sources with the most live connections and flows"
            yield from _list(title, SOURCES, map(source_row, frame.rows), height)

    def _overview(self, frame: Frame, width: int, height: int) -> Iterator[Text | Table]:
        titles = max(len(each.title) for each in FIGURES)
        rates = _table(("now", "a second"), widths=(titles, 10))
        rates.show_header = False
        rates.add_column("history", no_wrap=True)
        for figure in FIGURES[:height]:
            samples = frame.history.samples[figure.title]
            history = bars(samples, width - titles - 10 - 4, self._blocks)
            rates.add_row(figure.title, _value(figure, samples), Text(history, style="cyan"))
        yield rates
        left = height - len(FIGURES) - 1
        if left >= 2:  # noqa: PLR2004 - the headings and one listener
            listeners = frame.report["listeners"] if frame.report else []
            yield Text("")
            yield from _list("", LISTENERS, map(_listener, listeners), left)


def _head(frame: Frame) -> Iterator[Text]:
    """Yield the first lines of a frame."""
    clock = time.strftime("%H:%M:%S %z")
    if frame.report is None:
        yield _line(f"{frame.name}  {clock}", "bold")
        yield _line(frame.problem, "bold red")
        yield from [Text("")] * (HEAD_LINES - 2)
        return
    report, run = frame.report, frame.report["run"]
    runs = f"runs for {span(report['seconds'])}, PID {report['pid']}"
    yield _line(f"{frame.name} {report['version']} {runs}  {clock}", "bold")
    yield _line(
        f"{report['connections']} of {run['connections_limit']} connections, "
        f"{report['flows']} flows, {run['log_records_lost']} records lost, "
        f"loop lag {1000 * run['tcp_lag']:.0f} ms tcp, {1000 * run['udp_lag']:.0f} ms udp"
    )
    fault = f"reload failed: {report['fault']}" if report["fault"] else ""
    not_in_force = f"not in force: {report['problems'][0]}" if report["problems"] else ""
    yield _line(frame.problem or fault or not_in_force, "bold red")
    yield Text("")


def _foot(frame: Frame) -> Text:
    """Return the last line of a frame: the keys."""
    line = Text(no_wrap=True, overflow="crop")
    for key, name in VIEWS.items():
        line.append(f"{key} {name}", style="reverse" if name == frame.view else "")
        line.append("  ")
    if frame.view == "connections":
        for order in ORDERS:
            line.append(f"{order.key} {order.title}", style="bold" if order == frame.order else "")
            line.append("  ")
    if frame.has_others:
        line.append("d next daemon  ")
    line.append("q quit")
    return line


def _line(text: str, style: str = "") -> Text:
    return Text(escaped(text), style=style, no_wrap=True, overflow="ellipsis")


# --- lists ------------------------------------------------------------------------------------

LISTENERS = ("listener", "service", "protocol", ">live", ">total", ">refused", ">in", ">out")
CONNECTIONS = ("client", "listener", ">age", ">idle", ">in", ">out", ">waiting")
REFUSED = ("source", "listener", "reason", ">times")
SOURCES = ("source", "listener", ">live", ">in", ">out")
"""Headings; a column of numbers, which are aligned to the right, begins with `>`."""


def _table(headings: Sequence[str], widths: Sequence[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        is_number = heading.startswith(">") or bool(widths and number)
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            width=widths[number] if widths else None,
        )
    return table


def _list(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], height: int, total: int = 0
) -> Iterator[Text | Table]:
    """Yield a list of at most `height` lines; `total` is the number of rows if some are missing."""
    if title:
        yield _line(title, "bold")
    room = height - bool(title) - 1
    table = _table(headings)
    found = [*rows]
    total = max(total, len(found))
    kept = found if total <= room else found[: room - 1]
    for row in kept:
        table.add_row(*(Text(escaped(cell)) for cell in row))
    yield table
    if len(kept) < total:
        yield _line(f"and {total - len(kept)} more")


def _height(part: Text | Table) -> int:
    """Return the lines of a part."""
    return part.row_count + part.show_header if isinstance(part, Table) else 1


def _value(figure: Figure, samples: Sequence[float]) -> str:
    if not samples:
        return "-"
    value = samples[-1]
    if figure.is_bytes:
        return amount(value)
    return f"{value:.1f}" if figure.is_rate else f"{value:.0f}"


def _listener(listener: Reply) -> tuple[str, ...]:
    name = listener["name"], listener["service"], listener["protocol"]
    return *name, *listener_figures(listener)


def _connection(one: Reply) -> tuple[str, ...]:
    return (
        *(shown(one["peer_address"], one["peer_port"]), one["listener"]),
        *(span(one["seconds"]), span(one["idle_seconds"])),
        *(amount(one[f"bytes_{way}"]) for way in ("received", "sent")),
        amount(one["send_buffer_bytes"]),
    )
