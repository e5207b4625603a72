"""netsrvd.linux.mounts"""

from pathlib import Path

import pytest

from netsrvd.linux import mounts

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
