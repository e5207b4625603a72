"""Writes records to standard error: for people on a terminal, for systemd otherwise."""

import os
import select
import time

from netsrvd.events import DEBUG, ERROR, INFO, NOTICE, WARNING
from netsrvd.reporting.records import Record

WORDS = {ERROR: "error", WARNING: "warning", NOTICE: "notice", INFO: "info", DEBUG: "debug"}
COLOURS = {ERROR: "\x1b[31m", WARNING: "\x1b[33m", NOTICE: "\x1b[1m"}
PLAIN = "\x1b[0m"


class StderrLog:
    """Standard error. Owned by the reporter's thread, which alone waits if nobody reads it."""

    name = "stderr"
    __slots__ = ("_descriptor", "_write")

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._write = for_people if os.isatty(descriptor) else for_systemd

    def write(self, record: Record) -> bool:
        """Write one record; False if it was not taken now and must be offered again.

        A pipe that is writable takes PIPE_BUF bytes at once without blocking (pipe(7)).
        """
        if not self._writable(0.0):
            return False
        data = self._write(record, time.time()).encode()
        while data:
            data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
            if data:
                self._writable(None)
        return True

    def wait(self, seconds: float) -> None:
        """Wait until it may take more, at most so long."""
        self._writable(seconds)

    def close(self) -> None:
        """Leave standard error open for others."""

    def _writable(self, seconds: float | None) -> bool:
        return bool(select.select((), (self._descriptor,), (), seconds)[1])


def for_people(record: Record, now: float) -> str:
    """Return the lines of a record for a terminal."""
    colour = COLOURS.get(record.priority, "")
    clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"
    word = f"{WORDS[record.priority]:7}"
    head = f"{clock} {colour + word + PLAIN if colour else word} {record.text}\n"
    return head + "".join(f"    {line}\n" for line in record.traceback().splitlines())


def for_systemd(record: Record, now: float) -> str:  # noqa: ARG001 - the journal has its own clock
    """Return the lines of a record with the priority prefixes of sd-daemon(3)."""
    lines = [record.text, *(f"    {line}" for line in record.traceback().splitlines())]
    return "".join(f"<{record.priority}>{line}\n" for line in lines)
