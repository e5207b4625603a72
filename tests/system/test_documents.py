"""Every command of the documents named below works as it is written."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netsrvd.events.connections import Accepted
from tests.support.documents import ROOT, Step, steps
from tests.support.installed import PROGRAMS, SUPPORT, tidy_up
from tests.support.machine import Machine

README, GETTING_STARTED = "README.md", "docs/getting-started.md"
CONFIGURING, OPERATING, SCALING = "docs/configuring.md", "docs/operating.md", "docs/scaling.md"
ALL = (README, GETTING_STARTED, CONFIGURING, OPERATING, SCALING)

ELSEWHERE = {
    "make run": "tests/repo/test_installing.py",
    "make test": "itself",
    "make deb": "the package of these tests",
    "pytest tests/system/test_restarts.py": "itself",
    "apt install gcc libsystemd-dev pkg-config python3-dev python3-venv": (
        "tests/repo/test_installing.py"
    ),
    "python3 -m venv ~/netsrvd": "tests/functional/test_pip.py",
    "~/netsrvd/bin/pip install .": "tests/functional/test_pip.py",
    "~/netsrvd/bin/netsrvd run": "tests/functional/test_pip.py",
    "netsrvd run --inetd": "tests/functional/test_inetd.py",
    "journalctl --namespace=netsrvd": "tests/system/test_units.py",
    'echo "set server netsrvd/two state drain" | socat - /run/haproxy/admin.sock': (
        "tests/functional/test_scaling.py"
    ),
    'echo "set server netsrvd/two state ready" | socat - /run/haproxy/admin.sock': (
        "tests/functional/test_scaling.py"
    ),
    "netsrvd top": "tests/system/test_top.py",
    "netsrvd apply --rollback": "tests/system/test_apply.py",
}
"""Commands that other tests run."""

NOT_BY_A_TEST = ("systemctl edit",)
"""An editor needs a terminal."""

MENTIONED = {
    *("systemctl start", "systemctl status", "systemctl reload"),
    *("netsrvd run --detach", "apt install --reinstall", "netsrvd explain", "netsrvd probe"),
    "ulimit -Hn",
}
"""Names of commands, without all that they need."""

VALUES = {
    "MESSAGE_ID=…": f"MESSAGE_ID={Accepted.MESSAGE_ID}",
    "FILE": "/usr/lib/python3/dist-packages/systemd/__init__.py",
    "ADDRESS": "127.0.0.1",
    "HOST": "localhost",
}
"""What a reader puts in the place of a word."""


class Context(NamedTuple):
    """What a command takes for granted, and what makes an end of what it has begun."""

    before: str = ":"
    after: str = ":"


STOP = "systemctl stop netsrvd.socket netsrvd.service"
START = "systemctl start netsrvd"
TYPED = """python3 -c '
import subprocess as s, sys
program = s.Popen(sys.argv[1:], stdin=s.PIPE, stdout=s.PIPE, text=True, bufsize=1)
program.stdin.write("hello\\n")
assert program.stdout.readline() == "hello\\n"
program.send_signal(2)
program.wait()' """
"""Types a line, sees it come back, and presses Ctrl-C."""

FIREWALLD = (
    "firewall-cmd --reload && "
    "firewall-cmd --permanent --add-service=netsrvd && firewall-cmd --reload"
)
CONTEXTS = {
    "systemctl status netsrvd": Context(START),
    "netsrvd status": Context(START),
    "netsrvd status connections": Context(START),
    "systemctl reload netsrvd": Context(START),
    "systemctl restart netsrvd.socket": Context(STOP),
    "systemctl start netsrvd.socket": Context(STOP),
    "netsrvd run --detach --pid-file /run/netsrvd.pid": Context(
        STOP,
        "pid=$(cat /run/netsrvd.pid); kill $pid; tail --pid=$pid -f /dev/null;"
        "systemctl start netsrvd.socket",
    ),
    "ufw allow netsrvd": Context(after="ufw show added | grep -w netsrvd"),
    FIREWALLD: Context(after="firewall-cmd --list-services | grep -w netsrvd"),
    "systemctl reload 'netsrvd@*.service'": Context(
        "systemctl start netsrvd@1.service netsrvd@2.service netsrvd@3.service"
    ),
}

LAST = {"apt purge netsrvd"}


def to_do(document: str) -> list[Step]:
    """Return the steps of a document that are tried here, those that end everything at the end."""
    ours = [
        step
        for step in steps(document)
        if step.command not in {*ELSEWHERE, *MENTIONED}
        and not step.command.startswith(NOT_BY_A_TEST)
    ]
    return sorted(ours, key=lambda step: step.command in LAST)


def do(machine: Machine, step: Step) -> None:
    """Write the file of a step, or type its command where it stands in its context."""
    if step.path:
        machine.run("sh", "-c", 'cat >"$0"', step.path, input=step.text)
        return
    context = CONTEXTS.get(step.command, Context())
    words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, VALUES))})(?!\w)")
    command = words.sub(lambda found: VALUES[found[0]], step.command)
    command = TYPED + command if command.startswith("nc ") else command
    for line in (context.before, command, context.after):
        machine.run("bash", "-ec", f"cd /srv; {line}", input="y\n", timeout=120)


@pytest.fixture
def firewalls(machine: Machine, trees: dict[str, Path]) -> None:
    """Install ufw, which is not switched on, and firewalld, which runs."""
    folder = ROOT / "build/firewalls" / machine.suite
    fetch = Path(__file__).with_name("fetch")
    tree = trees[machine.suite]
    subprocess.run([fetch, machine.suite, tree, folder, "ufw", "firewalld"], check=True)
    archives = machine.copy_in(folder / "archives")
    machine.run("sh", "-ec", f"apt-get install --yes {archives}/*.deb", timeout=120)
    machine.run("systemctl", "is-active", "firewalld.service")


@pytest.fixture
def bare(machine: Machine, package: Path) -> Iterator[Machine]:
    """Give a machine with the built package where `make deb` leaves it, not installed."""
    machine.run("mkdir", "-p", "/srv/build/deb")
    machine.copy_in(package)
    machine.run("sh", "-c", "mv /srv/*.deb /srv/build/deb")
    yield machine
    machine.run("rm", "-r", "/srv/build")
    for program in PROGRAMS:
        machine.copy_in(SUPPORT / program)


def test_commands_of_the_readme(bare: Machine) -> None:
    """From the installation to the probe of another host, each in its turn."""
    for step in to_do(README):
        do(bare, step)
    bare.run("apt-get", "purge", "--yes", "netsrvd")


@pytest.mark.usefixtures("firewalls")
def test_commands_of_getting_started(bare: Machine) -> None:
    """From the installation to the purge, each in its turn."""
    for step in to_do(GETTING_STARTED):
        do(bare, step)


@pytest.mark.parametrize("document", [CONFIGURING, OPERATING, SCALING])
def test_commands_of_a_document(installed: Machine, document: str) -> None:
    """Each works on a host where netsrvd has just been installed."""
    for step in to_do(document):
        do(installed, step)
    installed.run("sh", "-c", "systemctl stop 'netsrvd@*.socket' 'netsrvd@*.service'")
    tidy_up(installed)
    if written := [step.path for step in steps(document) if step.path]:
        installed.run("rm", *written)
        installed.run("netsrvd", "apply")


def machine_has(machine: Machine, path: str) -> bool:
    """Return whether there is such a file."""
    return machine.run("test", "-e", path, check=False).returncode == 0


def test_links_of_the_documents_lead_somewhere(installed: Machine) -> None:
    """Each link of an installed document leads to an installed file."""
    folder = "/usr/share/doc/netsrvd"
    for name in installed.run("sh", "-ec", f"cd {folder}; ls *.md").stdout.split():
        text = installed.run("cat", f"{folder}/{name}").stdout
        links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if ":" not in link]
        for link in links:
            assert machine_has(installed, f"{folder}/{link}"), (name, link)


def test_every_exception_is_needed() -> None:
    """The tables above have no command that no document has."""
    known = {step.command for name in ALL for step in steps(name)}
    assert {*ELSEWHERE, *MENTIONED, *CONTEXTS, *LAST} - known == set()
