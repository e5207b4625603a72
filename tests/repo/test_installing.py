"""What the scripts install on a developer's or a user's machine."""

import re
import shutil
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


LOCKED = """
[ "$(grep -c 'apt-get .* update' {log})" -gt 2 ] && exit
echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)' >&2
exit 100
"""


def add_stub(calls: Path, name: str, body: str) -> None:
    """Give those programs another one, or another body of one."""
    stub = calls.parent / "bin" / name
    stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{calls}\n{body}\n')
    stub.chmod(0o755)


def test_a_locked_apt_is_waited_for(calls: Path) -> None:
    """While another apt has the lock of the lists, an update is tried again; what fails for another
    reason fails at once, with what apt says.
    """
    add_stub(calls, "sleep", "")
    add_stub(calls, "apt-get", LOCKED.replace("{log}", str(calls)))
    lines = run(calls, "apt-get", "update")
    assert [line.partition(" ")[0] for line in lines] == ["apt-get", "sleep"] * 2 + ["apt-get"]
    calls.write_text("")
    add_stub(calls, "apt-get", "echo 'E: no network' >&2; exit 100")
    environment = {"PATH": f"{calls.parent}/bin:/usr/bin:/bin"}
    argv = [ROOT / "packaging/apt-get", "update"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (100, "E: no network\n")
    assert len(calls.read_text().splitlines()) == 1


BOOTSTRAP = """
for sources; do :; done
mkdir -p "${sources%/*}/root/etc/apt/apt.conf.d"
cp "$sources" "${sources%/*}/root/sources"
"""


def test_a_change_of_the_sources_makes_other_trees(calls: Path) -> None:
    """The list of sources is made by debian-sources, whose text decides, with that of the script
    itself, whether a tree is the one that is wanted.
    """
    folder = calls.parent
    (folder / "copy/tests/system").mkdir(parents=True)
    (folder / "copy/packaging").symlink_to(ROOT / "packaging")
    trees, sources = (
        Path(shutil.copy(ROOT / "tests/system" / name, folder / "copy/tests/system"))
        for name in ("trees", "debian-sources")
    )
    add_stub(calls, "id", "echo 0")
    add_stub(calls, "apt-get", "echo 'Debian http://mirror.example/debian/ bookworm-updates'")
    add_stub(calls, "mmdebstrap", BOOTSTRAP)
    environment = {"PATH": f"{folder}/bin:/usr/bin:/bin", "XDG_CACHE_HOME": str(folder)}

    def made() -> str:
        argv = [trees, "trixie"]
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.strip()

    first = made()
    source = "deb http://mirror.example/debian/ trixie-updates main\n"
    assert (Path(first) / "sources").read_text() == source
    assert made() == first
    sources.write_text(sources.read_text() + "# changed\n")
    assert made() != first


def test_sources_are_fetched_where_there_are_none(calls: Path) -> None:
    """An apt without lists fetches them once; without an archive of Debian it is an error."""
    argv = [ROOT / "tests/system/debian-sources", "trixie"]
    environment = {"PATH": f"{calls.parent}/bin:/usr/bin:/bin"}
    listing = "echo 'Debian http://mirror.example/debian/ bookworm'"
    fetched = calls.parent / "fetched"
    case = f"[ -e {fetched} ] && {listing}"
    add_stub(calls, "apt-get", f"case $* in *update) touch {fetched} ;; *) {case} ;; esac; true")
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "deb http://mirror.example/debian/ trixie main\n"
    assert len([line for line in calls.read_text().splitlines() if "update" in line]) == 1
    add_stub(calls, "apt-get", "")
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Debian archive" in done.stderr


def test_nothing_is_masked() -> None:
    """No script changes which services of the host may start."""
    scripts = [*(ROOT / "packaging").iterdir(), *(ROOT / "tests").rglob("*"), ROOT / "Makefile"]
    programs = [path for path in scripts if path.is_file() and path.suffix in {"", ".sh"}]
    word = re.compile(r"systemctl (mask|disable|stop)|update-rc.d")
    assert [path for path in programs if word.search(path.read_text(errors="replace"))] == []
