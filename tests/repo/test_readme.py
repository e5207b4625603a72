"""README.md is a page of two screens that claims nothing without its proof."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SCREENS = 100
COLUMNS = 100

SPEED = re.compile(
    r"\b(fast\w*|quick\w*|slow\w*|speed|latency|cheap\w*|CPU time|[µm]s|seconds?)\b", re.IGNORECASE
)


def section(title: str) -> str:
    """Return the section of README.md with this title."""
    [found] = re.findall(rf"(?ms)^## {title}\n(.*?)(?=^## |\Z)", README)
    return str(found)


def plain(text: str) -> str:
    """Return text in one line."""
    return " ".join(text.split())


def test_two_screens() -> None:
    """About 100 lines of 100 columns."""
    lines = README.splitlines()
    assert len(lines) <= SCREENS
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_the_picture_has_a_text() -> None:
    """The picture that the system tests compare with the programs is shown, and described."""
    assert re.search(r"!\[[^]]{30,}\]\(docs/pictures/terminal\.svg\)", README)


def claims() -> list[str]:
    """Return what no other program does, by the lines of README.md."""
    return [plain(each) for each in re.findall(r"(?ms)^- (.*?)(?=^- |^$)", section("What no .*?"))]


@pytest.mark.parametrize("claim", [each for each in claims() if each[0] != '"'])
def test_each_claim_has_its_proof(claim: str) -> None:
    """It ends with links to tests, which are there."""
    [proof] = re.findall(r": ((?:\[tests/\S+\]\(tests/\S+\)(?:, )?)+)$", claim)
    paths = re.findall(r"\[(\S+)\]\((\S+)\)", proof)
    assert all(text == path and (ROOT / path).is_file() for text, path in paths)


def test_speed_is_quoted() -> None:
    """What README.md says of speed stands in docs/performance.md in the same words."""
    quotes = re.findall(r'(?ms)^- "(.*?)"$', README)
    performance = plain((ROOT / "docs/performance.md").read_text()).replace("**", "")
    assert quotes
    assert [quote for quote in quotes if plain(quote) not in performance] == []


def test_nothing_else_is_about_speed() -> None:
    """Outside of those quotes, blocks of commands and links no word is about speed."""
    text = re.sub(r'(?ms)^```.*?^```$|^- ".*?"$|!?\[[^]]*\]\([^)]*\)', "", README)
    assert [found[0] for found in SPEED.finditer(text)] == ["speed"]
    assert "says of its speed:" in text
