"""`netsrvd reload`: asks a daemon to read its configuration again, and says how that went."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd.reporting.askers import MOST_WAITING, address
from tests.process.conftest import Start
from tests.support.clients import ended, serves, talking
from tests.support.gate import Gate
from tests.support.peers import connect, echoed
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, Run, echo
from tests.support.strangers import as_nobody

Ask = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Start the command for a process, by default with its status and standard error to come."""
    asking: list[subprocess.Popen[str]] = []

    def started(pid: int, **how: object) -> subprocess.Popen[str]:
        asking.append(
            subprocess.Popen(
                [COMMAND, "reload", str(pid)],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **how,  # type: ignore[call-overload]
            )
        )
        return asking[-1]

    yield started
    for each in asking:
        with each:
            each.kill()


def outcome(asking: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Return its exit status and its lines on standard error; it prints nothing else."""
    stdout, stderr = asking.communicate(timeout=PATIENCE)
    assert stdout == ""
    return asking.returncode, stderr.splitlines()


def test_a_success_says_nothing(start: Start, ask: Ask) -> None:
    """When it returns the new configuration is in force."""
    run = start()
    run.configure(echo(run.port, deny=["127.0.0.1"]))
    assert outcome(ask(run.pid)) == (0, [])
    with connect(("127.0.0.1", run.port)) as sock:
        assert ended(sock)
    run.wait_line("configuration reloaded: listener.echo.deny")


def test_a_faulty_file_is_told_line_by_line(start: Start, ask: Ask) -> None:
    """With the status of a wrong configuration; the old one is in force, and the log has it."""
    run = start()
    with talking(run.port) as sock:
        run.configure("wrkers = 1\nlog.levl = 1")
        status, lines = outcome(ask(run.pid))
        assert status == 78
        assert len(lines) == 2
        assert all(line.startswith(f"netsrvd: {run.config}: ") for line in lines)
        assert "wrkers" in lines[0]
        assert "levl" in lines[1]
        assert echoed(sock)
    run.wait_line("reload failed, the old configuration stays: ")
    assert serves(run.port)
    run.configure(echo(run.port))
    assert outcome(ask(run.pid)) == (0, [])


def test_a_socket_that_cannot_be_had_is_told(start: Start, ask: Ask, port: int) -> None:
    """So is what the files cannot say."""
    run = start()
    run.configure(echo(port, host=["127.0.0.1", "192.0.2.1"]))
    status, [line] = outcome(ask(run.pid))
    assert status == 78
    assert "192.0.2.1" in line
    assert serves(port)


def test_each_hears_of_a_reload_that_began_after_it_asked(
    start: Start, ask: Ask, tmp_path: Path
) -> None:
    """Who asks during a reload may have changed the files since: it has the answer of the next."""
    gate = Gate(tmp_path)
    run = start(
        planted=f"""
from netsrvd import daemon
def read(path, read=daemon.read_configuration, reads=[]):
    found = read(path)
    reads.append(path)
    if len(reads) == 1:
        {gate.wait}
    return found
daemon.read_configuration = read
"""
    )
    first = ask(run.pid)
    gate.reached(run)
    run.configure("wrkers = 1")
    second, third = ask(run.pid), ask(run.pid)
    run.wait(lambda: _askers(run) == 3, "both others to ask")
    gate.open()
    assert outcome(first) == (0, [])
    assert [outcome(each)[0] for each in (second, third)] == [78, 78]
    run.wait_line("configuration reloaded: nothing changed")


def _askers(run: Run) -> int:
    """Return how many ends of connections there are that bear its name (proc_net_unix)."""
    name = "@" + address(run.pid)[1:]
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return sum(row[-1] == name for row in rows) - 1


def test_a_daemon_that_ends_meanwhile_is_told(start: Start, ask: Ask, tmp_path: Path) -> None:
    """With the status of a service that is not there, and where to look."""
    gate = Gate(tmp_path)
    run = start(
        planted=f"""
from netsrvd import daemon
def read(path):
    {gate.wait}
    raise SystemExit(3)
daemon.read_configuration = read
"""
    )
    asking = ask(run.pid)
    gate.reached(run)
    run.send(signal.SIGKILL)
    gate.open()
    status, [line] = outcome(asking)
    assert status == 69
    assert line.endswith("see its log")
    run.wait_end(-signal.SIGKILL)


def test_a_process_that_is_no_daemon_lives_on(ask: Ask) -> None:
    """It gets no SIGHUP, which would end it."""
    with subprocess.Popen(["sleep", "3600"]) as other:
        status, [line] = outcome(ask(other.pid))
        assert (status, other.poll()) == (64, None)
        assert (
            line == f"netsrvd: process {other.pid} is no netsrvd that answers: Connection refused"
        )
        other.kill()


def test_a_squatter_gets_nobody_killed(ask: Ask) -> None:
    """Who takes the name of a PID does not have that process signalled."""
    with (
        subprocess.Popen(["sleep", "3600"]) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter,
    ):
        squatter.bind(address(other.pid))
        squatter.listen()
        status, [line] = outcome(ask(other.pid))
        assert (status, other.poll()) == (64, None)
        assert "another process answers" in line
        other.kill()


def test_another_user_may_not(start: Start) -> None:
    """As with `kill -HUP`; and the daemon reads nothing."""
    run = start()
    said = as_nobody(
        """
        import sys
        from netsrvd import cli
        sys.stderr = sys.stdout
        print(cli.main(["reload", sys.argv[1]]))
        """,
        run.pid,
    )
    line, status = said.splitlines()
    assert status == "64"
    assert line == f"netsrvd: process {run.pid} is another user's; ask as root"
    assert serves(run.port)
    assert run.lines_with("reload") == []


def test_a_crowd_of_askers_cannot_hinder_a_reload(start: Start, ask: Ask) -> None:
    """They are told to be too many; the signal alone still works, and takes them all away."""
    run = start()
    crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(MOST_WAITING)]
    for each in crowd:
        each.connect(address(run.pid))
    status, [line] = outcome(ask(run.pid))
    assert status == 69
    assert f"`kill -HUP {run.pid}` reloads without an answer" in line
    os.kill(run.pid, signal.SIGHUP)
    run.wait_line("configuration reloaded: nothing changed")
    assert outcome(ask(run.pid)) == (0, [])
    for each in crowd:
        each.close()


def test_a_daemon_whose_name_is_taken_reloads_unheard(start: Start, ask: Ask) -> None:
    """It starts and serves all the same."""
    run = start(
        planted="""
import os, socket
from netsrvd.reporting.askers import address
taken = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
taken.bind(address(os.getpid()))
taken.detach()
"""
    )
    assert outcome(ask(run.pid))[0] == 64
    run.send(signal.SIGHUP)
    run.wait_line("configuration reloaded: nothing changed")
    assert serves(run.port)
