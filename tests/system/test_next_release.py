"""An upgrade of Debian 12 to Debian 13 while the service runs and clients are connected."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.handover import ConnectionsRestored
from netsrvd.events.lifecycle import Starting
from tests.conftest import SUITES
from tests.support.installed import SERVICE, configure, main_pid, wait_preloaded, wait_records
from tests.support.loads import Load, go_on
from tests.support.machine import Machine
from tests.support.patience import eventually

TALKERS, UDP_TALKERS, VISITORS = 20, 2, 2
APT = "apt-get", "--yes", "--option=Dpkg::Options::=--force-confold"


@pytest.fixture(scope="module", params=SUITES[:1])
def machine(
    request: pytest.FixtureRequest, trees: dict[str, Path], package: Path
) -> Iterator[Machine]:
    """Boot a small Debian 12 that has the packages of Debian 13 at hand, with netsrvd running."""
    script = Path(__file__).with_name("upgrade-tree")
    assert trees, "they are made first, and with them installed what this one needs"
    made = subprocess.run([script, *SUITES], check=True, stdout=subprocess.PIPE, text=True)
    with Machine(request.param, Path(made.stdout.strip())) as machine:
        machine.run("apt-get", "install", "--yes", machine.copy_in(package))
        machine.run("mkdir", "-p", "/etc/netsrvd/conf.d")
        machine.run("systemctl", "start", SERVICE)
        wait_preloaded(machine)
        yield machine


def python_of(machine: Machine, pid: str) -> str:
    """Return the version of Python that a run of the daemon has."""
    [starting] = wait_records(machine, pid, Starting)
    return starting["NETSRVD_PYTHON"]


def test_a_new_release_of_debian_is_served_through(machine: Machine) -> None:
    """While systemd, libc and Python are replaced under the daemon it serves on: every connection
    goes on with every byte in its order, every datagram is answered and no client is refused. Its
    Python may be removed under it. The restart, on the Python of Debian 13, keeps the connections,
    also if it fails at first; each has one record of its beginning and one of its end.
    """
    pid = main_pid(machine)
    assert python_of(machine, pid).startswith("3.11.")
    loads = [
        Load(machine, mode, count, beside=True)
        for mode, count in (("tcp", TALKERS), ("udp", UDP_TALKERS), ("visits", VISITORS))
    ]
    with ExitStack() as stack:
        for load in loads:
            stack.enter_context(load)
            load.begin()
        machine.run("apt-get", "update")
        machine.run(*APT, "full-upgrade")
        machine.run(*APT, "autoremove", "--purge")
        figures = [load.stop() for load in loads]
        assert all(each["count"] > 100 for each in figures)
        assert main_pid(machine) == pid
        assert machine.run("cat", "/etc/debian_version").stdout.startswith("13")
        assert machine.run("test", "-e", "/usr/lib/python3.11", check=False).returncode == 1
        assert_whole(machine)

        restart_with_half_a_python(machine)
        later = main_pid(machine, other_than=pid)
        go_on(loads, 0.2)
        assert python_of(machine, later).startswith("3.13.")
        assert "runs since" in machine.run("netsrvd", "status").stdout
    assert loads[-1].faults == []
    [restored] = wait_records(machine, later, ConnectionsRestored)
    assert int(restored["NETSRVD_CONNECTIONS"]) >= TALKERS
    assert restored["NETSRVD_LOST"] == "0"
    assert_each_has_its_records(machine, TALKERS + loads[-1].connections)


def assert_whole(machine: Machine) -> None:
    """Assert that the daemon does all that it does without the files of its Python."""
    assert f"PID {main_pid(machine)}" in machine.run("netsrvd", "status").stdout
    configure(machine, '[listener.new]\nservice = "stamp"\nprotocols = "udp"\nport = 51424\n')
    machine.run("systemctl", "reload", SERVICE)
    configure(machine, "")
    machine.run("systemctl", "reload", SERVICE)


def restart_with_half_a_python(machine: Machine) -> None:
    """Restart the service while Python lacks a module, as in the midst of an upgrade. The start
    fails and names the module; it is repeated, and the connections wait for the one that succeeds.
    """
    module = "/usr/lib/python3.13/ctypes"
    machine.run("mv", module, "/srv/ctypes")
    failed = machine.run("systemctl", "restart", SERVICE, check=False)
    assert failed.returncode != 0
    said = machine.journal("--unit", SERVICE, "_TRANSPORT=stdout")
    fault = "an import fails: ModuleNotFoundError: No module named 'ctypes'"
    assert [each for each in said if fault in each["MESSAGE"]]
    assert not [each for each in said if "Traceback" in each["MESSAGE"]]
    machine.run("mv", "/srv/ctypes", module)


def assert_each_has_its_records(machine: Machine, connections: int) -> None:
    """Assert that so many connections have begun and ended, each once."""

    def told(kind: type) -> list[str]:
        records = machine.journal(f"MESSAGE_ID={kind.MESSAGE_ID}")
        return sorted(each["NETSRVD_CONNECTION"] for each in records)

    eventually(lambda: len(told(Closed)) >= connections, "the end of all")
    assert len(set(told(Accepted))) == connections
    assert told(Accepted) == told(Closed)
