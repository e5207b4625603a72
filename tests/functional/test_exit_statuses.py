"""How each command ends when what all commands have in common fails, and what its help names."""

import os
import subprocess
from pathlib import Path

import pytest

from netsrvd.arguments import COMMANDS
from tests.support.manuals import pages
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE

PAGES = {page.name: page for page in pages() if page.section == "1"}

WHEN_IMPORTED = """\
import importlib.abc
import sys

class At(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "netsrvd.commands.{command}":
            {action}

sys.meta_path.insert(0, At())
"""
"""Does something when the module of a command is about to be imported."""

INTERRUPT = "import os; os.kill(os.getpid(), 2)"
BREAK = 'raise ImportError("it is damaged")'

NEEDED = {"explain": ["echo", "127.0.0.1"]}
"""Arguments that a command wants."""


def end(command: str, *arguments: str, folder: Path, action: str = "", output: str = "") -> int:
    """Run a command to its end, and return its status as a shell shows it, which its page must
    have.
    """
    if action:
        text = WHEN_IMPORTED.format(command=command, action=action)
        (folder / "sitecustomize.py").write_text(text)
    with Path(output or os.devnull).open("w") as stdout:
        done = subprocess.run(
            [COMMAND, command, *arguments],
            env=ENVIRONMENT | {"PYTHONPATH": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert b"Traceback" not in done.stderr
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    assert status in PAGES[f"netsrvd-{command}"].statuses()
    return status


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_arguments(command: str, tmp_path: Path) -> None:
    """An option that a command does not have is status 64."""
    assert end(command, "--no-such-option", folder=tmp_path) == os.EX_USAGE


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_written(command: str, tmp_path: Path) -> None:
    """A full disk under standard output is status 74."""
    assert end(command, "--help", folder=tmp_path, output="/dev/full") == os.EX_IOERR


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_module(command: str, tmp_path: Path) -> None:
    """A module that cannot be imported is status 70."""
    assert end(command, *NEEDED.get(command, []), folder=tmp_path, action=BREAK) == os.EX_SOFTWARE


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupt(command: str, tmp_path: Path) -> None:
    """Ctrl-C before a command has begun its work is status 130."""
    assert end(command, *NEEDED.get(command, []), folder=tmp_path, action=INTERRUPT) == 130


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_the_manual_page(command: str) -> None:
    """The help of the program and of each command says what it does, and names its page."""
    words = [command] if command else []
    shown = subprocess.check_output([COMMAND, *words, "--help"], text=True, env=ENVIRONMENT)
    page = f"netsrvd-{command}" if command else "netsrvd"
    assert shown.splitlines()[-1] == f"See {page}(1)."
    assert page in PAGES
    if command:
        sentence = f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}."
        assert sentence in " ".join(shown.split())
