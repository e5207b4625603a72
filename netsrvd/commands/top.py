"""`netsrvd top`: what the daemon does now, drawn anew once a second on a terminal."""

import argparse
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from errno import EIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from netsrvd.commands.daemons import Conversation, Found, NotRunningError, asking, find
from netsrvd.commands.status import NOT_RUNNING
from netsrvd.commands.top_figures import ORDERS, History, first
from netsrvd.errors import ControlError, DependencyError, UsageError, failing_import
from netsrvd.escapes import DUMB, escaped

if TYPE_CHECKING:
    from netsrvd.commands.top_screen import Screen

SECONDS = 1.0
"""The time between two looks."""

SHARE = 4
"""A look that takes long is followed by a pause of as much as this times its length."""

WAKING = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTSTP)
"""Signals that the loop handles: a new size, an end, a stop of the job."""

ENDING = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT}

MOST_SOURCES = 200
"""Sources that are asked for: more than a terminal has lines."""


def run(arguments: argparse.Namespace) -> int:
    """Draw until `q`; return 0, or 3 if no daemon runs.

    Raises UsageError without a terminal, DependencyError without rich, and ControlError.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top: it needs a terminal; `netsrvd status` prints lines")
    if (term := os.environ.get("TERM")) in DUMB:
        raise UsageError(f"top: a terminal with TERM={term} cannot draw; see `netsrvd status`")
    screen = _screen()
    watch = Watch(arguments.control)
    watch.look("overview", screen.rows)
    if watch.report is None:
        if watch.error and not isinstance(watch.error, NotRunningError):
            raise watch.error
        print(f"netsrvd: {escaped(watch.problem)}", file=sys.stderr)
        return NOT_RUNNING
    with _terminal(watch) as terminal:
        _show(watch, screen, terminal)
    return os.EX_OK


def _screen() -> "Screen":
    """Return the screen. Raises DependencyError if rich is not installed."""
    try:
        from netsrvd.commands.top_screen import Screen  # noqa: PLC0415 - it imports rich, for 0.1 s
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise failing_import(error) from error
        raise DependencyError(
            "top: the Python module rich is missing: install python3-rich, or by pip: rich"
        ) from error
    return Screen()


class Watch:
    """Looks at one of the daemons, again and again. Owned by the main thread."""

    def __init__(self, path: str | None) -> None:
        """Watch the daemon of a control socket, or those that systemd knows."""
        self._path = path
        self._number = 0
        self._stack = ExitStack()
        self._daemon: Conversation | None = None
        self._found: list[Found] = []
        self.history = History()
        self.report: Mapping[str, Any] | None = None
        self.problem = ""
        self.error: ControlError | None = None
        self.rows: list[Mapping[str, Any]] = []
        self.total = 0
        self.order = ORDERS[0]

    @property
    def name(self) -> str:
        """The daemon that is watched."""
        return self._found[self._number].name if self._found else "netsrvd"

    @property
    def has_others(self) -> bool:
        """Whether there is another daemon."""
        return len(self._found) > 1

    def next(self) -> None:
        """Watch the next daemon, without what is known of this one."""
        self.close()
        self._number += 1
        self.history, self.report, self.rows, self.total = History(), None, [], 0

    def close(self) -> None:
        """End the conversation."""
        self._stack.close()
        self._daemon = None

    def interrupt(self) -> None:
        """End a look that waits for an answer, with an error (handlers of signals)."""
        if self._daemon:
            self._daemon.end()

    def look(self, view: str, rows: int) -> None:
        """Ask for the figures and for what a view lists. Without an answer `problem` is set."""
        try:
            daemon = self._daemon or self._connect()
            if daemon is None:
                return
            report = daemon.call("Status")
            self.history.add(report)
            self.report = report
            self.list(view, rows)
        except ControlError as error:
            self._failed(error)

    def list(self, view: str, rows: int) -> None:
        """Ask for what a view lists."""
        daemon = self._daemon
        if daemon is None:
            return
        try:
            if view == "connections":
                replies = daemon.replies("Connections")
                found = (each["connection"] for each in replies if each.get("connection"))
                self.rows, self.total = first(found, self.order, rows)
            elif view != "overview":
                method = "RefusedSources" if view == "refused" else "TopSources"
                self.rows = daemon.call(method, count=MOST_SOURCES)["sources"]
                self.total = len(self.rows)
            self.problem = ""
        except ControlError as error:
            self._failed(error)

    def _failed(self, error: ControlError) -> None:
        self.close()
        self.error, self.problem = error, str(error)

    def _connect(self) -> Conversation | None:
        """Connect, but only to a daemon that runs: a connection would start another one."""
        self._found = find(self._path)
        self._number %= len(self._found)
        found = self._found[self._number]
        if not found.is_running:
            self.problem = f"{found.name} does not run: {found.state}"
            return None
        self._daemon = self._stack.enter_context(asking(found))
        return self._daemon


class Terminal:
    """The keyboard, and the signals that come meanwhile."""

    def __init__(self, wakeup: int) -> None:
        self._wakeup = wakeup
        self._before = termios.tcgetattr(sys.stdin)

    def set_up(self) -> None:
        """Deliver each key at once, and echo none."""
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)

    def put_back(self) -> None:
        """Restore the modes of the terminal, unless that is gone."""
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> tuple[str, set[int]]:
        """Return the keys that were pressed and the signals that came, within a time."""
        poll = select.poll()
        poll.register(sys.stdin, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        keys, numbers = "", set[int]()
        for descriptor, _ in poll.poll(max(0.0, seconds) * 1000):
            try:
                data = os.read(descriptor, 4096)
            except OSError as error:
                if error.errno != EIO:
                    raise
                data = b""
            if descriptor == self._wakeup:
                numbers |= {*data}
            elif data:
                keys += data.decode("ascii", "replace")
            else:
                numbers.add(signal.SIGHUP)  # the terminal is gone
        return keys, numbers


@contextmanager
def _terminal(watch: Watch) -> Iterator[Terminal]:
    """Give the terminal, set up; put everything back at the end.

    The number of a signal comes by a pipe. One that ends the command also ends a look, as that may
    wait long for a daemon that does not answer.
    """

    def handle(number: int, _frame: object) -> None:
        if number in ENDING:
            watch.interrupt()

    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with ExitStack() as undo:
        undo.callback(os.close, reader)
        undo.callback(os.close, writer)
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))
        for number in WAKING:
            undo.callback(signal.signal, number, signal.signal(number, handle))
        terminal = Terminal(reader)
        undo.callback(terminal.put_back)
        terminal.set_up()
        yield terminal


def _show(watch: Watch, screen: "Screen", terminal: Terminal) -> None:
    """Draw until it is to end."""
    from netsrvd.commands.top_screen import VIEWS, Frame  # noqa: PLC0415 - imported by now

    orders = {each.key: each for each in ORDERS}
    view, due_at = "overview", monotonic() + SECONDS
    screen.open()
    try:
        while True:
            screen.draw(
                Frame(
                    name=watch.name,
                    report=watch.report,
                    problem=watch.problem,
                    view=view,
                    order=watch.order,
                    history=watch.history,
                    rows=watch.rows,
                    total=watch.total,
                    has_others=watch.has_others,
                )
            )
            keys, signals = terminal.wait(due_at - monotonic())
            if "q" in keys or signals & ENDING:
                return
            if signal.SIGTSTP in signals:
                _pause(screen, terminal)
            for key in keys:
                view = VIEWS.get(key, view)
                watch.order = orders.get(key, watch.order)
                if key == "d" and watch.has_others:
                    watch.next()
            if keys and monotonic() < due_at and watch.report is not None:
                watch.rows = []
                watch.list(view, screen.rows)
            elif monotonic() >= due_at or watch.report is None:
                began_at = monotonic()
                watch.look(view, screen.rows)
                due_at = monotonic() + max(SECONDS, SHARE * (monotonic() - began_at))
    finally:
        screen.close()
        watch.close()


def _pause(screen: "Screen", terminal: Terminal) -> None:
    """Stop as the shell's job control wants it, with the terminal put back meanwhile."""
    screen.close()
    terminal.put_back()
    noted = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)  # returns when the shell has us continue
    signal.signal(signal.SIGTSTP, noted)
    terminal.set_up()
    screen.open()
