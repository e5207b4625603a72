"""The examples of packaging/ for other homes than Debian's archive: RPM, AppArmor, Ansible, podman.

What each of them needs comes from Debian, into the machine.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import netsrvd
from netsrvd.events.connections import Closed
from tests.support.apparmor import Access, Profile, accesses, sockets
from tests.support.installed import CLIENT, SUPPORT, install, is_active, shown, talk
from tests.support.machine import Machine, MachineError
from tests.support.patience import eventually

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
VERSION = netsrvd.__version__

PACKAGES = ["ansible-core", "ansible-lint", "apparmor", "python3-apt", "rpm"]
PACKAGES += ["python3-build", "python3-installer", "python3-setuptools", "python3-wheel"]
PACKAGES += ["python3-myst-parser", "python3-sphinx"]
CONTAINERS = {"bookworm": [], "trixie": ["podman"]}
"""The podman of Debian 12 has no quadlets."""

ONLY_IN_DEB = {
    "/etc/ufw/applications.d/netsrvd",  # Fedora has firewalld
    "/usr/share/doc-base/netsrvd.netsrvd",
    "/usr/share/doc/netsrvd/changelog.gz",
    "/usr/share/lintian/overrides/netsrvd",
}
RENAMED = (
    (r"^/lib/", "/usr/lib/"),
    (r"^/usr/lib/python3[.\d]*/(dist|site)-packages/", "/python/"),
    (r"^/usr/share/zsh/vendor-completions/", "/usr/share/zsh/site-functions/"),
    (r"^/usr/share/doc/netsrvd/copyright$", "/LICENSE"),
    (r"^/usr/share/licenses/netsrvd[-.\d]*/LICENSE$", "/LICENSE"),
    (r"^(/usr/share/man/.*)\.gz$", r"\1"),
)
"""What has another place or name in an RPM, for both kinds of package."""

OWN_CONTENTS = ("/LICENSE", "/usr/bin/netsrvd", "/usr/share/man/", "/usr/share/doc/netsrvd/html/")
"""Where the files of both packages may differ: compressed, with another path of Python's, or made
by another version of Sphinx."""

SCRIPTS = {"POSTIN": "postinst", "PREUN": "prerm", "POSTUN": "postrm", "TRIGGERSCRIPTS": "postinst"}
"""The scripts of an RPM by their tags, and those of the Debian package that they do the same as."""

TRACED = """
systemd-run --quiet --unit=traced --property=Type=notify --property=NotifyAccess=all \
    --property=KillMode=mixed --property=FileDescriptorStoreMax=9 --setenv=NETSRVD_FDSTORE=9 \
    --property='ExecStop=-/usr/libexec/netsrvd/announce-restart %n $MAINPID' \
    strace -D -ff -y --seccomp-bpf --trace=%file,%network,mmap -o /srv/trace /usr/bin/netsrvd run
"""

PLAY = """
- name: Try the role
  hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: netsrvd
      netsrvd_package: {package}
      netsrvd_always: true
      netsrvd_configuration:
        whoami: |
          [listener.whoami]
          service = "{service}"
          port = 51424
      netsrvd_configuration_absent: [old]
"""

WITHOUT_A_REGISTRY = """
[Container]
Image=
Rootfs=/srv/root
"""
"""The image is what this machine has installed: a build of the Containerfile would fetch one."""

IN_A_CONTAINER = {
    "/etc/containers/storage.conf": """
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
""",
    "/etc/containers/containers.conf": "[containers]\nkeyring = false\npids_limit = 0\n",
}
"""What this machine, itself a container, denies to podman: overlays, keyrings, a limit on PIDs."""


SOCKETS = ("netsrvd.socket", "netsrvd-control.socket")


@pytest.fixture(scope="module")
def tools(machine: Machine, trees: dict[str, Path]) -> Machine:
    """Install the tools in the machine, without compiling their Python."""
    fetch = Path(__file__).with_name("fetch")
    packages = [*PACKAGES, *CONTAINERS[machine.suite]]
    content = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    folder = ROOT / "build/homes" / f"{machine.suite}-{content}"
    subprocess.run([fetch, machine.suite, trees[machine.suite], folder, *packages], check=True)
    machine.run("ln", "-s", "/bin/true", "/usr/local/bin/py3compile")
    archives = machine.copy_in(folder / "archives")
    quick = "--force-unsafe-io --path-exclude='/usr/share/doc/*' --path-exclude='/usr/share/man/*'"
    machine.run("sh", "-ec", f"dpkg --install {quick} {archives}/*.deb")
    machine.run("rm", "-r", archives)
    return machine


@pytest.fixture
def bare(tools: Machine) -> Machine:
    """Give the machine without netsrvd."""
    tools.run("dpkg", "--purge", "netsrvd")
    return tools


@pytest.fixture
def packaged(bare: Machine, package: Path) -> Machine:
    """Give the machine with the Debian package, and nothing that runs."""
    install(bare, package)
    bare.run("systemctl", "stop", "netsrvd.socket", "netsrvd.service")
    return bare


def source(folder: Path) -> Path:
    """Make the archive that the spec is built from, as `make release` does; return its path."""
    files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(files, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    with tarfile.open(folder / f"netsrvd-{VERSION}.tar.gz", "w:gz") as archive:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("tests/"):
                archive.add(ROOT / name, f"netsrvd-{VERSION}/{name}")
    return Path(str(archive.name))


@pytest.fixture
def rpm(bare: Machine, tmp_path: Path) -> str:
    """Build the RPM in the machine; return its path there."""
    bare.run("mkdir", "-p", "/etc/rpm")
    macros = bare.copy_in(ROOT / "tests/data/rpm/macros")
    bare.run("mv", macros, "/etc/rpm/macros.fedora")
    archive = bare.copy_in(source(tmp_path))
    topdir = "/srv/rpmbuild"
    bare.run("rpmbuild", f"--define=_topdir {topdir}", "-tb", "--nodeps", archive)
    return bare.run("sh", "-c", f"ls {topdir}/RPMS/noarch/*.rpm").stdout.strip()


def common(path: str) -> str:
    """Return a path as it is in both packages."""
    for pattern, place in RENAMED:
        path = re.sub(pattern, place, path)
    return path


def compared(files: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Return a package's files by their common paths, without what may differ."""
    return {
        name: (mode, "" if name.startswith(OWN_CONTENTS) else digest)
        for name, (mode, digest) in files.items()
        if name not in ONLY_IN_DEB and ".dist-info/" not in name
    }


def files_of_deb(package: Path) -> dict[str, tuple[int, str]]:
    """Return mode and SHA-256 of each file of the Debian package."""
    found = {}
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if (contents := archive.extractfile(member)) is not None:
                digest = hashlib.sha256(contents.read()).hexdigest()
                found[common(member.name.removeprefix("."))] = (member.mode, digest)
    return found


def files_of_rpm(machine: Machine, rpm: str) -> dict[str, tuple[int, str]]:
    """Return mode and SHA-256 of each file of an RPM."""
    wanted = r"[%{FILEMODES}|%{FILEDIGESTS}|%{FILENAMES}\n]"
    listing = machine.run("rpm", "--query", "--package", "--queryformat", wanted, rpm).stdout
    rows = [line.split("|") for line in listing.splitlines()]
    return {common(name): (int(mode) & 0o777, digest) for mode, digest, name in rows if digest}


def test_the_rpm_has_the_files_of_the_deb(tools: Machine, rpm: str, package: Path) -> None:
    """Debian's rpmbuild makes a package of the spec that has the files of the Debian package, with
    their modes and contents, keeps the administrator's configuration, and requires the same.
    """
    of_rpm, of_deb = files_of_rpm(tools, rpm), files_of_deb(package)
    assert len(of_rpm) > 100
    assert compared(of_rpm) == compared(of_deb)

    query = ["rpm", "--query", "--package"]
    assert tools.run(*query, "--configfiles", rpm).stdout == "/etc/netsrvd/netsrvd.toml\n"
    assert "/etc/netsrvd/conf.d\n" in tools.run(*query, "--list", rpm).stdout
    wanted = set(re.findall(r"dist\(([\w-]+)\)", tools.run(*query, "--requires", rpm).stdout))
    assert wanted == {"python-daemon", "systemd-python"}
    for kind in ("Recommends", "Suggests"):
        named = subprocess.check_output(["dpkg-deb", "--field", package, kind], text=True)
        assert set(tools.run(*query, f"--{kind.lower()}", rpm).stdout.split()) == {
            *named.replace(",", " ").split()
        }


def test_the_scripts_of_the_rpm_are_those_of_the_deb(tools: Machine, rpm: str) -> None:
    """Each script of the RPM is one for a shell, and has that of the Debian package to the
    letter.
    """
    for tag, name in SCRIPTS.items():
        text = (ROOT / f"debian/netsrvd.{name}").read_text()
        body = text.removeprefix("#!/bin/sh\n").removesuffix("#DEBHELPER#\n")
        wanted = ["--queryformat", f"[%{{{tag}}}]"]
        script = tools.run("rpm", "--query", "--package", *wanted, rpm).stdout
        assert body in script, tag
        tools.run("sh", "-n", input=script)


def test_the_rpm_serves_and_goes(tools: Machine, rpm: str) -> None:
    """Installed by Debian's rpm, with what it imports linked to where Fedora has it, the socket
    listens and the daemon answers; a removal ends both and leaves nothing.
    """
    tools.copy_in(SUPPORT / Path(CLIENT).name)
    tools.run("rpm", "--install", "--nodeps", rpm)
    tools.run(
        *["sh", "-ec", 'cd "$(echo /usr/lib/python3.*/site-packages)"; ln -s "$@" .', "sh"],
        *(f"/usr/lib/python3/dist-packages/{name}" for name in ("daemon", "lockfile", "systemd")),
    )
    tools.run("systemd-tmpfiles", "--create", "netsrvd.conf")  # by a trigger of Fedora's systemd
    tools.run("systemctl", "daemon-reload")
    tools.run("systemctl", "start", "netsrvd.socket")
    assert talk(tools, "tcp", "hello") == "hello"
    assert talk(tools, "udp", "hello") == "hello"

    tools.run("rpm", "--erase", "netsrvd")
    assert ":51423" not in tools.run("ss", "-lntu").stdout
    assert tools.run("pgrep", "-x", "netsrvd", check=False).stdout == ""
    left = ["find", "/usr", "/etc", "-name", "*netsrvd*", "-not", "-path", "*/lib/python3/*"]
    assert tools.run(*left).stdout == ""
    tools.run("sh", "-c", "rm -r /usr/lib/python3.*/site-packages /var/lib/netsrvd")


@pytest.fixture
def traces(packaged: Machine) -> Iterator[str]:
    """Return what the daemon did in a run with all of its turns, by strace."""
    packaged.run("sh", "-ec", TRACED)
    for protocol in ("tcp", "udp"):
        assert talk(packaged, protocol, "hello") == "hello"
    packaged.run("netsrvd", "reload", shown(packaged, "MainPID", "traced.service"))
    packaged.run("systemctl", "restart", "traced.service")
    assert talk(packaged, "tcp", "hello") == "hello"
    packaged.run("systemctl", "stop", "traced.service")
    yield packaged.run("sh", "-c", "cat /srv/trace.*").stdout
    packaged.run("sh", "-c", "rm /srv/trace.*")


def test_apparmor(packaged: Machine, traces: str) -> None:
    """AppArmor's parser accepts the profile, which has a rule for every file that the daemon opens,
    maps or makes, and for every socket; it has none for what is not the daemon's.
    """
    there = packaged.copy_in(PACKAGING / "apparmor/netsrvd")
    packaged.run("apparmor_parser", "--skip-kernel-load", "--skip-cache", there)
    text = packaged.run("apparmor_parser", "--preprocess", there).stdout
    profile = Profile(text)

    used = set(accesses(traces))
    assert Access("/etc/netsrvd/netsrvd.toml", "r") in used
    assert Access("/run/systemd/notify", "w") in used
    assert {access for access in used if access.letters == "m"}
    assert {access for access in used if not profile.allows(access)} == set()
    made = sockets(traces)
    assert {("inet6", "stream"), ("inet6", "dgram"), ("unix", "dgram")} <= made
    assert {each for each in made if each[0] != "unix"} <= profile.networks

    for path, letters in (
        *[("/etc/shadow", "r"), ("/etc/netsrvd/netsrvd.toml", "w"), ("/home/me/.ssh/id", "r")],
        *[("/usr/lib/python3/dist-packages/netsrvd/udp.py", "w"), ("/run/dbus/socket", "w")],
    ):
        assert not profile.allows(Access(path, letters)), path


def play(machine: Machine, package: str, service: str, *options: str) -> dict[str, int | str]:
    """Run a play with the role; return how many tasks were ok, changed, failed and the like."""
    text = PLAY.format(package=package, service=service)
    machine.run("sh", "-c", "cat >/srv/play.yml", input=text)
    command = ["env", "ANSIBLE_ROLES_PATH=/srv/ansible", "ANSIBLE_PIPELINING=True"]
    command += ["ansible-playbook", "-i", "localhost,", *options, "/srv/play.yml"]
    done = machine.run(*command, check=False)
    recap = {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", done.stdout)}
    return recap | {"output": done.stdout + done.stderr}


def whoami(machine: Machine) -> str:
    """Return what the listener of the play says to a client on the loopback."""
    return machine.run("python3", CLIENT, "tcp", "51424", input="x").stdout


def test_ansible(bare: Machine, package: Path) -> None:
    """The role has no finding of ansible-lint in its profile for production. It installs the
    package and brings the configuration into force, changes nothing when it is run again, fails
    with the fault and the line of a faulty configuration while the daemon goes on, and gets over
    that.
    """
    bare.copy_in(PACKAGING / "ansible")
    bare.copy_in(SUPPORT / Path(CLIENT).name)
    lint = ["ansible-lint", "--offline", "--profile", "production", "/srv/ansible/netsrvd"]
    bare.run("env", "--chdir=/srv/ansible", *lint)

    there = bare.copy_in(package)
    first = play(bare, there, "echo")
    assert (first["failed"], int(first["changed"]) > 0) == (0, True), first["output"]
    assert is_active(bare, "netsrvd.service")
    assert whoami(bare) == "x"

    for options in ([], ["--check"]):
        again = play(bare, there, "echo", *options)
        assert (again["failed"], again["changed"]) == (0, 0), again["output"]

    faulty = play(bare, there, "nothing")
    assert faulty["failed"] == 1
    assert "/etc/netsrvd/conf.d/whoami.toml:2" in str(faulty["output"])
    assert whoami(bare) == "x"

    fixed = play(bare, there, "close")
    assert (fixed["failed"], fixed["changed"]) == (0, 2), fixed["output"]
    eventually(lambda: whoami(bare) == "", "the listener closes connections")


@pytest.fixture
def container(packaged: Machine) -> Machine:
    """Give a machine on which the quadlet is installed as its head says, in place of the units."""
    for path, text in IN_A_CONTAINER.items():
        packaged.run("sh", "-ec", 'cat >"$0"', path, input=text)
    packaged.run("sh", "-c", "rm -r /usr/lib/systemd/system/netsrvd*")
    quadlets = "/etc/containers/systemd"
    packaged.run("mkdir", "-p", f"{quadlets}/netsrvd.container.d", "/srv/root")
    drop_in = f"{quadlets}/netsrvd.container.d/root.conf"
    packaged.run("sh", "-ec", 'cat >"$0"', drop_in, input=WITHOUT_A_REGISTRY)
    packaged.run("mount", "--bind", "/", "/srv/root")
    packaged.run("mv", packaged.copy_in(PACKAGING / "podman/netsrvd.container"), quadlets)
    for name in SOCKETS:
        packaged.run("mv", packaged.copy_in(ROOT / "systemd" / name), "/etc/systemd/system")
    packaged.run("systemctl", "daemon-reload")
    packaged.run("systemctl", "start", *SOCKETS)
    return packaged


@pytest.mark.parametrize("machine", ["trixie"], indirect=True)
def test_quadlet(container: Machine) -> None:
    """Quadlet and systemd find no fault in the file. The first client starts the container, which
    has no network, and is answered by TCP and UDP; `netsrvd status` of the host finds the daemon; a
    record has its fields and its unit; a reload fails with the reason when the configuration is
    faulty.
    """
    generator = ["/usr/libexec/podman/quadlet", "--dryrun"]
    assert "netsrvd.service" in container.run(*generator).stdout
    units = "/run/systemd/generator/netsrvd.service"
    assert container.run("systemd-analyze", "verify", "--man=no", units).stderr == ""

    assert talk(container, "tcp", "hello") == "hello"
    assert talk(container, "udp", "hello") == "hello"
    assert "netsrvd" in container.run("podman", "ps").stdout
    assert "netsrvd.service" in container.run("netsrvd", "status").stdout
    pid = container.run("podman", "inspect", "--format={{.State.Pid}}", "netsrvd").stdout.strip()
    links = container.run("nsenter", f"--target={pid}", "--net", "ip", "-json", "link").stdout
    assert [link["ifname"] for link in json.loads(links)] == ["lo"]
    run = f"_SYSTEMD_INVOCATION_ID={shown(container, 'InvocationID')}"
    closed = [f"MESSAGE_ID={Closed.MESSAGE_ID}", "_SYSTEMD_UNIT=netsrvd.service", run]
    eventually(lambda: container.journal(*closed), "the record of the connection")
    assert container.journal(*closed)[0]["NETSRVD_BYTES_RECEIVED"] == "5"

    container.run("systemctl", "reload", "netsrvd.service")
    container.run("sh", "-c", "echo 'foo = 1' >/etc/netsrvd/conf.d/faulty.toml")
    with pytest.raises(MachineError):
        container.run("systemctl", "reload", "netsrvd.service")
    container.run("rm", "/etc/netsrvd/conf.d/faulty.toml")
    fault = "/etc/netsrvd/conf.d/faulty.toml:1: foo = 1"

    def is_told() -> bool:
        records = container.journal("--unit=netsrvd.service")
        return any(fault in str(record["MESSAGE"]) for record in records)

    eventually(is_told, "the reason in the journal")

    container.run("systemctl", "stop", *SOCKETS, "netsrvd.service")
    assert container.run("podman", "ps", "--all", "--quiet").stdout == ""
