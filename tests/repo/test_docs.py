"""What the program can do stands in its documents; nothing of one machine stands anywhere."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsrvd import startup
from netsrvd.config import files, schema
from netsrvd.settings import DEFAULT_OPTIONS, Settings

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "packaging/netsrvd.toml"
BOOK_OF_SETTINGS = ROOT / "docs/settings.md"
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


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    """Each example of a drop-in is a configuration without faults."""
    assert files.load(path, startup.VALIDATORS).settings


def test_the_book_has_every_setting_with_its_default() -> None:
    """docs/settings.md has each setting once for each place where it may stand, with the value that
    it has there by default.
    """
    row = r"(?m)^\| `(\w+)` \| `?\[?(\w+)\]?`? \| `([^`]+)` \|"
    rows = re.findall(row, BOOK_OF_SETTINGS.read_text())
    shipped = tomllib.loads(uncommented())
    log, listener = shipped.pop("log"), shipped.pop("listener")["echo"]
    listener = {key: value for key, value in listener.items() if key in LISTENER_KEYS}
    defaults = {"top": shipped, "log": log, "listener": listener}
    assert sorted(rows) == sorted({*rows})
    assert {(key, place): tomllib.loads(f"x = {value}")["x"] for key, place, value in rows} == {
        (key, place): value for place, keys in defaults.items() for key, value in keys.items()
    }


def listed_parts() -> set[str]:
    """Return the modules and folders of netsrvd/ that docs/design.md lists, as `tcp`, `config`."""
    [listing] = re.findall(r"(?ms)^netsrvd/$(.*?)^systemd/", (ROOT / "docs/design.md").read_text())
    return {*re.findall(r"(\w+)(?:[.]py|/)(?=\s)", listing)}


def test_the_listing_has_every_part() -> None:
    """docs/design.md lists each module and folder of netsrvd/, and no other."""
    parts = {path.stem for path in (ROOT / "netsrvd").iterdir()}
    assert listed_parts() == {part for part in parts if part[0] not in "_."}


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
