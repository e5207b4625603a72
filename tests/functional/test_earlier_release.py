"""The configuration of 0.1.0 works, or what to write instead is said.

tests/data/release-0.1.0 has what that version installed or had as a configuration of all its keys.
"""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Start
from tests.support.clients import serves
from tests.support.run import COMMAND, ENVIRONMENT

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/release-0.1.0"
SHIPPED = DATA / "netsrvd.toml"
VALID = sorted(DATA.glob("*.toml"))
UNUSED = "it is not used any more; remove it"

SIZES = {"64K": 65536}
"""Sizes as that version's files have them, in bytes."""

GONE = {"36f71ba5a5d9403198358e42673e5d36": "bbd6090e7db943f2b19abe3cf52fe2ff"}
"""MESSAGE_IDs of 0.1.0 that no record has any more, each with the one that is used instead."""


def check(path: Path) -> dict[str, Any]:
    """Return what `netsrvd check --json` says of a configuration, which must be valid."""
    command = [COMMAND, "check", "--json", "-c", path]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, found["valid"], found["faults"]) == (0, True, [])
    return found


def keys(table: Mapping[str, object], path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """Yield each key of a configuration with its tables, as `netsrvd check` prints it."""
    for key, value in table.items():
        name = key if re.fullmatch(r"[\w-]+", key) else f'"{key}"'
        if isinstance(value, dict):
            yield from keys(value, (*path, name))
        else:
            yield ".".join((*path, name)), value


def uncommented() -> str:
    """Return the file that 0.1.0 installed with all its settings taken into use."""
    return re.sub(r"^#(?=[\[\w])", "", SHIPPED.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.name)
def test_a_configuration_of_0_1_0_means_the_same(path: Path) -> None:
    """Each key has the value that the file gives it; `workers` has a warning with the remedy."""
    found = check(path)
    values = {each["key"]: each["value"] for each in found["settings"] if each["file"]}
    for key, value in keys(tomllib.loads(path.read_text())):
        if not key.endswith(".enabled") and key != "listener.echo.service":
            assert values.get(key) in (value, [value], SIZES.get(str(value))), key
    used = "workers" in tomllib.loads(path.read_text())
    assert [UNUSED in each for each in found["warnings"]] == [True] * used


def test_the_defaults_of_0_1_0_are_those_of_today(tmp_path: Path) -> None:
    """All settings that its file shows, taken into use, change nothing but the warning."""
    path = tmp_path / "netsrvd.toml"
    path.write_text(uncommented())
    assert len([*keys(tomllib.loads(uncommented()))]) > 20
    found = check(path)
    assert [each["key"] for each in found["settings"] if not each["default"]] == []
    [warning] = found["warnings"]
    assert re.fullmatch(r"ignored: .*netsrvd\.toml:\d+: workers = 0: " + UNUSED, warning)


def test_a_daemon_serves_by_a_configuration_of_0_1_0(start: Start, port: int) -> None:
    """It starts with every key of that version, and answers."""
    text = (DATA / "everything.toml").read_text()
    start(text.replace("port = 7007", f"port = {port}"), "--log", "stderr")
    assert serves(port)


def test_message_ids_of_0_1_0_are_those_of_today() -> None:
    """A program that looks for a MESSAGE_ID of 0.1.0 finds the same kind of record; for the one
    that is gone docs/operating.md names the other.
    """
    earlier = (DATA / "message-ids").read_text().split()
    today = re.findall(r"(?m)^-- ([0-9a-f]{32})$", (ROOT / "systemd/netsrvd.catalog").read_text())
    assert {each for each in earlier if each not in today} == {*GONE}
    text = (ROOT / "docs/operating.md").read_text()
    assert all(gone in text and other in text for gone, other in GONE.items())
