"""What happens on a real Debian when the log, the daemon or its code fails under load."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.events.life import Ready, ThreadFailed
from netsrvd.events.log import RecordsLost
from tests.support.machine import Machine
from tests.support.patience import eventually

SUPPORT = Path(__file__).parents[1] / "support"
LOAD = "/srv/steady_load.py"
CLIENT = "/srv/echo_client.py"
CONFIG = "/etc/netsrvd/conf.d/test.toml"
CODE = "/usr/lib/python3/dist-packages/netsrvd"
PORT = "51423"
PLANTED_PORT = 40_404


@pytest.fixture(scope="module")
def installed(machine: Machine, package: Path) -> Machine:
    """Install the package with apt, as an administrator would."""
    for name in ("echo_client.py", "steady_load.py"):
        machine.copy_in(SUPPORT / name)
    machine.run("apt-get", "install", "--yes", machine.copy_in(package))
    return machine


@pytest.fixture
def serving(installed: Machine) -> Iterator[Machine]:
    """Give a machine whose daemon has just started, and whose configuration a test may write."""
    installed.run("systemctl", "restart", "netsrvd.service")
    yield installed
    installed.run("rm", "-f", CONFIG)
    installed.run("systemctl", "reset-failed", "netsrvd.service", check=False)


def shown(machine: Machine, name: str, unit: str = "netsrvd.service") -> str:
    return machine.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def told(machine: Machine, run: str, kind: Any, *how: str) -> list[dict[str, Any]]:
    """Return the records of one kind and one run of the daemon."""
    return machine.journal(f"_SYSTEMD_INVOCATION_ID={run}", f"MESSAGE_ID={kind.MESSAGE_ID}", *how)


class Load:
    """Clients that talk without a pause."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def during(self, seconds: float) -> dict[str, Any]:
        """Return what so many seconds of it were like."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._line()

    def leave(self) -> int:
        """Have all of them go; return how many connections they made, all of them without fault."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        total = self._line()
        assert total["faults"] == []
        return int(total["connections"])

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the load ended early"
        return dict(json.loads(line))


@contextmanager
def load(machine: Machine) -> Iterator[Load]:
    argv = machine.command("python3", LOAD, PORT)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Load(process)
        finally:
            process.kill()


@pytest.mark.parametrize("queue", [100, 10_000])
def test_a_stopped_journal_slows_nobody_and_losses_are_exact(serving: Machine, queue: int) -> None:
    """With journald stopped for ten seconds clients are answered as before; when it goes on, each
    record of a connection is in the journal or in the count of those lost: none with the default
    queue, and with a small one exactly the others.
    """
    serving.run("sh", "-c", f"cat >{CONFIG}", input=f"[log]\nqueue = {queue}\n")
    serving.run("systemctl", "restart", "netsrvd.service")
    run, journald = shown(serving, "InvocationID"), shown(serving, "MainPID", "systemd-journald")
    with load(serving) as clients:
        before = clients.during(2)
        serving.run("kill", "-STOP", journald)
        try:
            stopped = clients.during(10)
        finally:
            serving.run("kill", "-CONT", journald)
        clients.during(2)
        connections = clients.leave()
    assert stopped["p99"] < 10 * before["p99"] + 0.05, (before, stopped)
    assert stopped["worst"] < 1
    assert connections > 500

    def accounted() -> tuple[int, int]:
        lost = [int(each["NETSRVD_RECORDS"]) for each in told(serving, run, RecordsLost)]
        return sum(len(told(serving, run, kind)) for kind in (Accepted, Closed)), sum(lost)

    eventually(lambda: sum(accounted()) >= 2 * connections, "all are accounted for")
    written, lost = accounted()
    assert written + lost == 2 * connections
    assert bool(lost) == (queue == 100)


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_a_journal_that_goes_and_comes_is_found_again(serving: Machine, how: str) -> None:
    """Whether journald is killed or restarted under load, nobody notices, and records are written
    again. (Those that a killed journald had taken and not stored are its own loss.)
    """
    run = shown(serving, "InvocationID")
    with load(serving) as clients:
        before = clients.during(2)
        if how == "kill":
            serving.run("systemctl", "kill", "--signal=KILL", "systemd-journald")
        else:
            serving.run("systemctl", "restart", "systemd-journald")
        during = clients.during(4)
        clients.leave()
    assert during["worst"] < 1
    assert during["p99"] < 10 * before["p99"] + 0.05, (before, during)
    seen = len(told(serving, run, Closed))
    assert serving.run("python3", CLIENT, "tcp", input="again").stdout == "again"
    eventually(lambda: len(told(serving, run, Closed)) > seen, "records are written again")


def test_a_killed_daemon_comes_back_and_refuses_nobody(serving: Machine) -> None:
    """SIGKILL under 20 clients that come and go: systemd starts the daemon again, no connect is
    refused, and at most as many connections lack the record of their end as were live.
    """
    run = shown(serving, "InvocationID")
    # The shell gives /dev/null to what it starts in the background, unless it is told otherwise.
    script = f"exec 3<&0; for i in $(seq 20); do python3 {CLIENT} connects <&3 & done; wait"
    argv = serving.command("sh", "-c", script)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as clients:
        eventually(
            lambda: len(told(serving, run, Closed, "--lines=100")) == 100, "they are at work"
        )
        serving.run("systemctl", "kill", "--signal=KILL", "netsrvd.service")
        eventually(lambda: shown(serving, "NRestarts") != "0", "systemd starts it again")
        eventually(
            lambda: told(serving, shown(serving, "InvocationID"), Closed, "--lines=1"), "it serves"
        )
        verdicts = clients.communicate(timeout=60)[0].splitlines()
    assert len(verdicts) == 20
    assert [each for each in verdicts if "refused" in each] == []
    unfinished = {record["NETSRVD_CONNECTION"] for record in told(serving, run, Accepted)} - {
        record["NETSRVD_CONNECTION"] for record in told(serving, run, Closed)
    }
    assert len(unfinished) <= 20


@pytest.fixture
def planted(serving: Machine) -> Iterator[Callable[[str, str, str], None]]:
    """Plant a line before the first one of the installed code that has a text, and restart."""
    names = []

    def plant(name: str, before: str, line: str) -> None:
        path = f"{CODE}/{name}"
        names.append(path)
        serving.run("cp", path, f"{path}.whole")
        serving.run("sed", "-i", f"0,/{before}/s/^\\( *\\)\\({before}\\)/\\1{line}\\n\\1\\2/", path)
        serving.run("systemctl", "restart", "netsrvd.service")

    yield plant
    for path in names:
        serving.run("mv", f"{path}.whole", path)
    serving.run("systemctl", "restart", "netsrvd.service")


def test_a_fault_in_a_service_ends_one_connection(
    serving: Machine, planted: Callable[[str, str, str], None]
) -> None:
    """The one that it happened to; its traceback is in the journal, the others go on."""
    fault = 'if data == b"oh": raise ArithmeticError("planted")'
    planted("services/echo.py", "return data", fault)
    run = shown(serving, "InvocationID")
    with load(serving) as clients:
        clients.during(0.5)
        for _ in range(3):
            assert serving.run("python3", CLIENT, "tcp", input="oh", check=False).stdout == ""
        clients.during(0.5)
        clients.leave()
    failed = told(serving, run, ServiceFailed)
    assert len(failed) == 3
    assert "ArithmeticError: planted" in failed[0]["NETSRVD_TRACEBACK"]
    assert shown(serving, "InvocationID") == run
    reasons = [record["NETSRVD_REASON"] for record in told(serving, run, Closed)]
    assert sorted({*reasons}) == ["client", "error"]
    assert reasons.count("error") == 3


VISIT = f"""
import socket
with socket.create_connection(("127.0.0.1", {PORT}), 20, ("127.0.0.1", {PLANTED_PORT})) as sock:
    sock.recv(1)
"""


def test_a_fault_in_a_thread_ends_the_daemon_which_comes_back(
    serving: Machine, planted: Callable[[str, str, str], None]
) -> None:
    """The process ends with status 70 and the traceback in the journal; systemd starts it again,
    and who comes meanwhile is served.
    """
    fault = f'if peer[1] == {PLANTED_PORT}: raise ArithmeticError("planted")'
    planted("listeners/acceptor.py", "refusal = self._gate", fault)
    run = shown(serving, "InvocationID")
    serving.run("python3", "-c", VISIT, check=False)
    assert serving.run("python3", CLIENT, "tcp", input="after").stdout == "after"
    [failed] = told(serving, run, ThreadFailed)
    assert failed["NETSRVD_THREAD"] == "acceptor echo"
    assert "ArithmeticError: planted" in failed["NETSRVD_TRACEBACK"]
    assert shown(serving, "ExecMainStatus") in {"70", "0"}
    assert shown(serving, "NRestarts") != "0"
    assert told(serving, shown(serving, "InvocationID"), Ready)
