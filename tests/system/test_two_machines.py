"""One Debian probes another, which reflects after a drop-in and `netsrvd apply`."""

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.impairment.path import FAR as REMOTE
from tests.support.impairment.path import FAR_MANY, Way, impaired, joined
from tests.support.impairment.path import NEAR as LOCAL
from tests.support.installed import install
from tests.support.machine import Machine
from tests.support.namespaces import Namespace, namespace
from tests.support.patience import eventually
from tests.support.terminal_picture import drawn, text_of
from tests.support.tmux import screen

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

STATEFUL = r"s/^service = .stamp.$/&\nstamp_stateful = true\nstamp_clock = \"ntp\"/"
"""Makes the example count packets, and say what keeps the clock right that the machines share."""


def join(near: Machine, far: Machine) -> None:
    """Connect the networks of two machines by a pair of interfaces with addresses."""
    inside = ["nsenter", f"--target={near.pid}", "--net"]
    pair = f"ip link add probe0 type veth peer name probe0 netns {far.pid}"
    subprocess.run([*inside, *pair.split()], check=True)
    for machine, address in ((near, NEAR), (far, FAR)):
        machine.run("ip", "address", "add", f"{address}/24", "dev", "probe0")
        machine.run("ip", "link", "set", "probe0", "up")


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def pair(
    request: pytest.FixtureRequest, trees: dict[str, Path], package: Path
) -> Iterator[tuple[Machine, Machine]]:
    """Give a machine that probes, and one of the other suite that reflects, at FAR."""
    suite = request.param
    [other] = {"bookworm", "trixie"} - {suite}
    with Machine(suite, trees[suite]) as near, Machine(other, trees[other]) as far:
        install(near, package)
        install(far, package)
        join(near, far)
        far.run("cp", f"{EXAMPLES}/reflectors.toml", CONFIGURATION)
        far.run("sed", "-i", STATEFUL, CONFIGURATION)
        far.run("netsrvd", "apply")
        yield near, far


@pytest.fixture
def near(pair: tuple[Machine, Machine]) -> Machine:
    """Give the machine that probes."""
    return pair[0]


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


# --- the picture of the README --------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "build/pictures/terminal.svg"
TITLE = "netsrvd status, and netsrvd probe, which finds one bad path of eight"
COLUMNS, LINES = 114, 60
MS = 1_000_000
SWEEP = "netsrvd probe -q --stamp --sweep 8 --source-port 40000 -n 50 -i 40ms -W 3s"
PROMPT = "root@near:~# "

DENIED = f"""
[listener.echo]
deny = "{FAR_MANY[1]}"
"""

TALK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 51423))
connection.sendall(bytes(4096))
sys.stdin.read()
"""

VALUES = re.compile(r"-?\d[\d.:-]*( (B|[KM]iB)\b)?")
"""What differs between two runs: numbers, times, addresses, and units of bytes."""


def impairment() -> Way:
    """Return a way of several paths, one of which is slower than the others and loses packets."""
    chance = random.Random(1)
    delays = [round((5 + chance.expovariate(4)) * MS) for _ in range(50)]
    slow = [None if number % 8 == 4 else delay + 4 * MS for number, delay in enumerate(delays)]
    return Way(delays, plans={Way(paths=11).path_of(BAD_PORT): slow}, paths=11)


@contextmanager
def wide_area(near: Machine, far: Machine, folder: Path) -> Iterator[None]:
    """Join the machines by a network that delays and loses packets, until the block ends."""
    with ExitStack() as undo:
        near_space, far_space = (Namespace(net_of(each, undo)) for each in (near, far))
        middle = undo.enter_context(namespace())
        network = joined(near_space, middle, far_space)
        undo.callback(near_space.ip, "link delete p0")
        undo.callback(far_space.ip, "link delete r0")
        undo.enter_context(impaired(network, folder, impairment(), Way([5 * MS])))
        yield


def net_of(machine: Machine, undo: ExitStack) -> int:
    """Return a descriptor of the network of a machine."""
    descriptor = os.open(f"/proc/{machine.pid}/ns/net", os.O_RDONLY)
    undo.callback(os.close, descriptor)
    return descriptor


@contextmanager
def clients(near: Machine, far: Machine) -> Iterator[None]:
    """Have three clients of the far machine connected, and another one refused, for a while."""
    near.run("sh", "-c", "cat >/etc/netsrvd/conf.d/deny.toml", input=DENIED)
    near.run("systemctl", "restart", "netsrvd.service")
    with ExitStack() as undo:
        for _ in range(3):
            command = far.command("python3", "-c", TALK, LOCAL)
            client = undo.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            assert client.stdin
            undo.callback(client.stdin.close)
        refused = f"for i in 1 2 3 4; do nc -N -s {FAR_MANY[1]} {LOCAL} 51423 </dev/null; done"
        far.run("sh", "-c", refused, check=False)
        eventually(lambda: has_rates(near), "status has the clients and rates")
        yield


def has_rates(machine: Machine) -> bool:
    """Return whether status shows three clients, and rates, for which it needs two samples."""
    text = machine.run("netsrvd", "status").stdout
    return "3 of 10000 connections" in text and " a second" in text


def prompts(lines: list[str]) -> int:
    """Return how often the shell has asked for a command."""
    return sum(line.startswith(PROMPT.strip()) for line in lines)


@pytest.fixture(scope="module")
def picture(pair: tuple[Machine, Machine], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the lines of a terminal of the near machine, on which two commands were typed."""
    near, far = pair
    folder = tmp_path_factory.mktemp("picture")
    shell = near.command("env", f"PS1={PROMPT}", "TERM=screen", "dash", "-i")
    with wide_area(near, far, folder), clients(near, far), screen(folder) as terminal:
        near.run("netsrvd", "probe", "-q", "--stamp", "-n", "2", REMOTE)  # starts the reflector
        terminal.do("new-session", "-d", "-x", str(COLUMNS), "-y", str(LINES), *shell)
        terminal.wait_text(PROMPT.strip())
        for done, command in enumerate(("netsrvd status", f"{SWEEP} {REMOTE}"), 1):
            terminal.press("-l", command)
            terminal.press("Enter")
            terminal.wait(lambda lines, done=done: prompts(lines) == done + 1, command)
        lines = terminal.coloured_lines()
    while not lines[-1]:
        lines.pop()
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(drawn(lines, TITLE))
    return text_of(PICTURE.read_text())


def form(lines: list[str]) -> list[str]:
    """Return lines without what differs between two runs, and that a host was busy."""
    steady = [line for line in lines if "this host" not in line]
    return [" ".join(VALUES.sub("0", line).split()) for line in steady]


def test_the_picture_shows_what_was_done(picture: list[str]) -> None:
    """status has the clients and the one that is refused, and probe marks the bad path."""
    text = "\n".join(picture)
    assert re.search(r"Now: 3 of 10000 connections", text)
    assert re.search(rf"{re.escape(FAR_MANY[1])} +echo tcp +access +4", text)
    [marked] = [line for line in picture if "<-" in line]
    assert marked.split()[0] == str(BAD_PORT)
    assert marked.endswith("<- loses more, slower")


def test_the_picture_of_the_readme_is_of_these_programs(picture: list[str]) -> None:
    """It has the lines that the programs print today, but for values. If not: `make terminal`."""
    committed = text_of((ROOT / "docs/pictures/terminal.svg").read_text())
    assert form(committed) == form(picture)
