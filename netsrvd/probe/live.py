"""Output as a table that changes on the terminal, drawn by rich: a row for each stream."""

import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions
from rich.live import Live as Drawing
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text as Styled

from netsrvd.escapes import blocks, encodable
from netsrvd.probe.report import Report
from netsrvd.probe.settings import Settings
from netsrvd.probe.statistics import percentile
from netsrvd.probe.text import Text, milliseconds
from netsrvd.probe.trips import State, Stream, Trip

BLOCKS = blocks()
LOSS = encodable("×", "x")  # noqa: RUF001 - as it is drawn

HISTORY = 40
"""Probes that a row shows."""

RECENT = 200
"""Round trips that the median and the percentile of a row are of."""

MOST_ROWS = 200
"""Streams that are shown. Each costs 0.4 ms a frame, of which there are two a second."""


class Row:
    """What is shown of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.history: deque[int | None] = deque(maxlen=HISTORY)
        """The last round trips, None for a loss."""
        self.recent: deque[int] = deque(maxlen=RECENT)

    def add(self, trip: Trip) -> None:
        """Take note of a probe."""
        if trip.state is State.RECEIVED:
            self.history.append(trip.round_trip_ns)
            self.recent.append(trip.round_trip_ns)
        else:
            self.history.append(None)

    def cells(self, *, with_port: bool) -> "list[str | Styled | History]":
        """Return the cells of the row."""
        stream = self.stream
        lost = stream.lost + stream.failed
        settled = stream.sent - stream.pending
        ordered = sorted(self.recent)
        last = self.history[-1] if self.history else None
        times = (last, *(percentile(ordered, share) for share in (0.0, 0.5, 0.99) if ordered))
        shown = ["-" if each is None else milliseconds(each) for each in times]
        loss = f"{100 * lost / settled:.3g}" if settled else "-"
        return [
            str(stream.target),
            *([str(stream.source_port or "")] if with_port else []),
            str(stream.sent),
            Styled(loss, style="bold red" if lost else ""),
            *(shown + ["-"] * 4)[:4],
            History(self.history),
        ]


class History:
    """The last round trips, as many as the column has room for."""

    def __init__(self, history: Iterable[int | None]) -> None:
        self._history = [*history]

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        """Tell rich how narrow and how wide it may be."""
        return Measurement(min(1, len(self._history)), min(len(self._history), options.max_width))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[Styled]:
        """Give rich what fits: the newest ones."""
        yield bars(self._history[-options.max_width :])


def bars(history: Sequence[int | None]) -> Styled:
    """Return round trips as blocks, from the least to the most of them, and losses as crosses."""
    known = [each for each in history if each is not None]
    least, most = min(known, default=0), max(known, default=0)
    step = max(1, most - least) / (len(BLOCKS) - 1)
    text = Styled()
    for each in history:
        if each is None:
            text.append(LOSS, style="red")
        else:
            text.append(BLOCKS[round((each - least) / step)])
    return text


class Live:
    """A table while the run lasts, and the summary of `Text` after it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows: dict[Stream, Row] = {}
        self._with_port = settings.streams > 1
        self._drawing = Drawing(console=Console(file=sys.stdout), auto_refresh=False)

    def start(self, streams: list[Stream]) -> None:
        """Begin to draw."""
        order = [*dict.fromkeys(stream.target for stream in streams)]
        by_target = sorted(streams, key=lambda stream: order.index(stream.target))
        self._rows = {stream: Row(stream) for stream in by_target}
        self._drawing.start()
        self.tick()
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._pause)

    def _pause(self, number: int, _frame: object) -> None:
        """Stop as the shell's job control wants it, with the cursor shown meanwhile."""
        self._drawing.stop()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # returns when the shell continues the job
        signal.signal(number, self._pause)
        self._drawing.start()

    def settle(self, stream: Stream, trip: Trip) -> None:
        """Take note of a probe."""
        self._rows[stream].add(trip)

    def notice(self, stream: Stream, text: str) -> None:
        """Show nothing: the summary counts it."""

    def tick(self) -> None:
        """Draw the table anew."""
        self._drawing.update(self.table(), refresh=True)

    def table(self) -> Table:
        """Return the table of now."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("target", overflow="ellipsis", no_wrap=True)
        for title in (*(["port"] if self._with_port else []), "sent", "loss %"):
            table.add_column(title, justify="right", no_wrap=True)
        for title in ("last ms", "min", "median", "p99"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("history")  # of all columns this one gives way to a narrow terminal
        for row in [*self._rows.values()][:MOST_ROWS]:
            table.add_row(*row.cells(with_port=self._with_port))
        left = len(self._rows) - MOST_ROWS
        table.caption = f"{left} more streams are not shown" if left > 0 else None
        return table

    def finish(self, report: Report) -> None:
        """Leave the last table, and print the summary."""
        self.tick()
        self._drawing.stop()
        print()
        Text(self._settings, quiet=True).finish(report)

    def close(self) -> None:
        """Show the cursor again."""
        if signal.getsignal(signal.SIGTSTP) == self._pause:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._drawing.stop()
