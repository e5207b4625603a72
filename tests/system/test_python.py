"""The program under the Python of the newer Debian, with Debian's own libraries."""

import shutil
from pathlib import Path

import pytest

from tests.support.machine import Machine

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Copy the program and its tests into the machine."""
    copy = tmp_path_factory.mktemp(machine.suite) / "netsrvd"
    for name in ("netsrvd", "tests", "packaging", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return machine.copy_in(copy)


@pytest.mark.parametrize("machine", ["trixie"], indirect=True, scope="module")
@pytest.mark.parametrize("tier", ["unit", "integration"])
def test_tiers_pass_with_python_of_debian_13(machine: Machine, source: str, tier: str) -> None:
    """What is proven of the code and of its sockets holds for Python 3.13 as well."""
    python = machine.run("python3", "--version").stdout
    assert python.startswith("Python 3.13")

    ran = machine.run(
        *["sh", "-c", f"cd {source} && exec python3 -m pytest -q -p no:cacheprovider tests/{tier}"],
        check=False,
    )

    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
