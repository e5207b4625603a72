"""Several instances on one host, by the templates: see docs/scaling.md."""

import re
from collections.abc import Iterator

import pytest

from netsrvd.events.connections import Accepted
from netsrvd.events.flows import FlowBegan
from netsrvd.events.lifecycle import Reloaded
from tests.support.installed import configure, is_active, talk, tidy_up
from tests.support.loads import Load, visited
from tests.support.machine import Machine
from tests.support.patience import eventually

NUMBERS = (1, 2)
SOCKETS = [f"netsrvd@{number}.socket" for number in NUMBERS]
SERVICES = [f"netsrvd@{number}.service" for number in NUMBERS]


@pytest.fixture
def instances(installed: Machine) -> Iterator[Machine]:
    """Give a machine on which the sockets of two instances listen, instead of netsrvd.socket."""
    installed.run("systemctl", "stop", "netsrvd.socket", "netsrvd.service")
    installed.run("systemctl", "start", *SOCKETS)
    yield installed
    installed.run("systemctl", "stop", *SOCKETS)
    installed.run("systemctl", "stop", *SERVICES)
    tidy_up(installed)


def count(machine: Machine, unit: str, kind: type) -> int:
    """Return how many records of one kind the latest run of a service has."""
    show = machine.run("systemctl", "show", "--value", "--property=InvocationID", unit)
    run = f"_SYSTEMD_INVOCATION_ID={show.stdout.strip()}"
    return len(machine.journal(run, f"MESSAGE_ID={kind.MESSAGE_ID}"))


def spread(machine: Machine, kind: type) -> list[int]:
    """Return how many records of one kind each instance has."""
    return [count(machine, unit, kind) for unit in SERVICES]


def assert_all_served(load: Load) -> None:
    assert (load.connections > 0, load.faults) == (True, [])


def test_an_installation_starts_no_instance(installed: Machine) -> None:
    """The templates are there, and nothing of them is enabled or runs."""
    assert "netsrvd@" not in installed.run("systemctl", "list-units", "--all", "--plain").stdout
    for unit in (*SOCKETS, *SERVICES):
        said = installed.run("systemctl", "is-enabled", unit, check=False).stdout.strip()
        assert said == "disabled"


def test_instances_share_the_port(instances: Machine) -> None:
    """Clients start both, and are spread over them; each has a journal of its own."""
    with visited(instances, count=8) as load:
        eventually(lambda: all(is_active(instances, each) for each in SERVICES), "both run")
        eventually(lambda: min(spread(instances, Accepted)) >= 20, "both have served")
    for _ in range(24):
        assert talk(instances, "udp", "hello") == "hello"
    assert_all_served(load)
    eventually(lambda: sum(spread(instances, Accepted)) == load.connections, "all records")
    # The kernel may give a port twice, which makes no second flow.
    eventually(lambda: sum(spread(instances, FlowBegan)) >= 22, "those of all datagrams")
    assert min(spread(instances, FlowBegan)) > 0


def test_one_is_taken_away_under_load(instances: Machine) -> None:
    """With the kernel's help nobody notices: what waited in its queue goes to the other one."""
    instances.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_migrate_req")
    with visited(instances, count=8) as load:
        for _ in range(5):
            eventually(lambda: is_active(instances, SERVICES[1]), "the other one runs")
            eventually(lambda: min(spread(instances, Accepted)) >= 20, "both have served")
            instances.run("systemctl", "stop", SOCKETS[1])
            instances.run("systemctl", "stop", SERVICES[1])
            assert not is_active(instances, SERVICES[1])
            assert not is_active(instances, SOCKETS[1])
            instances.run("systemctl", "start", SOCKETS[1])
    assert_all_served(load)


def test_instances_have_one_configuration(instances: Machine) -> None:
    """A reload reaches all of them; a service that is started by hand brings its socket."""
    instances.run("systemctl", "stop", *SOCKETS)
    instances.run("systemctl", "start", *SERVICES)
    assert all(is_active(instances, each) for each in SOCKETS)
    configure(instances, "drain_timeout = 7\n")
    instances.run("systemctl", "reload", "netsrvd@*.service")
    eventually(lambda: spread(instances, Reloaded) == [1, 1], "both have reloaded")
    assert talk(instances, "tcp", "hello") == "hello"


def test_an_instance_is_sandboxed(instances: Machine) -> None:
    """As netsrvd.service is."""
    report = instances.run("systemd-analyze", "security", "--no-pager", SERVICES[0]).stdout
    exposure = re.search(r"Overall exposure level for netsrvd@1\.service: ([\d.]+)", report)
    assert float(exposure[1]) <= 0.9
