"""Every command of the documents named below works as it is written."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netsrvd.events.connections import Accepted
from tests.support.documents import DOCUMENTS, ROOT, Step, steps
from tests.support.installed import PROGRAMS, SUPPORT, tidy_up
from tests.support.machine import Machine

README, GETTING_STARTED = "README.md", "docs/getting-started.md"
CHAPTERS = [name for name in DOCUMENTS if name not in {README, GETTING_STARTED}]
"""Their commands are typed where the package is installed."""

TYPED_ELSEWHERE = {
    ("docs/monitoring.md", "From nothing to an alert"): "tests/system/test_alerts.py",
    ("docs/monitoring.md", "Twelve questions to the journal"): "tests/system/test_journal.py",
    ("docs/monitoring.md", "fail2ban"): "tests/system/test_journal.py",
}
"""Sections whose commands other tests type as they stand there."""

ELSEWHERE = {
    "make run": "tests/repo/test_installing.py",
    "make test": "itself",
    "make deb": "the package of these tests",
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
    "netsrvd run --control PATH": "tests/functional/test_control.py",
    "apt install --allow-downgrades ./netsrvd_VERSION_all.deb": "tests/system/test_upgrade.py",
    "apt autoremove": "tests/system/test_next_release.py",
    "netsrvd reload PID": "tests/functional/test_reload_command.py",
    "make fuzz": "tests/unit/test_fuzz.py",
    "netsrvd apply --rollback": "tests/system/test_apply.py",
}
"""Commands that other tests run."""

NOT_BY_A_TEST = {
    "systemctl edit": "an editor needs a terminal",
    "ssh": "it needs another host",
    "pytest tests/": "it is a test itself",
    "make bench": "it measures for minutes; tests/repo/test_book.py tries whether it would run",
    "NETSRVD=/usr/bin/netsrvd make bench": "the same",
    "python -m tests.bench.": "the same",
    "make soak": "it takes two hours; the same",
    "python -m tests.soak.": "it wants the data of such a run; the same",
    ".venv/bin/python -m tests.bench.": "the same",
}
"""How commands begin that no test types, and why."""

MENTIONED = {
    *("systemctl start", "systemctl status", "systemctl reload"),
    *("netsrvd run --detach", "apt install --reinstall", "netsrvd explain", "netsrvd probe"),
    *("netsrvd run", "netsrvd reload", "varlinkctl introspect", "python3 -IS", "ulimit -Hn"),
    *("netsrvd probe --stamp", "netsrvd probe --tcp", "netsrvd probe --udp"),
    "journalctl -x",
}
"""Names of commands, without all that they need."""

VALUES = {
    "MESSAGE_ID=…": f"MESSAGE_ID={Accepted.MESSAGE_ID}",
    "FILE": "/usr/lib/python3/dist-packages/systemd/__init__.py",
    "ADDRESS": "127.0.0.1",
    "HOST HOST HOST …": "127.0.0.1 127.0.0.2 127.0.0.3",
    "HOST": "localhost",
    "host.example": "localhost",
    "192.0.2.1": "localhost",
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
program = s.Popen(sys.argv[2:], stdin=s.PIPE, stdout=s.PIPE, text=True, bufsize=1)
program.stdin.write("hello\\n")
assert program.stdout.readline().strip() == sys.argv[1]
program.send_signal(2)
program.wait()' """
"""Types a line, sees the answer, and presses Ctrl-C."""

SAYS = {"netsrvd probe --nagios --warn 50,5% --crit 200,20% -n 20 -i 50ms HOST": "PROBE "}
"""How the answer begins of a command whose exit status tells how quick this machine is."""

ANSWERS = {"nc localhost 51423": "hello", "nc localhost 51500": "'What is your name?'"}

FIREWALLD = (
    "firewall-cmd --reload && "
    "firewall-cmd --permanent --add-service=netsrvd && firewall-cmd --reload"
)
CONTEXTS = {
    "systemctl status netsrvd": Context(START),
    "netsrvd status": Context(START),
    "netsrvd status connections": Context(START),
    "netsrvd status connections --listener echo --address 192.0.2.0/24": Context(START),
    "netsrvd status --json": Context(START),
    "netsrvd status --warn connections=800 --crit connections=1000 --crit lost=0 --warn lag=0.5": (
        Context(START)
    ),
    "systemctl reload netsrvd": Context(START),
    "netsrvd metrics": Context(START),
    "systemctl restart netsrvd.socket": Context(STOP),
    "systemctl start netsrvd.socket": Context(STOP),
    "netsrvd run --detach --pid-file /run/netsrvd.pid": Context(STOP),
    'kill "$(cat /run/netsrvd.pid)"': Context(
        "cp /run/netsrvd.pid /run/ended.pid",
        'tail --pid="$(cat /run/ended.pid)" -f /dev/null; systemctl start netsrvd.socket',
    ),
    "ufw allow netsrvd": Context(after="ufw show added | grep -w netsrvd"),
    FIREWALLD: Context(after="firewall-cmd --list-services | grep -w netsrvd"),
    "systemctl reload 'netsrvd@*.service'": Context(
        "systemctl start netsrvd@1.service netsrvd@2.service netsrvd@3.service"
    ),
}

LAST = {"apt purge netsrvd"}

STAMP, WEB = "/etc/netsrvd/conf.d/stamp.toml", "/etc/netsrvd/conf.d/web.toml"
SETUPS = {
    "docs/handlers.md": Context("mkdir -p /usr/local/lib/netsrvd"),
    "docs/measuring.md": Context(
        f"""
cd /usr/share/doc/netsrvd/examples
cp quotes /etc/netsrvd
cp well-known-ports.toml /etc/netsrvd/conf.d
printf '[listener.stamp]\nservice = "stamp"\nprotocols = "udp"\nport = 862\n' >{STAMP}
printf '[listener.web]\nservice = "close"\nport = 443\n' >{WEB}
netsrvd apply
systemctl start netsrvd""",
        f"cd /etc/netsrvd; rm quotes conf.d/well-known-ports.toml {WEB}",
    ),
    "docs/monitoring.md": Context(after="rm /etc/netsrvd/conf.d/metrics.toml; netsrvd apply"),
    "docs/scaling.md": Context(
        after="""
systemctl disable --now netsrvd@1.socket netsrvd@2.socket netsrvd@3.socket
systemctl stop 'netsrvd@*.service'
systemctl enable netsrvd.socket"""
    ),
}
"""What the commands of a page take for granted, and what they leave."""


def is_left_out(command: str) -> bool:
    """Return whether no test types a command."""
    return command.startswith(tuple(NOT_BY_A_TEST))


def to_do(document: str) -> list[Step]:
    """Return the steps of a document that are tried here, those that end everything at the end.

    A command in a sentence is not typed if a document before has it, or this one.
    """
    known = {*ELSEWHERE, *MENTIONED}
    for before in DOCUMENTS[: DOCUMENTS.index(document)]:
        known |= {step.command for step in steps(before)}
    ours = []
    for step in steps(document):
        is_typed = step.command not in (known if step.is_inline else {*ELSEWHERE, *MENTIONED})
        if is_typed and not is_left_out(step.command) and not elsewhere(document, step):
            ours.append(step)
        if step.command:
            known.add(step.command)
    return sorted(ours, key=lambda step: step.command in LAST)


def elsewhere(document: str, step: Step) -> bool:
    """Return whether another test types all of the section."""
    return (document, step.section) in TYPED_ELSEWHERE


def as_typed(text: str) -> str:
    """Return a command with what a reader puts in the place of its words."""
    words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, VALUES))})(?!\w)")
    command = words.sub(lambda found: VALUES[found[0]], text)
    if text in SAYS:
        return f"{command} | grep -q '^{SAYS[text]}'"
    return f"{TYPED} {ANSWERS[command]} {command}" if command in ANSWERS else command


def do(machine: Machine, step: Step) -> None:
    """Write the file of a step, or type its command where it stands in its context."""
    if step.path:
        machine.run("sh", "-c", 'cat >"$0"', step.path, input=step.text)
        return
    if step.command.startswith("varlinkctl") and machine.suite == "bookworm":
        return  # it came with systemd 255
    context = CONTEXTS.get(step.command, Context())
    for line in (context.before, as_typed(step.command), context.after):
        machine.run("bash", "-ec", f"cd /srv; {line}", input="y\n")


def probe(machine: Machine, probes: list[Step]) -> None:
    """Type commands that measure, all at the same time."""
    if probes:
        typed = "\n".join(f"{as_typed(step.command)} &\npids+=($!)" for step in probes)
        script = f'cd /srv\n{typed}\nfor pid in "${{pids[@]}}"; do wait "$pid"; done'
        machine.run("bash", "-ec", script)


@pytest.fixture
def firewalls(machine: Machine, trees: dict[str, Path]) -> None:
    """Install ufw, which is not switched on, and firewalld, which runs."""
    folder = ROOT / "build/firewalls" / machine.suite
    fetch = Path(__file__).with_name("fetch")
    tree = trees[machine.suite]
    subprocess.run([fetch, machine.suite, tree, folder, "ufw", "firewalld"], check=True)
    archives = machine.copy_in(folder / "archives")
    machine.run("sh", "-ec", f"apt-get install --yes {archives}/*.deb")
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


@pytest.mark.parametrize("document", [name for name in CHAPTERS if to_do(name)])
def test_commands_of_a_document(installed: Machine, document: str) -> None:
    """Each works on a host where netsrvd has just been installed."""
    setup = SETUPS.get(document, Context())
    todo = to_do(document)
    probes = [step for step in todo if step.command.startswith("netsrvd probe ")]
    installed.run("bash", "-ec", setup.before)
    probe(installed, probes)
    for step in todo:
        if step not in probes:
            do(installed, step)
    installed.run("bash", "-ec", setup.after)
    tidy_up(installed)
    if written := [step.path for step in todo if step.path]:
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
    """The tables above have no command and no section that no document has."""
    known = [(name, step) for name in DOCUMENTS for step in steps(name)]
    commands = {step.command for _, step in known}
    assert {*ELSEWHERE, *MENTIONED, *CONTEXTS, *LAST, *ANSWERS, *SAYS} - commands == set()
    assert {*TYPED_ELSEWHERE} - {(name, step.section) for name, step in known} == set()
    for start in NOT_BY_A_TEST:
        assert any(command.startswith(start) for command in commands), start
    for path in {*ELSEWHERE.values(), *TYPED_ELSEWHERE.values()}:
        assert (ROOT / path).exists() or "/" not in path, path
