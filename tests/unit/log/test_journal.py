"""netsrvd.log.journal"""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.events.connections import ServiceFailed
from netsrvd.log import journal
from netsrvd.log.journal import JournalLog, encoded
from netsrvd.log.records import Record, record
from tests.support.listening import failure
from tests.support.logs import LogDaemon, journal_fields
from tests.support.samples import sample

PLAIN = Record(6, "0" * 32, "text", (("NETSRVD_A", "1"), ("NETSRVD_B", "ö = x")))
LINES = Record(3, "f" * 32, "text", (("NETSRVD_TRACEBACK", "one\nzwö"), ("NETSRVD_Z", "z")))
LONG = Record(6, "0" * 32, "t" * 9000, (("NETSRVD_LONG", "ö" * 9000),))


def test_a_record_is_one_field_a_line() -> None:
    """The datagram is NAME=value lines, with what journald itself understands in front."""
    assert (
        encoded(PLAIN, None)
        == (
            "MESSAGE=text\nPRIORITY=6\nMESSAGE_ID=00000000000000000000000000000000\n"
            "SYSLOG_IDENTIFIER=netsrvd\nNETSRVD_A=1\nNETSRVD_B=ö = x\n"
        ).encode()
    )


def test_a_field_of_several_lines_is_sent_with_its_length() -> None:
    """A value with line breaks has its length in bytes before it, as 64 bits, little-endian."""
    assert b"\nNETSRVD_TRACEBACK\n\x08\0\0\0\0\0\0\0one\nzw\xc3\xb6\n" in encoded(LINES, None)
    assert journal_fields(encoded(LINES, None))["NETSRVD_TRACEBACK"] == "one\nzwö"
    assert journal_fields(encoded(LINES, None))["NETSRVD_Z"] == "z"


@given(st.text(st.characters(exclude_categories=())))
def test_any_record_is_read_as_it_was_made(text: str) -> None:
    """Whatever a peer makes stand in a record, a strict reader of the format finds just that."""
    made = record(sample(ServiceFailed, error=text, traceback=text))
    assert journal_fields(encoded(made, None))["MESSAGE"] == made.text
    found = journal_fields(encoded(made, 256))
    assert {name: value[:256] for name, value in made.fields}.items() <= found.items()


def test_a_record_can_be_shortened() -> None:
    """Every field is cut to the same number of characters, never within one."""
    found = journal_fields(encoded(LONG, 256))
    assert found["MESSAGE"] == "t" * 256
    assert found["NETSRVD_LONG"] == "ö" * 256
    assert found["MESSAGE_ID"] == "0" * 32


def test_a_record_is_one_datagram(tmp_path: Path) -> None:
    """What is written arrives at journald's socket as it was encoded."""
    log = JournalLog(tmp_path / "socket")
    with LogDaemon(tmp_path / "socket") as daemon:
        assert log.write(PLAIN)
        assert log.write(LINES)
        assert daemon.read() == encoded(PLAIN, None)
        assert daemon.read() == encoded(LINES, None)
    assert not log.write(PLAIN)
    log.wait(0)
    log.close()


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Have the socket fail as told, a call each; the list tells how long the datagrams were."""

    def fail(*outcomes: OSError | None) -> list[int]:
        sizes: list[int] = []
        waiting = iter(outcomes)

        def send(_: object, datagram: bytes) -> bool:
            sizes.append(len(datagram))
            if outcome := next(waiting, None):
                raise outcome
            return True

        monkeypatch.setattr(journal.DatagramSocket, "send", send)
        return sizes

    return fail


def test_a_record_that_is_too_long_is_sent_shortened(sends: Callable[..., list[int]]) -> None:
    """EMSGSIZE: the record is written once more with less of each field, rather than lost."""
    sizes = sends(failure(errno.EMSGSIZE))
    assert JournalLog().write(LONG)
    assert sizes == [len(encoded(LONG, None)), len(encoded(LONG, journal.SHORTENED))]
    assert sizes[1] < 1000


def test_other_errors_are_the_reporters(sends: Callable[..., list[int]]) -> None:
    """Whatever else speaks of this one datagram goes up to whoever counts the losses."""
    sends(failure(errno.EINVAL))
    with pytest.raises(OSError, match="Invalid argument"):
        JournalLog().write(PLAIN)


def test_the_folder_of_the_socket_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where systemd shows the folder, the socket there is taken, which is the present one; not for
    the journal of a namespace, as the folder is that of the host's.
    """
    monkeypatch.delenv("LOG_NAMESPACE", raising=False)
    for unmounted in (tmp_path / "absent", tmp_path):  # systemd leaves it on the host, empty
        monkeypatch.setattr(journal, "FOLDER", unmounted)
        assert journal.socket_path() == journal.SOCKET
    monkeypatch.setattr(journal, "FOLDER", Path("/proc"))
    assert journal.socket_path() == Path("/proc/socket")
    monkeypatch.setenv("LOG_NAMESPACE", "netsrvd")
    assert journal.socket_path() == journal.SOCKET
