"""Upgrades from earlier versions and downgrades to them, with live connections."""

import json
import re
import subprocess
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.handover import ConnectionsRestored
from tests.support.installed import (
    CLIENT,
    PROGRAMS,
    SERVICE,
    SUPPORT,
    configure,
    is_active,
    main_pid,
    run_records,
    talk,
    wait_preloaded,
    wait_records,
)
from tests.support.loads import Load, go_on, visited
from tests.support.machine import Machine
from tests.support.patience import eventually

PACKAGES = Path(__file__).with_name("packages")
CONNECTIONS = 20


class State(NamedTuple):
    """An earlier state of the program."""

    version: str
    hands_over: bool
    """Whether it hands connections over to another version; otherwise an upgrade drains them."""

    @property
    def package(self) -> Path:
        """Return its package, which packages/make-packages has made."""
        return PACKAGES / f"netsrvd_{self.version}_all.deb"

    def member(self, path: str) -> str:
        """Return the text of a file of its package."""
        argv = f"dpkg-deb --fsys-tarfile '{self.package}' | tar --extract --to-stdout ./{path}"
        return subprocess.run(
            ["sh", "-c", argv], check=True, stdout=subprocess.PIPE, text=True
        ).stdout


FIRST = State("0.1.0", hands_over=False)
STATES = (
    FIRST,
    State("0.1.0+20261126", hands_over=False),
    State("0.1.0+20261129.1", hands_over=True),
    State("0.1.0+20261129.2", hands_over=True),
)
QUICK = 'drain_timeout = "1s"\n'
"""Configuration with which a drain is short."""


@pytest.fixture(scope="module")
def prepared(machine: Machine, package: Path) -> Machine:
    """Copy all packages in, and the clients."""
    clients = [SUPPORT / program for program in PROGRAMS]
    for path in (*clients, package, *(state.package for state in STATES)):
        machine.copy_in(path)
    machine.run("mkdir", "-p", "/etc/netsrvd/conf.d")
    configure(machine, QUICK)
    return machine


@pytest.fixture
def upgraded(prepared: Machine, package: Path) -> Machine:
    """Have the present version installed."""
    if not is_installed(prepared, package):
        put(prepared, package)
    return prepared


def is_installed(machine: Machine, package: Path) -> bool:
    """Return whether this version of the package is the one that is installed."""
    query = ["dpkg-query", "--show", "--showformat=${Version}", "netsrvd"]
    return f"netsrvd_{machine.run(*query, check=False).stdout}_all.deb" == package.name


def put(machine: Machine, package: Path) -> None:
    """Install a package over the one that is installed, be it older or newer."""
    options = "--yes", "--allow-downgrades", "--option=Dpkg::Options::=--force-confold"
    machine.run("apt-get", "install", *options, f"/srv/{package.name}")
    assert is_installed(machine, package)


def status(machine: Machine) -> str:
    """Return what systemd tells of the service; the reason of a start that has failed is there
    until the next try begins.
    """
    return machine.run("systemctl", "status", SERVICE, check=False).stdout


def assert_kept(machine: Machine, package: Path) -> None:
    """While another version is installed connections go on, with every byte in its order."""
    pid = main_pid(machine)
    with Load(machine, "tcp", CONNECTIONS) as talkers:
        go_on([talkers], 0.1)
        talkers.begin()
        with visited(machine) as visitors:
            put(machine, package)
        new = main_pid(machine, other_than=pid)
        assert talkers.stop()["count"] > CONNECTIONS
    assert visitors.faults == []
    [restored] = wait_records(machine, new, ConnectionsRestored)
    assert int(restored["NETSRVD_CONNECTIONS"]) >= CONNECTIONS
    assert restored["NETSRVD_LOST"] == "0"


def assert_drained(machine: Machine, package: Path) -> None:
    """While another version is installed the old process waits for its connections as long as a
    stop does, and then ends each with a record; new clients wait and are served by the new one.
    """
    pid = main_pid(machine)
    with ExitStack() as stack:
        holder = machine.command("python3", CLIENT, "hold")
        clients = [
            stack.enter_context(subprocess.Popen(holder, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        for client in clients:
            assert client.stdout.readline() == "held\n"
        with visited(machine) as visitors:
            put(machine, package)
        assert [client.stdout.read() for client in clients] == ["closed\n"] * 3
    assert visitors.faults == []
    closed = run_records(machine, pid, f"MESSAGE_ID={Closed.MESSAGE_ID}", "NETSRVD_REASON=drain")
    assert len(closed) == 3
    main_pid(machine, other_than=pid)


each_state = pytest.mark.parametrize("state", STATES, ids=[state.version for state in STATES])


@each_state
def test_settings_of_earlier_versions_are_valid(
    upgraded: Machine, state: State, tmp_path: Path
) -> None:
    """Every setting that an earlier netsrvd.toml shows is valid, or a warning names its line and
    says what to write.
    """
    settings = re.sub(r"(?m)^#(?=\S)", "", state.member("etc/netsrvd/netsrvd.toml"))
    (tmp_path / "earlier.toml").write_text(settings)
    checked = upgraded.run(
        *["netsrvd", "check", "--json", "-c", upgraded.copy_in(tmp_path / "earlier.toml")],
    )
    warnings = json.loads(checked.stdout)["warnings"]
    unused = [number for number, line in enumerate(settings.splitlines(), 1) if "workers" in line]
    lines = [number for number in unused if settings.splitlines()[number - 1] == "workers = 0"]
    assert warnings == [
        f"ignored: /srv/earlier.toml:{number}: workers = 0: it is not used any more; remove it"
        for number in lines
    ]


def test_the_example_for_port_7_of_the_first_version_works(upgraded: Machine) -> None:
    """A drop-in of netsrvd.socket as 0.1.0 had it, without a word in netsrvd.toml, is served."""
    example = FIRST.member("usr/share/doc/netsrvd/examples/port-7.conf")
    folder = "/run/systemd/system/netsrvd.socket.d"
    upgraded.run("sh", "-c", f"mkdir -p {folder}; cat >{folder}/port-7.conf", input=example)
    upgraded.run("systemctl", "daemon-reload")
    upgraded.run("systemctl", "stop", SERVICE)
    upgraded.run("systemctl", "restart", "netsrvd.socket")
    for protocol in ("tcp", "udp"):
        assert upgraded.run("python3", CLIENT, protocol, "7", input="seven").stdout == "seven"
    upgraded.run("rm", "-r", folder)
    upgraded.run("systemctl", "daemon-reload")
    upgraded.run("systemctl", "stop", SERVICE)
    upgraded.run("systemctl", "restart", "netsrvd.socket")


@each_state
def test_an_upgrade_keeps_or_drains_live_connections(
    prepared: Machine, package: Path, state: State
) -> None:
    """An upgrade from each earlier state keeps live connections where the old process can hand them
    over, and drains them otherwise: each has one record of its beginning and one of its end, and no
    new client is refused.
    """
    put(prepared, state.package)
    prepared.run("systemctl", "restart", SERVICE)
    since = prepared.run("date", "+@%s").stdout.strip()
    wait_preloaded(prepared)
    (assert_kept if state.hands_over else assert_drained)(prepared, package)
    assert "runs since" in prepared.run("netsrvd", "status").stdout, "the control socket works"
    prepared.run("systemctl", "stop", SERVICE)
    assert_each_has_its_records(prepared, since)


def assert_each_has_its_records(machine: Machine, since: str) -> None:
    """Assert that no connection lacks the record of its beginning or that of its end."""
    records = defaultdict(Counter)
    for kind in (Accepted, Closed):
        for each in machine.journal(f"MESSAGE_ID={kind.MESSAGE_ID}", f"--since={since}"):
            records[each["NETSRVD_CONNECTION"]][kind] += 1
    assert len(records) > 3
    assert all(counts == {Accepted: 1, Closed: 1} for counts in records.values())


def test_a_downgrade_to_the_first_version_drains(upgraded: Machine, package: Path) -> None:
    """0.1.0 takes no connections over: a downgrade to it drains them, as a stop does. The next
    upgrade is as good as the first one.
    """
    upgraded.run("systemctl", "restart", SERVICE)
    assert_drained(upgraded, FIRST.package)
    assert talk(upgraded, "udp", "hello") == "hello"
    put(upgraded, package)
    assert "runs since" in upgraded.run("netsrvd", "status").stdout, "the control socket works"


def test_a_downgrade_keeps_connections_until_the_older_version_starts(upgraded: Machine) -> None:
    """If an older version does not know a setting it does not start, says which line that is, and
    systemd keeps the live connections until the setting is gone; then they go on.
    """
    configure(upgraded, f"{QUICK}[listener.echo]\nstamp_stateful = true\n")
    upgraded.run("systemctl", "restart", SERVICE)
    pid = main_pid(upgraded)
    wait_preloaded(upgraded)
    with Load(upgraded, "tcp", CONNECTIONS) as talkers:
        go_on([talkers], 0.1)
        put(upgraded, STATES[-1].package)
        assert not is_active(upgraded, SERVICE)
        eventually(lambda: "stamp_stateful" in status(upgraded), "the setting in the status")
        configure(upgraded, QUICK)
        new = main_pid(upgraded, other_than=pid)
        go_on([talkers], 0.1)
    [restored] = wait_records(upgraded, new, ConnectionsRestored)
    assert (restored["NETSRVD_CONNECTIONS"], restored["NETSRVD_LOST"]) == (str(CONNECTIONS), "0")
