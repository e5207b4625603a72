"""netsrvd.linux.mounts"""

import json
from pathlib import Path

import pytest

from netsrvd.linux import mounts
from netsrvd.linux.mounts import Outside, identity, look_outside

LINES = r"""24 30 0:22 / /proc rw,nosuid - proc proc rw
31 30 8:1 /etc/netsrvd /etc/netsrvd ro - ext4 /dev/sda1 rw
32 30 8:1 /srv/a\040b//deleted /srv/a\040b ro - ext4 /dev/sda1 rw
33 30 8:1 /srv/over /etc/netsrvd ro - ext4 /dev/sda1 rw
"""


def test_what_is_mounted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escaped names are restored, and of several mounts at one point the last one counts."""
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")
    assert mounts.roots() == {}
    (tmp_path / "mountinfo").write_text(LINES)
    assert mounts.roots() == {
        "/proc": "/",
        "/etc/netsrvd": "/srv/over",
        "/srv/a b": "/srv/a b//deleted",
    }


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/etc/netsrvd", "/etc/netsrvd"),
        ("/etc/netsrvd/quotes", "/etc/netsrvd"),
        ("/etc", ""),
        ("/srv/new/x", ""),
        ("relative", ""),
    ],
)
def test_a_path_leads_through_one_mount(path: str, point: str) -> None:
    """The innermost one; one that is new since then was not replaced."""
    before = {"/": "/", "/etc/netsrvd": "/etc/netsrvd"}
    now = {"/": "/", "/etc/netsrvd": "/etc/old", "/srv/new": "/srv/new"}
    assert mounts.moved(path, before, now) == point


@pytest.mark.parametrize("directory", ["/etc", "/no/such", "/a b\n", "/\udcff"])
def test_what_is_seen_of_a_directory_survives_a_message(directory: str) -> None:
    """Its name, device and inode are the same on both sides, whatever the name is."""
    seen = look_outside(directory)
    assert Outside(**json.loads(json.dumps(seen._asdict()))) == seen
    assert seen.directory == directory
    assert (seen.configuration == "") == (directory != "/etc")
    assert seen.configuration == identity(directory)


def test_a_replaced_directory_has_another_identity(tmp_path: Path) -> None:
    """A copy under the same name is another directory."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    before = identity(str(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "old")
    (tmp_path / "two").rename(tmp_path / "one")
    assert before != identity(str(tmp_path / "one"))
