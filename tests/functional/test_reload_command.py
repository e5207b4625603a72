"""`netsrvd reload`: asks a daemon to read its configuration again, and says how that went."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from netsrvd.reload_socket import MOST_WAITING, NAME, ReloadSocket, path
from tests.functional.conftest import Start
from tests.support.clients import ended, serves, talking
from tests.support.gate import Gate
from tests.support.patience import eventually
from tests.support.peers import connect, echoed
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, Run, echo, free_port, toml
from tests.support.strangers import FILL_QUEUES, as_nobody

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
        assert all(
            line.startswith(f"netsrvd: {run.config}:{at}: ") for at, line in enumerate(lines, 1)
        )
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
    run.wait(lambda: _callers(run) == 3, "both others to ask")
    gate.open()
    assert outcome(first) == (0, [])
    assert [outcome(each)[0] for each in (second, third)] == [78, 78]
    run.wait_line("configuration reloaded: nothing changed")


def _callers(run: Run) -> int:
    """Return how many connections there are to the socket at which it is asked (proc_net_unix)."""
    [name] = [link.removesuffix(" (deleted)") for link in run.links() if NAME in link]
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
            line
            == f"netsrvd: process {other.pid} is no netsrvd that answers: it has no socket for that"
        )
        other.kill()


def test_a_process_that_holds_the_socket_of_a_daemon_gets_no_signal(ask: Ask) -> None:
    """A child may have its descriptors; the kernel says which process listens."""
    reload_socket = ReloadSocket()
    inode = int(path(os.getpid()).rpartition("/")[2])
    with subprocess.Popen(["sleep", "3600"], pass_fds=[inode]) as other:
        status, [line] = outcome(ask(other.pid))
        assert (status, other.poll()) == (64, None)
        assert line == (
            f"netsrvd: process {os.getpid()} answers for {other.pid}, which gets no signal"
        )
        other.kill()
    reload_socket.close()


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
        each.connect(path(run.pid))
    status, [line] = outcome(ask(run.pid))
    assert status == 69
    assert f"`kill -HUP {run.pid}` reloads without an answer" in line
    os.kill(run.pid, signal.SIGHUP)
    run.wait_line("configuration reloaded: nothing changed")
    assert outcome(ask(run.pid)) == (0, [])
    for each in crowd:
        each.close()


def test_a_local_user_cannot_reach_where_it_is_asked(start: Start, ask: Ask) -> None:
    """No name and no path leads another user there; so it can neither fill that queue nor take
    the name before the daemon does.
    """
    run = start()
    assert as_nobody(FILL_QUEUES, run.pid) == "0"
    assert outcome(ask(run.pid)) == (0, [])
    run.wait_line("configuration reloaded: nothing changed")


CONTAINER = ["unshare", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]


def test_two_containers_with_one_network_are_asked_each(tmp_path: Path) -> None:
    """Both daemons have the PID 1 where they are; a reload is of the one that shares the namespace
    of PIDs, and works from outside as well.
    """
    with ExitStack() as stack:
        pids = []
        for name in ("one", "two"):
            port, config = free_port(), tmp_path / f"{name}.toml"
            config.write_text(toml(echo(port)))
            argv = [*CONTAINER, COMMAND, "run", "-c", config]
            container = stack.enter_context(
                subprocess.Popen(argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL)
            )
            stack.callback(container.kill)
            eventually(lambda port=port: _serves(port), f"{name} to serve")
            [pid] = Path(f"/proc/{container.pid}/task/{container.pid}/children").read_text().split()
            pids.append(pid)
        for pid in pids:
            inside = ["nsenter", f"--target={pid}", "--pid", "--mount", COMMAND, "reload", "1"]
            for argv in (inside, [COMMAND, "reload", pid]):
                done = subprocess.run(
                    argv, env=ENVIRONMENT, capture_output=True, text=True, check=False
                )
                assert (done.returncode, done.stderr) == (0, "")


def _serves(port: int) -> bool:
    with suppress(ConnectionRefusedError):
        return serves(port)
    return False


def test_a_daemon_without_a_directory_to_write_to_reloads_unheard(start: Start, ask: Ask) -> None:
    """It starts and serves all the same."""
    run = start(
        planted="""
from netsrvd import reload_socket
reload_socket.DIRECTORIES = ("/nonexistent",)
"""
    )
    status, [line] = outcome(ask(run.pid))
    assert (status, line) == (
        64,
        f"netsrvd: process {run.pid} is no netsrvd that answers: it has no socket for that",
    )
    run.send(signal.SIGHUP)
    run.wait_line("configuration reloaded: nothing changed")


def test_nothing_is_left_where_the_socket_was_made(start: Start) -> None:
    """Nor is there a file while the daemon runs; a directory whose path is too long is not used."""
    with TemporaryDirectory(dir="/tmp") as folder:
        for name in ("short", "l" * 100):
            directory = Path(folder) / name
            directory.mkdir()
            run = start(environment={"TMPDIR": str(directory)})
            [link] = [link for link in run.links() if NAME in link]
            assert link.endswith(" (deleted)")
            assert link.startswith(str(directory)) == (name == "short")
            assert list(directory.iterdir()) == []
            run.end()
