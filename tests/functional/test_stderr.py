"""What is written to standard error: for systemd on a pipe, for people on a terminal."""

import os
import re
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.clients import ended, serves, talking
from tests.support.run import PATIENCE, STAMPED, failing_echo

EVIL = b"\x1b[2J\x1b]0;title\x07\r\n<0>forged: record\n\x85\xff"
"""What would clear a terminal, name its window and forge a record, if it got there."""

SAYS_WHAT_IT_GOT = failing_echo('data != b"hello"', 'ValueError(data.decode("latin-1"))')


class Terminal:
    """The other side of a pseudo-terminal, and what was shown there."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self.shown = b""

    def wait(self, text: bytes) -> None:
        """Return when `text` has been shown."""
        deadline = monotonic() + PATIENCE
        while text not in self.shown:
            left = deadline - monotonic()
            assert select.select([self.ours], [], [], max(0, left))[0], self.shown
            self.shown += os.read(self.ours, 65536)

    def close(self) -> None:
        """Close both sides."""
        for descriptor in (self.ours, self.theirs):
            with suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A pseudo-terminal."""
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_people_see_the_time_and_no_prefixes(terminal: Terminal, start: Start) -> None:
    """On a terminal each line has a clock and a word instead of a priority for systemd."""
    run = start(stderr=terminal.theirs)
    with talking(run.port):
        terminal.wait(b" connected to ")
    terminal.wait(b" closed: client")
    run.end()
    terminal.wait(b"stopped after ")
    lines = terminal.shown.decode().splitlines()
    clock = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (info|\x1b\[1mnotice)")
    assert [line for line in lines if not clock.match(line)] == []


def test_peers_cannot_command_a_terminal(terminal: Terminal, start: Start) -> None:
    """What a peer sent, even in a traceback, is shown as escapes; only our colours are raw."""
    run = start(stderr=terminal.theirs, planted=SAYS_WHAT_IT_GOT)
    with talking(run.port) as sock:
        sock.sendall(EVIL)
        assert ended(sock)
    terminal.wait(b" closed: error")
    assert b"\\x1b[2J" in terminal.shown
    without_colours = re.sub(rb"\x1b\[(?:1|31|33|0)m", b"", terminal.shown)
    lines = without_colours.decode().split("\r\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert b"\n<0>" not in terminal.shown


def test_peers_cannot_forge_a_record(start: Start) -> None:
    """On a pipe every line begins with our own prefix, also within a traceback."""
    run = start(planted=SAYS_WHAT_IT_GOT)
    with talking(run.port) as sock:
        sock.sendall(EVIL)
        assert ended(sock)
    run.wait_line("closed: error")
    assert run.lines_with("<3>    ValueError: \\x1b[2J")
    assert run.lines_with("<3>    <0>forged: record")
    assert [line for line in run.lines if line.startswith("<0>") or not line.isprintable()] == []


def test_files_get_the_date_and_the_time(start: Start) -> None:
    """Where standard error is neither a terminal nor the journal each line has the time, also those
    of a traceback; nobody else would add it.
    """
    run = start(planted=SAYS_WHAT_IT_GOT)
    with talking(run.port) as sock:
        sock.sendall(EVIL)
        assert ended(sock)
    run.wait_line("closed: error")
    assert [line for line in run.said if not STAMPED.match(line)] == []
    [line] = [line for line in run.said if "ready: " in line]
    stamp = STAMPED.match(line)
    assert stamp
    assert abs(datetime.fromisoformat(stamp[2]).timestamp() - time.time()) < PATIENCE


def test_a_terminal_that_goes_away_stops_nothing(terminal: Terminal, start: Start) -> None:
    """When the window is closed the records are lost, and clients are served."""
    run = start(stderr=terminal.theirs)
    terminal.wait(b"ready: ")
    terminal.close()
    assert serves(run.port)


def test_a_pipe_that_nobody_reads_stops_nothing(start: Start) -> None:
    """With a full pipe clients are served; the records come when it is read again."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    run = start(stderr=writer)
    os.close(writer)
    for _ in range(5):
        assert serves(run.port)
    run.settle()
    said = os.read(reader, 1 << 20)
    run.end()
    os.set_blocking(reader, False)
    while part := os.read(reader, 1 << 20):
        said += part
    os.close(reader)
    assert said.count(b" connected to ") == 10
    assert b"records lost" in said.splitlines()[-1]


def test_a_pipe_whose_reader_is_gone_stops_nothing(start: Start) -> None:
    """A broken pipe loses the records, counts them and ends nothing."""
    reader, writer = os.pipe()
    run = start(stderr=writer, environment={"WATCHDOG_USEC": "200000"})
    os.close(writer)
    os.close(reader)
    assert serves(run.port)
    run.wait(
        lambda: not run.notices_with("STATUS")[-1]["STATUS"].endswith(", 0 records lost"),
        "count of losses",
    )
