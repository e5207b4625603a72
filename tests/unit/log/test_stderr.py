"""netsrvd.log.stderr"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator

import pytest

from netsrvd.events import DEBUG, ERROR, INFO, NOTICE, WARNING
from netsrvd.log.records import Record
from netsrvd.log.stderr import (
    StderrLog,
    for_files,
    for_people,
    for_systemd,
    is_journal,
)
from tests.support.listening import failure

PLAIN = Record(INFO, "0" * 32, "hällo", ())
TRACED = Record(ERROR, "0" * 32, "failed", (("NETSRVD_TRACEBACK", "one\ntwo"),))
LONG = Record(ERROR, "0" * 32, "x" * 5000, (("NETSRVD_TRACEBACK", "y" * 5000),))


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Return the ends of a pipe to the journal, with room for one page."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def failing_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have write(2) fail until it is undone."""

    def write(descriptor: int, data: bytes) -> int:
        raise failure(number)

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize(
    ("priority", "word"),
    [
        (ERROR, "\x1b[31merror  \x1b[0m"),
        (WARNING, "\x1b[33mwarning\x1b[0m"),
        (NOTICE, "\x1b[1mnotice \x1b[0m"),
        (INFO, "info   "),
        (DEBUG, "debug  "),
    ],
)
def test_people_get_the_time_and_a_word(priority: int, word: str) -> None:
    """On a terminal a record is the time to the millisecond, its priority in colour, its text."""
    line = for_people(PLAIN._replace(priority=priority), 1_000_000.25)
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.250 (.*) hällo\n", line)
    assert word in line


def test_people_get_the_traceback_below() -> None:
    """The lines of a traceback follow, set in."""
    assert for_people(TRACED, 0.0).endswith(" failed\n    one\n    two\n")


def test_systemd_gets_the_priority_of_each_line() -> None:
    """Not on a terminal, each line has the prefix by which systemd knows its priority."""
    assert for_systemd(PLAIN, 0.0) == "<6>hällo\n"
    assert for_systemd(TRACED, 0.0) == "<3>failed\n<3>    one\n<3>    two\n"


def test_files_get_the_date_too() -> None:
    """Where nobody adds a time each line has it, with the date and the zone, behind the prefix."""
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.250[+-]\d\d:\d\d"
    assert re.fullmatch(rf"<6>{stamp} hällo\n", for_files(PLAIN, 1_000_000.25))
    lines = for_files(TRACED, 0.25).splitlines()
    assert [re.fullmatch(rf"<3>{stamp} (.*)", line)[1] for line in lines] == [
        *("failed", "    one", "    two")
    ]


def test_a_pipe_is_no_journal(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    """Unless systemd says so; a descriptor that is closed is none either."""
    assert is_journal(pipe[1])
    assert not is_journal(-1)
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not is_journal(pipe[1])
    assert StderrLog(pipe[1]).write(PLAIN)
    assert re.match(r"<6>\d{4}-\d\d-", os.read(pipe[0], 4096).decode())


def test_the_journal_is_for_systemd(pipe: tuple[int, int]) -> None:
    """It gets the prefixes alone; it is left open at the end, for others."""
    log = StderrLog(pipe[1])
    assert log.write(PLAIN)
    log.close()
    assert os.read(pipe[0], 4096).decode() == "<6>hällo\n"


def test_a_terminal_is_for_people() -> None:
    """A terminal gets the form for people."""
    controller, terminal = os.openpty()
    try:
        assert StderrLog(terminal).write(PLAIN)
        assert b" info    h" in os.read(controller, 4096)
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_pipe_that_nobody_reads_stops_nobody(pipe: tuple[int, int]) -> None:
    """A full pipe is an answer, not a wait; the record is offered again."""
    log = StderrLog(pipe[1])
    os.write(pipe[1], b"x" * 4096)
    assert not log.write(PLAIN)
    log.wait(0)
    os.read(pipe[0], 4096)
    assert log.write(PLAIN)
    assert os.read(pipe[0], 4096).decode() == "<6>hällo\n"


def test_a_long_record_is_written_by_and_by(pipe: tuple[int, int]) -> None:
    """What is longer than the room in the pipe goes on where it was when there is room again."""
    log, text = StderrLog(pipe[1]), ""
    for record in (LONG, PLAIN):
        while not log.write(record):
            text += os.read(pipe[0], 4096).decode()
    text += os.read(pipe[0], 4096).decode()
    assert text == for_systemd(LONG, 0.0) + for_systemd(PLAIN, 0.0)


def test_nothing_of_a_record_that_failed_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    """A record that cannot be written is raised once, to be counted; the next one is itself."""
    log = StderrLog(pipe[1])
    failing_write(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        log.write(LONG)
    monkeypatch.undo()
    assert log.write(PLAIN)
    assert os.read(pipe[0], 4096).decode() == "<6>hällo\n"


def test_a_pipe_that_others_made_non_blocking_is_just_full(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    """Standard error is shared with whoever started us; its mode may be theirs."""
    log = StderrLog(pipe[1])
    failing_write(monkeypatch, errno.EAGAIN)
    assert not log.write(PLAIN)
    monkeypatch.undo()
    assert log.write(PLAIN)
