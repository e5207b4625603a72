"""What the program can do stands in its documents; nothing of one machine stands anywhere."""

import argparse
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsrvd import cli, startup
from netsrvd.config import files, schema
from netsrvd.settings import DEFAULT_OPTIONS, Settings

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "packaging/netsrvd.toml"
MANUAL_OF_FILE = ROOT / "packaging/man/netsrvd.toml.5"
MANUAL_OF_COMMAND = ROOT / "packaging/man/netsrvd.1"
MANUAL_OF_PROBE = ROOT / "packaging/man/netsrvd-probe.1"
EXAMPLES = sorted((ROOT / "packaging/examples").glob("*.toml"))

LISTENER_KEYS = {rule.key for rule in schema.listener_rules(startup.VALIDATORS)} | {"enabled"}
KEYS = {rule.key for rule in (*schema.GLOBAL_RULES, *schema.LOG_RULES)} | LISTENER_KEYS

OF_ONE_MACHINE = re.compile(
    r"(?<![\w/}])/(?:work|root)/"
    r"|pypi[.]org|pythonhosted[.]org|(?:index|proxy)-url|snapshot[.]debian"
)


def uncommented() -> str:
    """Return the shipped configuration as it is when everything in it is taken into use."""
    return re.sub(r"^#(?=[\[\w])", "", SHIPPED.read_text(), flags=re.MULTILINE)


def shipped_keys(table: dict[str, object]) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from shipped_keys(value)
        else:
            yield key


def options() -> Iterator[str]:
    """Yield all words of the command line: commands, and options by their long names.

    The options of `probe` have a manual of their own.
    """
    top = cli.parser()
    commands = subcommands(top)
    for parser in (top, *(commands[name] for name in commands if name != "probe")):
        yield from long_names(parser)
    yield from commands


def subcommands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands."""
    [commands] = [each.choices for each in top._actions if isinstance(each.choices, dict)]
    return commands


def long_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the options of a parser by their long names."""
    for action in parser._actions:
        if action.option_strings:
            yield action.option_strings[-1]


def test_shipped_configuration_has_every_setting() -> None:
    """The shipped configuration shows each setting that is used, and no other."""
    shown = {*shipped_keys(tomllib.loads(uncommented()))} - {*DEFAULT_OPTIONS}
    assert shown == KEYS - {"workers"}


def test_shipped_configuration_shows_the_defaults(tmp_path: Path) -> None:
    """As it is shipped it changes nothing; with all comments taken away it changes nothing."""
    own = tmp_path / "netsrvd.toml"
    for text in (SHIPPED.read_text(), uncommented()):
        own.write_text(text)
        assert files.load(own, startup.VALIDATORS).settings == Settings()


@pytest.mark.parametrize("key", sorted(KEYS))
def test_manual_of_the_file_has_every_setting(key: str) -> None:
    """netsrvd.toml(5) has an entry for each setting of the schema."""
    assert re.search(rf"^\.It Li (.*, )?{key} = ", MANUAL_OF_FILE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("word", sorted({*options()}))
def test_manual_of_the_command_has_every_word(word: str) -> None:
    """netsrvd(1) has an entry for each command and each option."""
    written = rf"Cm {word}" if word[0] != "-" else rf"Fl {re.escape(word[1:])}"
    assert re.search(rf"^\.(It|Nm|Op)?.*\b{written}\b", MANUAL_OF_COMMAND.read_text(), re.MULTILINE)


@pytest.mark.parametrize("word", [*long_names(subcommands(cli.parser())["probe"])])
def test_manual_of_probe_has_every_option(word: str) -> None:
    """netsrvd-probe(1) has an entry for each option."""
    entry = rf"^\.It (.*, )?Fl {re.escape(word[1:])}\b"
    assert re.search(entry, MANUAL_OF_PROBE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    """Each example of a drop-in is a configuration without faults."""
    assert files.load(path, startup.VALIDATORS).settings


def test_nothing_of_one_machine() -> None:
    """No file of the repository names a registry's host or a path of a developer's machine."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")
    found = [
        f"{name}: {hit[0]}"
        for name in names
        if (ROOT / name).is_file()
        for hit in OF_ONE_MACHINE.finditer((ROOT / name).read_text(errors="replace"))
    ]
    assert not found
