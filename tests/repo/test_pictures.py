"""The pictures of the documents are drawn from their sources, and shown."""

import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "docs/pictures").glob("*.dot"))


def test_there_are_pictures() -> None:
    """The next tests have something to look at."""
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_picture_is_that_of_its_source(source: Path) -> None:
    """`make docs` was run after the last change of the source."""
    found = re.search(r"source: sha256 ([0-9a-f]{64})", source.with_suffix(".svg").read_text())
    assert found
    assert found[1] == hashlib.sha256(source.read_bytes()).hexdigest(), "run `make docs`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_picture_is_shown(source: Path) -> None:
    """A document shows it, with a text for readers who cannot see it."""
    pattern = re.compile(rf"!\[[^]]{{10,}}\]\(pictures/{source.stem}\.svg\)")
    assert any(pattern.search(page.read_text()) for page in (ROOT / "docs").glob("*.md"))
