"""One Debian probes another, which reflects after a drop-in and `netsrvd apply`."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.installed import install
from tests.support.machine import Machine

EXAMPLES = "/usr/share/doc/netsrvd/examples"
CONFIGURATION = "/etc/netsrvd/conf.d/reflectors.toml"

FIRST_PORT, PORTS = 40_000, 16
BAD_PORT = 40_005

BAD_PATH = f"""
ip neighbour add 10.7.7.9 lladdr 02:00:00:00:00:09 dev probe0
ip route add 10.7.7.2 via 10.7.7.9 dev probe0 table 100
ip rule add ipproto udp sport {BAD_PORT} lookup 100
"""
"""What leads the datagrams of one port to an Ethernet address that no host has."""

NEAR, FAR = "10.7.7.1", "10.7.7.2"


def join(near: Machine, far: Machine) -> None:
    """Connect the networks of two machines by a pair of interfaces with addresses."""
    inside = ["nsenter", f"--target={near.pid}", "--net"]
    pair = f"ip link add probe0 type veth peer name probe0 netns {far.pid}"
    subprocess.run([*inside, *pair.split()], check=True)
    for machine, address in ((near, NEAR), (far, FAR)):
        machine.run("ip", "address", "add", f"{address}/24", "dev", "probe0")
        machine.run("ip", "link", "set", "probe0", "up")


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def near(
    request: pytest.FixtureRequest, trees: dict[str, Path], package: Path
) -> Iterator[Machine]:
    """Give a machine that probes; the other suite's reflects, at FAR."""
    suite = request.param
    [other] = {"bookworm", "trixie"} - {suite}
    with Machine(suite, trees[suite]) as near, Machine(other, trees[other]) as far:
        install(near, package)
        install(far, package)
        join(near, far)
        far.run("cp", f"{EXAMPLES}/reflectors.toml", CONFIGURATION)
        far.run("sed", "-i", "s/^service = .stamp.$/&\\nstamp_stateful = true/", CONFIGURATION)
        far.run("netsrvd", "apply")
        yield near


def measured(near: Machine, *arguments: str) -> dict[str, Any]:
    """Return the one target of a run."""
    ended = near.run("netsrvd", "probe", "--json", "-W", "20s", *arguments, check=False)
    assert ended.returncode == 0, ended
    [target] = json.loads(ended.stdout)["targets"]
    return target  # type: ignore[no-any-return]


def test_each_way_is_measured(near: Machine) -> None:
    """Round trips, delays each way by clocks that agree, and losses each way, in one command."""
    found = measured(near, "--stamp", "-n", "10", "-i", "20ms", FAR)["statistics"]
    assert found["received"] == 10
    assert found["stamps"]["kernel"] == 10
    assert found["clock_offset"]["agree"]
    assert found["out"]["least"] > 0
    assert found["directions"] == {"out": 0, "back": 0, "undecided": 0}
    assert found["reflector_ttls"] == {"255": 10}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--udp", f"{FAR}:51423"],
        ["--tcp", f"{FAR}:51423"],
        ["--tcp", "-s", "0", f"{FAR}:51423"],
        ["--echoplus", f"{FAR}:51425"],
    ],
    ids=["udp", "tcp", "connections", "echoplus"],
)
def test_other_protocols(near: Machine, arguments: list[str]) -> None:
    """So are the other protocols, each by one command."""
    found = measured(near, "-n", "5", "-i", "20ms", *arguments)["statistics"]
    assert (found["received"], found["lost"]) == (5, 0)


def test_the_bad_path_among_sixteen(near: Machine) -> None:
    """Of sixteen source ports the one whose probes are lost on the way out is marked."""
    near.run("sh", "-ec", BAD_PATH)
    ended = near.run(
        *("netsrvd", "probe", "--stamp", "-q", "--sweep", str(PORTS), "-n", "5", "-i", "100ms"),
        *("--source-port", str(FIRST_PORT), "-W", "3s", FAR),
        check=False,
    )
    assert ended.returncode == 1
    [marked] = [line for line in ended.stdout.splitlines() if "<-" in line]
    assert marked.split()[0] == str(BAD_PORT)
    assert "100 %" in marked
    assert "loses more" in marked
