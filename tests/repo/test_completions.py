"""The completions of the shells are those of the parser."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("bash/netsrvd", "fish/netsrvd.fish", "zsh/_netsrvd")


@pytest.mark.parametrize("name", FILES)
def test_completions_are_those_of_the_parser(name: str, tmp_path: Path) -> None:
    """The completions have every command and option of netsrvd/arguments.py; otherwise run
    packaging/make-completions.
    """
    subprocess.run([ROOT / "packaging/make-completions", tmp_path], check=True)
    written = (ROOT / "packaging/completions" / name).read_text()
    assert written == (tmp_path / name).read_text(), "run packaging/make-completions"
