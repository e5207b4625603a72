"""Removing the package, installing it again, and what is left after a purge."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsrvd.events.connections import Closed
from netsrvd.events.lifecycle import Stopping
from tests.support.installed import CLIENT, SERVICE, install, is_active, shown, talk
from tests.support.machine import Machine
from tests.support.patience import SECONDS, eventually

DRAIN_SECONDS = 10
"""The default of drain_timeout."""


@pytest.fixture
def fresh(machine: Machine, package: Path) -> Iterator[Machine]:
    """Give a machine with the package as if it had never been there before; purge it."""
    install(machine, package)
    yield machine
    machine.run("dpkg", "--purge", "netsrvd")  # no error if it is not installed


def test_both_units_work_after_a_removal_and_an_installation(fresh: Machine, package: Path) -> None:
    """With both units enabled, the socket listens and the daemon has its sockets afterwards."""
    fresh.run("systemctl", "enable", "--now", SERVICE)
    fresh.run("apt-get", "remove", "--yes", "netsrvd")

    said = fresh.run("apt-get", "install", "--yes", fresh.copy_in(package))

    assert "Could not execute systemctl" not in said.stdout + said.stderr
    assert is_active(fresh, "netsrvd.socket")
    assert is_active(fresh, SERVICE)
    run = f"_SYSTEMD_INVOCATION_ID={shown(fresh, 'InvocationID')}"
    eventually(lambda: len(fresh.journal(run, "NETSRVD_ORIGIN=systemd")) == 2, "its sockets")
    assert fresh.journal(run, "NETSRVD_ORIGIN=bound") == []
    assert talk(fresh, "tcp", "hello") == "hello"


@pytest.mark.parametrize("unit", [SERVICE, "netsrvd@1.service"])
def test_a_purge_waits_for_no_client(fresh: Machine, unit: str) -> None:
    """An open connection is ended, with its record, instead of being waited for."""
    if unit != SERVICE:
        fresh.run("systemctl", "stop", "netsrvd.socket")
    fresh.run("systemctl", "start", unit)
    command = fresh.command("python3", CLIENT, "hold")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        assert client.stdout.readline() == "held\n"
        fresh.run("apt-get", "purge", "--yes", "netsrvd")
        client.communicate(timeout=SECONDS)
    stopping, closed = (
        fresh.journal(f"_SYSTEMD_UNIT={unit}", f"MESSAGE_ID={kind.MESSAGE_ID}")[-1]
        for kind in (Stopping, Closed)
    )
    assert closed["NETSRVD_REASON"] == "drain"
    began_us, ended_us = (int(each["__MONOTONIC_TIMESTAMP"]) for each in (stopping, closed))
    assert ended_us - began_us < (DRAIN_SECONDS - 1) * 1_000_000


OWN = (
    "/etc/netsrvd/conf.d/own.toml",
    "/etc/systemd/system/netsrvd.service.d/override.conf",
    "/usr/local/lib/netsrvd/own.py",
)
"""What docs/getting-started.md says of a purge: what the administrator has made stays."""


def test_a_purge_leaves_what_the_administrator_has_made(fresh: Machine) -> None:
    """And nothing else, but for the journal."""
    for path in OWN:
        fresh.run("sh", "-ec", 'mkdir -p "$(dirname "$0")"; echo "# own" >"$0"', path)
    fresh.run("systemctl", "stop", "netsrvd.socket")
    fresh.run("systemctl", "start", "netsrvd@1.service")
    fresh.run("apt-get", "purge", "--yes", "netsrvd")
    found = fresh.run(
        *["find", "/etc", "/usr", "/lib/systemd", "/run", "/var/lib", "-name", "*netsrvd*"],
        *["-not", "-path", "/var/lib/apt/*", "-not", "-path", "/run/systemd/*"],
    ).stdout
    assert {*found.split()} == {
        *("/etc/netsrvd", "/etc/systemd/system/netsrvd.service.d", "/usr/local/lib/netsrvd")
    }
    assert all(fresh.run("cat", path).stdout == "# own\n" for path in OWN)
    fresh.run("rm", "-r", *found.split())


def test_an_upgrade_of_systemd_has_its_directives_used(fresh: Machine) -> None:
    """When systemd's package is unpacked, netsrvd looks again at what its version knows."""
    folders = [f"/usr/lib/systemd/system/netsrvd{kind}.service.d" for kind in ("", "@")]
    list_all = ["ls", *folders]
    before = fresh.run(*list_all).stdout
    assert ("00-systemd-257.conf" in before) == (fresh.suite == "trixie")
    fresh.run(
        "sh", "-ec", "for d; do rm -f $d/00-*; touch $d/00-systemd-254.conf; done", "sh", *folders
    )
    paths = fresh.run("dpkg", "--listfiles", "systemd").stdout.split()
    [program] = [path for path in paths if path.endswith("/lib/systemd/systemd")]
    fresh.run("dpkg-trigger", "--by-package=systemd", program)
    fresh.run("dpkg", "--triggers-only", "netsrvd")
    assert fresh.run(*list_all).stdout == before
