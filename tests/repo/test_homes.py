"""The examples of packaging/ for other homes than Debian's archive, as far as they can be read."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADS = [
    "ansible/netsrvd/README.md",
    "apparmor/netsrvd",
    "podman/netsrvd.container",
    "rpm/netsrvd.spec",
]


@pytest.mark.parametrize("name", HEADS)
def test_each_says_what_was_tried(name: str) -> None:
    """The head of each file says what was tried, what was not, and names the test."""
    head = (ROOT / "packaging" / name).read_text()[:2000]
    assert "Tried: " in head
    assert "Not tried: " in head
    assert "tests/system/test_homes.py" in head
