"""The machines are what the other tests take them for."""

import subprocess
from pathlib import Path

import pytest

from tests.support.machine import Machine, MachineError, cgroup_homes

SYSTEMD = {"bookworm": "252", "trixie": "257"}

SERVER = """\
import os
import socket
from systemd import daemon, journal

[fd] = daemon.listen_fds()
journal.send("serving", TESTED_UID=str(os.getuid()))
daemon.notify("READY=1")
with socket.socket(fileno=fd) as listener:
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(peer.recv(100))
"""

SOCKET = """\
[Socket]
ListenStream=51423
"""

SERVICE = """\
[Service]
Type=notify
ExecStart=/usr/bin/python3 /usr/local/lib/tested.py
DynamicUser=yes
"""

CONTROL = """\
Package: tested
Version: 1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Depends: python3-daemon, python3-systemd
Description: nothing
"""

# systemd.exec(5): the range that DynamicUser= allocates from
DYNAMIC_UIDS = range(61184, 65520)


def test_boots_the_systemd_of_its_release(machine: Machine) -> None:
    """Each suite runs its own systemd, started up without a failed unit."""
    version = machine.run("systemctl", "--version").stdout.split()
    assert version[:2] == ["systemd", SYSTEMD[machine.suite]]
    assert machine.run("systemctl", "is-system-running").stdout == "running\n"


def test_has_a_unified_cgroup_hierarchy(machine: Machine) -> None:
    """The machine sees cgroup v2 alone, as an installed Debian does, whatever the host has."""
    kind = machine.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup").stdout
    assert kind == "cgroup2fs\n"


def test_has_loopback_alone(machine: Machine) -> None:
    """Both address families work on `lo`, and no other interface exists."""
    [lo] = machine.run("ip", "-brief", "address").stdout.splitlines()
    assert lo.split()[::2] == ["lo", "127.0.0.1/8"]
    assert lo.split()[3] == "::1/128"


def test_activates_a_notify_service_as_a_dynamic_user(machine: Machine) -> None:
    """A connection to the socket unit starts the service, which answers and writes a record."""
    machine.run("tee", "/usr/local/lib/tested.py", input=SERVER)
    machine.run("tee", "/etc/systemd/system/tested.socket", input=SOCKET)
    machine.run("tee", "/etc/systemd/system/tested.service", input=SERVICE)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "tested.socket")
    assert machine.run("systemctl", "is-active", "tested", check=False).stdout == "inactive\n"

    for address in ("127.0.0.1", "::1"):
        assert (
            machine.run("nc.openbsd", "-N", address, "51423", input="hello\n").stdout == "hello\n"
        )

    assert machine.run("systemctl", "is-active", "tested").stdout == "active\n"
    [record] = machine.journal("--unit=tested", "MESSAGE=serving")
    assert int(record["TESTED_UID"]) in DYNAMIC_UIDS
    assert record["_UID"] == record["TESTED_UID"]
    assert record["_SYSTEMD_UNIT"] == "tested.service"


def test_enforces_address_filters(machine: Machine) -> None:
    """A directive that systemd makes of BPF programs acts, rather than being left out."""
    connect = ["systemd-run", "--quiet", "--wait", "--pipe", "--property=IPAddressDeny=any"]
    connect += ["python3", "-c", "import socket; socket.socket(2, 2).sendto(b'', ('127.1', 9))"]
    assert "PermissionError" in machine.run(*connect, check=False).stderr


def test_installs_a_package_file(machine: Machine, tmp_path: Path) -> None:
    """A package copied in can be given to apt, which needs no network for it."""
    control = tmp_path / "tested/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(CONTROL)
    subprocess.run(["dpkg-deb", "--build", tmp_path / "tested"], check=True, capture_output=True)
    machine.run("apt-get", "install", "--yes", machine.copy_in(tmp_path / "tested.deb"))
    status = machine.run("dpkg-query", "--show", "--showformat=${db:Status-Status}", "tested")
    assert status.stdout == "installed"


def test_says_which_command_failed(machine: Machine) -> None:
    """A failing command raises an error that carries its output."""
    with pytest.raises(MachineError, match=r"ended with 2\n.*no-such-file"):
        machine.run("ls", "/no-such-file")


def test_leaves_nothing_behind(trees: dict[str, Path]) -> None:
    """After the machine no process or cgroup is left, and the tree is as it was."""
    suite, tree = next(iter(trees.items()))
    mounts = Path("/proc/self/mounts").read_text()
    with Machine(suite, tree) as machine:
        machine.run("touch", "/etc/changed")
        assert Path("/proc/self/mounts").read_text() == mounts
    assert not Path(f"/proc/{machine.pid}").exists()
    assert not any((home / machine.cgroup.name).exists() for home in cgroup_homes())
    assert not (tree / "etc/changed").exists()


def test_reports_a_failed_boot(tmp_path: Path) -> None:
    """A tree without an init is refused with what nspawn said of it, and cleaned up after."""
    machine = Machine("nothing", tmp_path)
    with pytest.raises(MachineError, match=r"did not boot\n.+"):
        machine.boot()
    assert not any((home / machine.cgroup.name).exists() for home in cgroup_homes())
