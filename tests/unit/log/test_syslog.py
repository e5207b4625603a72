"""netsrvd.log.syslog"""

import errno
import time
from pathlib import Path

import pytest

from netsrvd.log import syslog
from netsrvd.log.records import Record
from netsrvd.log.syslog import LONGEST_LINE, SyslogLog, encoded
from tests.support.listening import failure
from tests.support.logs import LogDaemon

PLAIN = Record(6, "0" * 32, "hällo", ())
TRACED = Record(3, "0" * 32, "failed", (("NETSRVD_TRACEBACK", "one\ntwo"),))
LONG = Record(6, "0" * 32, "ö" * LONGEST_LINE, ())
NOVEMBER = time.struct_time((2026, 11, 3, 4, 5, 6, 1, 307, 0))


@pytest.mark.parametrize(
    ("record", "datagram"),
    [
        (PLAIN, "<30>Nov  3 04:05:06 netsrvd[7]: hällo"),
        (TRACED, "<27>Nov  3 04:05:06 netsrvd[7]: failed one#012two"),
    ],
)
def test_a_record_has_the_form_of_syslog(record: Record, datagram: str) -> None:
    """Facility daemon and priority, the time, the name with the PID, one line of text."""
    assert encoded(record, NOVEMBER, 7) == datagram.encode()


def test_a_record_is_one_datagram(tmp_path: Path) -> None:
    """What is written arrives at the socket; without a socket it is not taken."""
    log = SyslogLog(tmp_path / "log")
    assert not log.write(PLAIN)
    with LogDaemon(tmp_path / "log") as daemon:
        assert log.write(PLAIN)
        assert daemon.read().endswith("]: hällo".encode())
    log.wait(0)
    log.close()


def test_a_long_line_is_cut(tmp_path: Path) -> None:
    """Syslog daemons cut long lines, so they are not sent; no character is cut in two."""
    log = SyslogLog(tmp_path / "log")
    with LogDaemon(tmp_path / "log") as daemon:
        assert log.write(LONG)
        line = daemon.read()
    log.close()
    assert LONGEST_LINE - 4 < len(line) <= LONGEST_LINE
    assert line.decode().endswith("öö")


def test_a_line_that_is_too_long_is_sent_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMSGSIZE: an eighth of the line is written rather than nothing."""
    sizes: list[int] = []

    def send(_: object, datagram: bytes) -> bool:
        sizes.append(len(datagram))
        if len(sizes) == 1:
            raise failure(errno.EMSGSIZE)
        return True

    monkeypatch.setattr(syslog.DatagramSocket, "send", send)
    assert SyslogLog().write(LONG)
    assert sizes[0] > LONGEST_LINE - 4
    assert sizes[1] <= LONGEST_LINE // 8


def test_other_errors_are_the_reporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else speaks of this one datagram goes up to whoever counts the losses."""

    def send(_: object, datagram: bytes) -> bool:
        raise failure(errno.EINVAL)

    monkeypatch.setattr(syslog.DatagramSocket, "send", send)
    with pytest.raises(OSError, match="Invalid argument"):
        SyslogLog().write(PLAIN)
