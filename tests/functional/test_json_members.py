"""The members of the JSON that commands print are those that their manual pages name."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from netsrvd.commands import apply
from netsrvd.systemd.plan import Change
from tests.support.manuals import pages
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE

PAGES = {page.name.removeprefix("netsrvd-"): page for page in pages() if page.section == "1"}
FAULTY = "max_connections = -1\n"
OF_CHECK = {"key", "value", "default", "file", "line"}
"""Members of a setting, to which other pages refer."""


def members(value: object) -> set[str]:
    """Return the members of nested objects."""
    if isinstance(value, list):
        return set().union(*map(members, value))
    return {*value}.union(*map(members, value.values())) if isinstance(value, dict) else set()


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("check", ["check --all --json -c {}", "check --json -c {}.faulty"]),
        ("explain", ["explain --json -c {} echo 127.0.0.1"]),
        ("sockopts", ["sockopts --json", "sockopts --json -c {} --listener echo"]),
    ],
)
def test_members_are_those_of_the_page(command: str, lines: list[str], tmp_path: Path) -> None:
    """The page of a command names each member, and no other."""
    file = tmp_path / "netsrvd.toml"
    file.touch()
    file.with_name("netsrvd.toml.faulty").write_text(FAULTY)
    found = set()
    for line in lines:
        done = subprocess.run(
            [COMMAND, *line.format(file, file).split()],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        found |= members(json.loads(done.stdout))
    known = PAGES[command].literals("JSON")
    assert found - (OF_CHECK if command == "explain" else set()) == known


def test_members_of_apply() -> None:
    """netsrvd-apply(1) names each member of the object that the command prints, and no other."""
    plan = SimpleNamespace(
        changes=[Change("unit", "new", "old", "new")], serving=[("echo", "unit", [])]
    )
    work = SimpleNamespace(
        plan=plan, settings=[("key", 1, 2)], actions={}, obstacles=(), warnings=(), firewall=()
    )
    found = apply._as_json(cast("apply.Work", work), applied=True)
    assert members(found) == PAGES["apply"].literals("JSON")
