"""The version stands in three places, which must agree."""

import re
from pathlib import Path

import pytest

import netsrvd

ROOT = Path(__file__).parents[2]

# Where the newest version of a file stands; a Debian revision may follow it.
FIRST_VERSION = {
    "CHANGELOG.md": r"^## \[(\d[^\]]*)\]",
    "debian/changelog": r"\Anetsrvd \(([^)-]+)(?:-[^)]*)?\)",
}


@pytest.mark.parametrize("name", FIRST_VERSION)
def test_versions_agree(name: str) -> None:
    """The newest version that a change log names is the program's own."""
    found = re.search(FIRST_VERSION[name], (ROOT / name).read_text(), re.MULTILINE)
    assert found, f"{name} names no version"
    assert found[1] == netsrvd.__version__
