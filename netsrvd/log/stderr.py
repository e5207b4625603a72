"""Writes records to standard error: for people on a terminal, for systemd otherwise."""

import os
import select
import time
from contextlib import suppress
from pathlib import Path

from netsrvd.events import DEBUG, ERROR, INFO, NOTICE, WARNING
from netsrvd.log.records import Record

LEVEL_NAMES = {ERROR: "error", WARNING: "warning", NOTICE: "notice", INFO: "info", DEBUG: "debug"}
COLOURS = {ERROR: "\x1b[31m", WARNING: "\x1b[33m", NOTICE: "\x1b[1m"}
PLAIN = "\x1b[0m"


def is_journal(descriptor: int) -> bool:
    """Return whether a descriptor leads to the journal (JOURNAL_STREAM in systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def is_discarded(descriptor: int) -> bool:
    """Return whether a descriptor is the /dev/null that systemd gives a service as standard error
    while it does not reach journald.
    """
    is_service = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
    with suppress(OSError):
        return is_service and os.fstat(descriptor).st_rdev == Path(os.devnull).stat().st_rdev
    return False


class StderrLog:
    """Standard error. Owned by the log thread, the only one that waits for its reader."""

    name = "stderr"
    __slots__ = ("_descriptor", "_form", "_rest")

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        if os.isatty(descriptor):
            self._form = for_people
        else:
            self._form = for_systemd if is_journal(descriptor) else for_files
        self._rest = b""
        """What is still to be written of the record that was offered last."""

    def write(self, record: Record) -> bool:
        """Write one record; False if it was not taken now and must be offered again.

        A pipe that is writable takes PIPE_BUF bytes at once without blocking (pipe(7)).
        """
        self._rest = self._rest or self._form(record, time.time()).encode()
        try:
            while self._rest and self._writable(0.0):
                self._rest = self._rest[os.write(self._descriptor, self._rest[: select.PIPE_BUF]) :]
        except BlockingIOError:  # another process has made it non-blocking
            return False
        except OSError:
            self._rest = b""
            raise
        return not self._rest

    def wait(self, seconds: float) -> None:
        """Wait until it may take more, at most `seconds`."""
        self._writable(seconds)

    def close(self) -> None:
        """Leave standard error open for others."""

    def _writable(self, seconds: float) -> bool:
        return bool(select.select((), (self._descriptor,), (), seconds)[1])


def for_people(record: Record, now: float) -> str:
    """Return the lines of a record for a terminal."""
    colour = COLOURS.get(record.priority, "")
    clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"
    word = f"{LEVEL_NAMES[record.priority]:7}"
    head = f"{clock} {colour + word + PLAIN if colour else word} {record.text}\n"
    return head + "".join(f"    {line}\n" for line in record.traceback().splitlines())


def for_files(record: Record, now: float) -> str:
    """Return the lines of a record as for systemd, each with the date, the time and the zone."""
    clock = time.localtime(now)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', clock)}.{int(now * 1000) % 1000:03}"
    zone = time.strftime("%z", clock)
    head = f"<{record.priority}>{stamp}{zone[:3]}:{zone[3:]} "
    return "".join(f"{head}{line}\n" for line in _lines(record))


def for_systemd(record: Record, now: float) -> str:  # noqa: ARG001 - the journal has its own clock
    """Return the lines of a record with the priority prefixes of sd-daemon(3)."""
    return "".join(f"<{record.priority}>{line}\n" for line in _lines(record))


def _lines(record: Record) -> list[str]:
    return [record.text, *(f"    {line}" for line in record.traceback().splitlines())]
