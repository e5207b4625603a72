"""netsrvd.commands.check"""

import argparse
import tomllib
from pathlib import Path

import pytest

from netsrvd.commands import check
from netsrvd.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "netsrvd.toml"


def test_it_prints_what_is_in_force(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The effective configuration is TOML, a key a line, each with the file that it came from."""
    config.write_text("workers = 2")
    assert check.run(argparse.Namespace(config=config, all=True, json=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert tomllib.loads("\n".join(lines))["workers"] == 2
    assert [line.split("# ")[1] for line in lines[:2]] == [f"{config}:1", "default"]


def test_it_raises_all_faults(config: Path) -> None:
    """Faults are raised all at once, and nothing is printed."""
    config.write_text("workers = -1\nport = 7")
    with pytest.raises(ConfigError) as caught:
        check.run(argparse.Namespace(config=config, all=False, json=False))
    assert len(caught.value.problems) == 3
    assert caught.value.problems[-1] == "not valid: 2 faults"
