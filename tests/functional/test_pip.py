"""The way of docs/getting-started.md to install netsrvd without its package."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.clients import serves
from tests.support.manuals import pages
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


def copy_source(folder: Path) -> None:
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
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module", autouse=True)
def own_network() -> None:
    """Leave the module in the network of the host, from where pip installs."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install it as the page says in a home directory with nothing in it; return the environment of
    a shell there.
    """
    home = tmp_path_factory.mktemp("home")
    copy_source(home / "source")
    kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    environment = kept | {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    for line in words()[:-1]:
        done = subprocess.run(
            ["sh", "-ec", line],
            cwd=home / "source",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    return environment


def test_the_words_of_the_page_install_and_run_it(environment: dict[str, str]) -> None:
    """As they are written, they end in a daemon that serves."""
    run = words()[-1]
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


def test_man_and_the_shells_find_their_files(environment: dict[str, str]) -> None:
    """With the folder of the command in PATH, man(1) finds each manual page, and the completions
    lie below the same prefix, where the shells look.
    """
    prefix = Path(environment["HOME"]) / "netsrvd"
    path = {"PATH": f"{prefix}/bin:{environment['PATH']}"}
    for page in pages():
        where = ["man", "--where", page.section, page.name]
        found = subprocess.check_output(where, env=environment | path, text=True)
        assert found.strip() == f"{prefix}/share/man/man{page.section}/{page.name}.{page.section}"
    for name in (
        "bash-completion/completions/netsrvd",
        "fish/vendor_completions.d/netsrvd.fish",
        "zsh/site-functions/_netsrvd",
    ):
        shell = "fish" if "fish" in name else name.split("/")[0].removesuffix("-completion")
        [written] = (ROOT / "packaging/completions" / shell).iterdir()
        assert (prefix / "share" / name).read_bytes() == written.read_bytes()


def _answers() -> bool:
    try:
        return serves(DEFAULT_PORT)
    except OSError:
        return False
