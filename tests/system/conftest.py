"""The machines of this tier, one boot of each Debian for each module, and the package they get."""

import os
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pluggy
import pytest

import netsrvd
from tests.conftest import SUITES
from tests.support.installed import install, tidy_up
from tests.support.machine import Machine

ROOT = Path(__file__).parents[2]
NEXT_VERSION = f"{netsrvd.__version__}+next1"
"""What `--suite` and `--half` say follows: two runs at the same time do not build the same file."""

MOVED_VERSION = f"{netsrvd.__version__}+next2"
MOVED = {
    "netsrvd/handover.py": "transfer",
    "netsrvd/linux/send_queue.py": "unsent",
    "netsrvd/linux/memfd.py": "sealed",
}
"""Modules that a start does not import, each with the name that it has in the next version."""


@pytest.fixture(scope="session")
def trees() -> dict[str, Path]:
    """Make the root trees, or find them made."""
    if os.geteuid() != 0:
        pytest.fail("the system tests boot systemd in systemd-nspawn: run them as root")
    made = subprocess.run(
        [Path(__file__).with_name("trees"), *SUITES],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.fail("tests/system/trees failed; its last words are on standard error")
    return dict(zip(SUITES, map(Path, made.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module", params=SUITES)
def machine(request: pytest.FixtureRequest, trees: dict[str, Path]) -> Iterator[Machine]:
    """Boot a fresh Debian of each suite; what a module changes in it ends with the module."""
    with Machine(request.param, trees[request.param]) as machine:
        yield machine


@pytest.fixture(scope="session")
def package() -> Path:
    """Find the package to install: NETSRVD_DEB, or the newest that `make deb` has built."""
    named = os.environ.get("NETSRVD_DEB")
    built = [Path(named)] if named else list((ROOT / "build/deb").glob("netsrvd_*_all.deb"))
    found = [path for path in built if path.is_file()]
    if not found:
        pytest.fail(f"no package {named or 'in build/deb'}: run `make deb`, or set NETSRVD_DEB")
    return max(found, key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="session")
def next_package(pytestconfig: pytest.Config) -> Path:
    """Build a package with a higher version, of the same tree, to upgrade to."""
    parts = map(pytestconfig.getoption, ("suite", "half"))
    version = ".".join([NEXT_VERSION, *map(str, filter(None, parts))])
    built = subprocess.run(
        [ROOT / "packaging/make-deb", version], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(built.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def moved_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a package with a higher version in which modules have other names."""
    tree = tmp_path_factory.mktemp("moved") / "netsrvd"
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(files, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for path, name in MOVED.items():
        (tree / path).rename((tree / path).with_name(f"{name}.py"))
    for module in (tree / "netsrvd").rglob("*.py"):
        text = module.read_text()
        for path, name in MOVED.items():
            package, _, old = path.removesuffix(".py").replace("/", ".").rpartition(".")
            text = text.replace(f"{package}.{old} import", f"{package}.{name} import")
            text = text.replace(f'"{package}.{old}"', f'"{package}.{name}"')
            imported = rf"(?m)^( *from {package} import (?:\w+, )*){old}\b"
            text = re.sub(imported, rf"\1{name} as {old}", text)
        module.write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    built = subprocess.run(
        [tree / "packaging/make-deb", MOVED_VERSION], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(built.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Machine:
    """Install the package."""
    install(machine, package)
    return machine


@pytest.fixture
def quiet(installed: Machine) -> Iterator[Machine]:
    """Give a machine on which the socket listens and the service does not run; tidy up later."""
    yield installed
    tidy_up(installed)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pluggy.Result[pytest.TestReport], None]:
    """Show the end of the machine's journal with each failure."""
    report = (yield).get_result()
    machine = item.funcargs.get("machine")
    if report.failed and isinstance(machine, Machine):
        journal = machine.run("journalctl", "--no-pager", "--lines=50", check=False)
        report.sections.append((f"journal of {machine.suite}", journal.stdout))
