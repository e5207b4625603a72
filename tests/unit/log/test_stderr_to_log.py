"""netsrvd.log.stderr_to_log"""

from pathlib import Path
from types import ModuleType

import pytest

from netsrvd.log import journal, syslog
from netsrvd.log.stderr_to_log import StderrToLog
from tests.support.logs import LogDaemon


@pytest.fixture(autouse=True)
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the sockets of the logs elsewhere, where nobody listens."""
    for log in (syslog, journal):
        monkeypatch.setattr(log, "SOCKET", tmp_path / log.__name__)
        kind = syslog.SyslogLog if log is syslog else journal.JournalLog
        monkeypatch.setattr(kind.__init__, "__defaults__", (log.SOCKET,))


@pytest.mark.parametrize("log", [syslog, journal])
def test_each_line_is_a_record(log: ModuleType) -> None:
    """It is an error in the log that is there; empty lines are nothing."""
    with LogDaemon(log.SOCKET) as daemon:
        print("netsrvd: one\n\n  two", file=StderrToLog())
        for text in (b"not served: netsrvd: one", b"not served:   two"):
            said = daemon.read()
            assert text in said
            assert said.startswith(b"<27>" if log is syslog else b"MESSAGE=")


def test_the_journal_comes_first() -> None:
    """Its records have fields."""
    with LogDaemon(journal.SOCKET) as daemon, LogDaemon(syslog.SOCKET):
        print("one", file=StderrToLog())
        assert b"one" in daemon.read()


def test_without_a_log_nothing_fails() -> None:
    """What is printed is lost, whether there is no socket or nobody behind it."""
    stream = StderrToLog()
    assert (stream.write("one\n"), stream.writable()) == (4, True)
    syslog.SOCKET.touch()
    assert stream.write("one\n") == 4
