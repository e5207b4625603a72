"""What is kept for a rollback."""

import os
from pathlib import Path

import pytest

from netsrvd.systemd import saved
from netsrvd.systemd.saved import Saved


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the first file of a configuration with a drop-in."""
    monkeypatch.setattr(saved, "STATE", tmp_path / "state")
    folder = tmp_path / "etc"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "netsrvd.toml").write_text("workers = 1\n")
    (folder / "conf.d/a.toml").write_text("# a\n")
    return folder / "netsrvd.toml"


def facts(time: str) -> Saved:
    return Saved(Path(), "netsrvd.toml", ("netsrvd.socket",), {"netsrvd.service": "1 2"}, time)


def test_two_states_are_kept(main: Path) -> None:
    """The one in force and the one before; the same files once more are no new state."""
    assert saved.read() is None
    saved.save(main, facts("first"))
    main.write_text("workers = 2\n")
    saved.save(main, facts("second"))
    saved.save(main, facts("again"))
    now, before = saved.read(), saved.read(saved.PREVIOUS)
    assert now
    assert before
    assert (now.time, before.time) == ("again", "first")
    assert saved.files(before.folder / before.main)["netsrvd.toml"] == b"workers = 1\n"
    assert now.stamps == {"netsrvd.service": "1 2"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"main": "a", "units": 1, "stamps": 1}'])
def test_what_is_damaged_is_not_there(main: Path, text: str) -> None:
    """A state that cannot be read is none."""
    saved.save(main, facts("first"))
    (saved.STATE / saved.CURRENT / saved.FACTS).write_text(text)
    assert saved.read() is None


def test_files_are_put_back_as_they_were(main: Path) -> None:
    """Changed, removed and new ones, with their modes; and what they were is kept."""
    main.chmod(0o640)
    saved.save(main, facts("first"))
    main.write_text("workers = 2\n")
    (main.parent / "conf.d/a.toml").unlink()
    (main.parent / "conf.d/b.toml").write_text("# b\n")
    edited = saved.files(main)
    first = saved.read()
    assert first
    saved.put_back(first, main)
    assert saved.files(main) == {"netsrvd.toml": b"workers = 1\n", "conf.d/a.toml": b"# a\n"}
    assert main.stat().st_mode & 0o777 == 0o640
    saved.put_back_undone(main)
    assert saved.files(main) == edited


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_owners_are_put_back(main: Path) -> None:
    """A file that the service's group may read stays so, also after a failure."""
    os.chown(main, 1, 1234)
    main.chmod(0o640)
    saved.save(main, facts("first"))
    main.write_text("workers = 2\n")
    first = saved.read()
    assert first
    for step in (lambda: saved.put_back(first, main), lambda: saved.put_back_undone(main)):
        step()
        status = main.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1, 1234, 0o640)


def test_a_full_disk_changes_no_file(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that come before the one that fails, nor is anything left."""
    saved.save(main, facts("first"))
    main.write_text("workers = 2\n")
    (main.parent / "conf.d/a.toml").write_text("# other\n")
    (main.parent / "conf.d/b.toml").write_text("# b\n")
    edited, first = saved.files(main), saved.read()
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == ".a.toml.new":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert first
    with pytest.raises(OSError, match="No space left"):
        saved.put_back(first, main)
    assert saved.files(main) == edited
    assert not list(main.parent.rglob(".*"))


def test_hidden_files_are_none_of_the_configuration(main: Path) -> None:
    """The daemon does not read them: those of an editor stay where they are."""
    saved.save(main, facts("first"))
    main.write_text("workers = 2\n")
    hidden = main.parent / "conf.d/.a.toml"
    hidden.write_text("# half-edited")
    first = saved.read()
    assert first
    saved.put_back(first, main)
    assert hidden.read_text() == "# half-edited"


def test_a_fifo_is_not_waited_for(main: Path) -> None:
    """A rollback reads the files before anything has judged them; it would wait for a writer."""
    before = saved.files(main)
    os.mkfifo(main.parent / "conf.d/fifo.toml")
    (main.parent / "conf.d/endless.toml").symlink_to("/dev/zero")
    assert saved.files(main) == before


def test_a_state_of_root_is_hidden_from_others(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is not the same as none."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert not saved.is_hidden()
    saved.save(main, facts("first"))
    assert saved.is_hidden()
    monkeypatch.undo()
