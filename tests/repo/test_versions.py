"""The version stands in netsrvd/__init__.py; other places that have it must agree."""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

import netsrvd
from netsrvd.services import time

ROOT = Path(__file__).parents[2]

# Where the newest version of a file stands; a Debian revision may follow it.
FIRST_VERSION = {
    "CHANGELOG.md": r"^## \[(\d[^\]]*)\]",
    "docs/monitoring.md": r"^netsrvd\.service (\S+) runs for",
    "docs/pictures/terminal.svg": r"netsrvd\.service (\S+) runs since",
    "packaging/ansible/netsrvd/README.md": r"netsrvd_([^_]+)_all\.deb",
    "packaging/rpm/netsrvd.spec": r"^Version: (\S+)",
    "debian/changelog": r"\Anetsrvd \(([^)-]+)(?:-[^)]*)?\)",
}


@pytest.mark.parametrize("name", FIRST_VERSION)
def test_versions_agree(name: str) -> None:
    """The newest version that a change log or a spec names is the program's own."""
    found = re.search(FIRST_VERSION[name], (ROOT / name).read_text(), re.MULTILINE)
    assert found, f"{name} names no version"
    assert found[1] == netsrvd.__version__


def test_the_clock_is_set_from_the_release_on() -> None:
    """The service `time` takes a clock for set that shows the day of the newest release."""
    found = re.search(
        r"^## \[\d[^\]]*\] - (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert found
    assert datetime.fromtimestamp(time.RELEASED, UTC).isoformat() == f"{found[1]}T00:00:00+00:00"


def test_no_change_is_told_twice() -> None:
    """CHANGELOG.md has each entry once."""
    entries = re.findall(r"(?ms)^- (.*?)(?=^[-#]|\Z)", (ROOT / "CHANGELOG.md").read_text())
    plain = [" ".join(entry.split()) for entry in entries]
    assert len(plain) > 50
    assert [entry for entry, count in Counter(plain).items() if count > 1] == []
