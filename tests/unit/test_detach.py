"""netsrvd.detach: the PID file; tests/functional leaves the terminal"""

import os
from pathlib import Path

import pytest

from netsrvd.detach import PidFile
from netsrvd.errors import DetachError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "netsrvd.pid"


def test_it_holds_the_pid_until_it_is_removed(path: Path) -> None:
    """The file has the PID of whoever wrote it, a line, and is gone at the end."""
    lock = PidFile(path)
    lock.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert oct(path.stat().st_mode & 0o777) in {"0o644", "0o640", "0o600"}
    lock.remove()
    assert not path.exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock.descriptor)


def test_a_running_daemon_keeps_others_out(path: Path) -> None:
    """A file that is locked is an error that names its holder; it is left as it was."""
    lock = PidFile(path)
    lock.write()
    with pytest.raises(DetachError) as caught:
        PidFile(path)
    assert str(caught.value) == (
        f"PID file {path} is held by a running daemon, PID {os.getpid()}; "
        "stop it or name another file"
    )
    assert path.read_text() == f"{os.getpid()}\n"
    lock.remove()


def test_a_daemon_that_has_not_written_yet_is_unknown(path: Path) -> None:
    """Between the lock and the PID there is nobody to name."""
    lock = PidFile(path)
    with pytest.raises(DetachError, match="PID unknown"):
        PidFile(path)
    lock.remove()


def test_a_dead_owner_holds_nothing(path: Path) -> None:
    """The kernel releases the lock of who has ended; what it left behind does no harm."""
    path.write_text("a longer text than any PID is\n")
    lock = PidFile(path)
    os.close(lock.descriptor)
    lock = PidFile(path)
    lock.write()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.remove()


def test_a_file_that_was_removed_meanwhile_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the last owner removes the file between our open and our lock, that lock is worthless."""
    opened: list[int] = []
    locked = PidFile._locked

    def lock_what_is_gone(self: PidFile, shown: Path) -> int:
        opened.append(locked(self, shown))
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    monkeypatch.setattr(PidFile, "_locked", lock_what_is_gone)
    lock = PidFile(path)
    assert len(opened) == 2
    assert os.path.samestat(path.stat(), os.fstat(lock.descriptor))
    lock.remove()


@pytest.mark.parametrize("name", ["missing/netsrvd.pid", "."])
def test_a_file_that_cannot_be_is_told(tmp_path: Path, name: str) -> None:
    """The error names the file, the reason and the remedy."""
    with pytest.raises(DetachError, match=r"^PID file \S+: .*; name another one$"):
        PidFile(tmp_path / name)


def test_its_path_stays_when_the_daemon_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path is that of the caller, though the daemon works in another folder."""
    monkeypatch.chdir(tmp_path)
    lock = PidFile(Path("netsrvd.pid"))
    monkeypatch.chdir("/")
    lock.remove()
    assert not (tmp_path / "netsrvd.pid").exists()
