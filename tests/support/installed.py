"""A machine with the package, and what is done and asked there."""

import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.machine import Machine
from tests.support.patience import eventually

SUPPORT = Path(__file__).parent
PROGRAMS = ("echo_client.py", "load_client.py")
CLIENT, LOAD_CLIENT = (f"/srv/{name}" for name in PROGRAMS)
CONFIG = "/etc/netsrvd/conf.d/test.toml"
SERVICE = "netsrvd.service"
DROP_IN = f"/run/systemd/system/{SERVICE}.d/test.conf"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


def install(machine: Machine, package: Path) -> None:
    """Install the package with apt, as an administrator would, and copy the clients in."""
    for program in PROGRAMS:
        machine.copy_in(SUPPORT / program)
    machine.run("apt-get", "install", "--yes", machine.copy_in(package))


def tidy_up(machine: Machine) -> None:
    """Have the socket listen and the service not run, without a configuration of a test's own."""
    machine.run("rm", "-f", CONFIG)
    machine.run("systemctl", "stop", SERVICE, check=False)
    machine.run("systemctl", "reset-failed", check=False)
    machine.run("systemctl", "start", "netsrvd.socket")


def is_active(machine: Machine, unit: str) -> bool:
    """Tell whether a unit is active."""
    return machine.run("systemctl", "is-active", unit, check=False).stdout.strip() == "active"


def shown(machine: Machine, name: str, unit: str = SERVICE) -> str:
    """Return a property of a unit."""
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def main_pid(machine: Machine, unit: str = SERVICE, other_than: str = "0") -> str:
    """Return the PID of a unit's main process as soon as it is active with another than this."""

    def look() -> str:
        pid = shown(machine, "MainPID", unit)
        return pid if pid not in {"0", other_than} and is_active(machine, unit) else ""

    return eventually(look, f"{unit} runs anew")


def wait_preloaded(machine: Machine) -> None:
    """Wait until the daemon has imported, a second after its start, what an upgrade replaces: then
    it feeds the watchdog for the first time, which systemd has begun to count when it was ready.
    """

    def look() -> bool:
        names = ("WatchdogTimestampMonotonic", "ActiveEnterTimestampMonotonic")
        fed_us, ready_us = (int(shown(machine, name)) for name in names)
        return fed_us > ready_us + 500_000

    eventually(look, "all modules are imported")


def configure(machine: Machine, text: str) -> None:
    """Write a configuration file for one test."""
    machine.run("sh", "-c", f"cat >{CONFIG}", input=text)


def plant(folder: str) -> str:
    """Return a drop-in with which the service imports `sitecustomize` of a folder: the command of
    the package runs without what is not Debian's.
    """
    command = "/usr/bin/python3 -m netsrvd run"
    return f"[Service]\nEnvironment=PYTHONPATH={folder}\nExecStart=\nExecStart={command}\n"


def talk(machine: Machine, protocol: str, data: str) -> str:
    """Have some text echoed by a client in the machine."""
    return machine.run("python3", CLIENT, protocol, input=data).stdout


@contextmanager
def stopped(machine: Machine, unit: str) -> Iterator[None]:
    """Have a unit's main process stand still meanwhile, neither ended nor running."""
    pid = main_pid(machine, unit)
    with ExitStack() as undo:
        undo.callback(machine.run, "kill", "-CONT", pid)
        machine.run("kill", "-STOP", pid)
        eventually(lambda: state(machine, pid) == "T", f"{unit} stands still")
        yield
        assert state(machine, pid) == "T"


def state(machine: Machine, pid: str) -> str:
    """Return the state of a process in the machine, a letter of proc(5)."""
    return machine.run("ps", "-o", "state=", "-p", pid).stdout.strip()


def run_records(machine: Machine, pid: str, *args: str) -> list[dict[str, str]]:
    """Return what the daemon with this PID has written to the journal itself."""
    own = f"_PID={pid}", "_TRANSPORT=journal", "SYSLOG_IDENTIFIER=netsrvd"
    return machine.journal(*own, *args)


def wait_records(machine: Machine, pid: str, kind: type, count: int = 1) -> list[dict[str, str]]:
    """Wait until the daemon with this PID has written `count` records of one kind; return them.

    A daemon that goes on may write a record later than it answers.
    """
    wanted = f"MESSAGE_ID={kind.MESSAGE_ID}"  # type: ignore[attr-defined]

    def look() -> list[dict[str, str]]:
        found = run_records(machine, pid, wanted)
        return found if len(found) >= count else []

    return eventually(look, f"{count} {kind.__name__}")


def as_nobody(machine: Machine, script: str, *arguments: str) -> str:
    """Run a Python script in the machine as the user nobody; return what it printed."""
    program = textwrap.dedent(script)
    return machine.run(*NOBODY, "python3", "-c", program, *arguments).stdout.strip()


@contextmanager
def drop_in(machine: Machine, text: str) -> Iterator[None]:
    """Give the service some more directives meanwhile."""
    machine.run("sh", "-c", f"mkdir -p {Path(DROP_IN).parent} && cat >{DROP_IN}", input=text)
    machine.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.run("rm", DROP_IN)
        machine.run("systemctl", "daemon-reload")
