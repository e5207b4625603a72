"""Replaces standard error if that is a client's socket: what is printed goes to the log."""

import io
from contextlib import suppress

from netsrvd.events.lifecycle import NotServed
from netsrvd.log import journal, syslog
from netsrvd.log.records import record


class StderrToLog(io.TextIOBase):
    """A text stream whose lines are records. Without a journal and syslog they are lost."""

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write each line of `text` that is not empty; never raises."""
        for line in filter(str.strip, text.splitlines()):
            if journal.SOCKET.exists():
                _put(journal.JournalLog(), line)
            elif syslog.SOCKET.exists():
                _put(syslog.SyslogLog(), line)
        return len(text)


def _put(log: syslog.SyslogLog | journal.JournalLog, line: str) -> None:
    with suppress(OSError):
        log.write(record(NotServed(line)))
    log.close()
