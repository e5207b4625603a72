"""What the scripts install on a developer's or a user's machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVERS = {
    "haproxy",
    "inetutils-inetd",
    "libnginx-mod-stream",
    "nginx",
    "prometheus",
    "smokeping",
    "ucspi-tcp-ipv6",
    "xinetd",
}

STUBS = {
    "dpkg-query": "exit 1",
    "apt-get": """
case " $* " in
    *" download "*)
        for word; do
            case $word in [a-z]*) [ $word = download ] || touch "${word}_1_all.deb" ;; esac
        done ;;
esac
""",
    "dpkg-deb": """
[ "$1" = --extract ] || printf '%s: ' Depends
[ "$1" = --extract ] || echo 'adduser, libc6 (>= 2.36), init-system-helpers (>= 1.1)'
""",
    "sudo": 'exec "$@"',
}


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Make programs that write down how they are called, for a machine where nothing is there."""
    log = tmp_path / "calls"
    log.touch()
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n{body}\n')
        stub.chmod(0o755)
    for name in ("python", "venv/bin/python", "venv/bin/pip", "bin/systemctl"):
        stub = tmp_path / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n')
        stub.chmod(0o755)
    return log


def run(calls: Path, *argv: str | Path) -> list[str]:
    """Run a script of packaging/ with those programs; return how they were called."""
    folder = calls.parent
    path = f"{folder}/bin:/usr/bin:/bin"
    subprocess.run([ROOT / "packaging" / argv[0], *argv[1:]], env={"PATH": path}, check=True)
    return calls.read_text().splitlines()


def packages(lines: list[str], verb: str) -> set[str]:
    """Return the packages that apt-get was called to install, download or the like."""
    found = [line.partition(f" {verb} ")[2] for line in lines if f" {verb} " in line]
    return {word for line in found for word in line.split()}


def named_packages() -> set[str]:
    """Return the packages that docs/getting-started.md names for `pip install`."""
    page = (ROOT / "docs/getting-started.md").read_text()
    [line] = re.findall(r"(?m)^apt install (gcc .*)$", page)
    return {*line.split()}


def test_make_run_installs_what_running_needs(calls: Path) -> None:
    """A compiler and headers, which the document names, and none of the tools of tests."""
    lines = run(calls, "make-venv", calls.parent / "python", calls.parent / "venv")
    assert packages(lines, "install") - {"--quiet", "--upgrade", "--editable", "."} == (
        named_packages() | {"pip", "setuptools", "wheel"}
    )
    assert not [line for line in lines if line.startswith("bin/systemctl")]
    dry = ["make", "--dry-run", "--always-make", "run"]
    made = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make-venv" in made
    assert "make-test-tools" not in made


def test_servers_of_tests_become_no_services(calls: Path) -> None:
    """They are downloaded and unpacked; of what they depend on only libraries are installed."""
    servers = calls.parent / "servers"
    lines = run(calls, "make-test-tools", calls.parent / "venv", servers)
    assert packages(lines, "download") == SERVERS
    assert not packages(lines, "install") & SERVERS
    [satisfied] = [line for line in lines if " satisfy " in line]
    assert satisfied.endswith(" satisfy libc6 (>= 2.36)")
    assert not [line for line in lines if line.startswith("bin/systemctl")]


def test_servers_are_unpacked_once(calls: Path) -> None:
    """A second run downloads nothing, but for a server that was added to the list since."""
    folder, servers = calls.parent, calls.parent / "servers"
    run(calls, "make-test-tools", folder / "venv", servers)
    calls.write_text("")
    assert not packages(run(calls, "make-test-tools", folder / "venv", servers), "download")
    (servers / "ready").write_text("haproxy nginx\n")
    assert packages(run(calls, "make-test-tools", folder / "venv", servers), "download") == SERVERS


def test_nothing_is_masked() -> None:
    """No script changes which services of the host may start."""
    scripts = [*(ROOT / "packaging").iterdir(), *(ROOT / "tests").rglob("*"), ROOT / "Makefile"]
    programs = [path for path in scripts if path.is_file() and path.suffix in {"", ".sh"}]
    word = re.compile(r"systemctl (mask|disable|stop)|update-rc.d")
    assert [path for path in programs if word.search(path.read_text(errors="replace"))] == []
