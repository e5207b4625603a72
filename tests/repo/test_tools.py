"""What ruff and mypy would say is said here, so that one command runs everything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOOLS = {
    "rules": ["ruff", "check", "netsrvd", "tests"],
    "layout": ["ruff", "format", "--check", "netsrvd", "tests"],
    "types": ["mypy"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_to_complain_of(tool: str) -> None:
    """The code keeps the rules of ruff, its layout, and the types of mypy in strict mode."""
    command = [sys.executable, "-m", *TOOLS[tool]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
