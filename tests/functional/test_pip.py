"""The way of docs/getting-started.md to install netsrvd without its package."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.clients import serves
from tests.support.namespaces import namespace
from tests.support.patience import eventually

ROOT = Path(__file__).parents[2]
DEFAULT_PORT = 51423
INSTALL_SECONDS = 300


def words() -> list[str]:
    """Return the lines of docs/getting-started.md that install and run it."""
    page = (ROOT / "docs/getting-started.md").read_text()
    [block] = re.findall(r"```\n(apt install gcc .*?)```", page, re.DOTALL)
    apt, *lines = block.splitlines()
    assert apt.startswith("apt install ")  # tests/repo/test_installing.py compares the packages
    return lines


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Copy what git would commit, for pip builds in the folder that it installs from."""
    listing = [
        "git",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "netsrvd",
        "packaging",
    ]
    names = subprocess.check_output(listing, cwd=ROOT, text=True).split("\0")
    for name in filter(None, [*names, "pyproject.toml", "README.md", "LICENSE"]):
        if (ROOT / name).is_file():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "source" / name)
    return tmp_path / "source"


def test_the_words_of_the_page_install_and_run_it(source: Path, tmp_path: Path) -> None:
    """As they are written, in a home directory with nothing in it, they end in a daemon that
    serves.
    """
    *install, run = words()
    kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    environment = kept | {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    for line in install:
        done = subprocess.run(
            ["sh", "-ec", line],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    with (
        namespace() as network,
        network.entered(),
        subprocess.Popen(["sh", "-ec", f"exec {run}"], cwd="/", env=environment) as daemon,
    ):
        try:
            eventually(_answers, "it serves")
        finally:
            daemon.terminate()
    assert daemon.returncode == 0


def _answers() -> bool:
    try:
        return serves(DEFAULT_PORT)
    except OSError:
        return False
