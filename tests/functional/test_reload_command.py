"""`netsrvd reload`: asks a daemon to read its configuration again, and says how that went."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from netsrvd.commands.daemons import OLD_NAME, private_path
from netsrvd.control.callers import MOST_CALLERS
from netsrvd.control.listening import PRIVATE_NAME, bind_private
from tests.functional.conftest import Start
from tests.support.clients import ended, serves, talking
from tests.support.gate import Gate
from tests.support.patience import eventually
from tests.support.peers import connect, echoed
from tests.support.run import (
    COMMAND,
    ENVIRONMENT,
    PATIENCE,
    Run,
    echo,
    failing_echo,
    free_port,
    toml,
)
from tests.support.strangers import FILL_QUEUES, as_nobody
from tests.support.varlink_client import calling

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
    """Who asks during a reload may have changed the files since: it has the answer of the next. One
    reload answers all that ask meanwhile.
    """
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
    assert 1 <= len(run.lines_with("reload failed")) <= 2


def _callers(run: Run) -> int:
    """Return how many connections there are to the socket at which it is asked (proc_net_unix)."""
    [name] = [link.removesuffix(" (deleted)") for link in run.links() if PRIVATE_NAME in link]
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


def test_a_process_that_holds_the_socket_of_a_daemon_is_none(ask: Ask) -> None:
    """A child may have its descriptors; the kernel says which process listens."""
    control = bind_private()
    assert control
    with control.sock, subprocess.Popen(["sleep", "3600"], pass_fds=[control.inode]) as other:
        status, [line] = outcome(ask(other.pid))
        assert (status, other.poll()) == (64, None)
        assert line == f"netsrvd: process {os.getpid()} answers for {other.pid}; name that one"
        other.kill()
    os.close(control.inode)


def test_a_daemon_of_an_older_version_is_told(ask: Ask, tmp_path: Path) -> None:
    """After an upgrade without a restart; it goes on, and the line names two remedies."""
    file = tmp_path / OLD_NAME
    with file.open("w") as held:
        file.unlink()
        with subprocess.Popen(["sleep", "3600"], pass_fds=[held.fileno()]) as other:
            status, [line] = outcome(ask(other.pid))
            assert (status, other.poll()) == (69, None)
            assert line == (
                f"netsrvd: process {other.pid} is a netsrvd of an older version, which cannot be "
                f"asked: restart it; `kill -HUP {other.pid}` reloads without an answer"
            )
            other.kill()


HURRIED = """
import sys
from netsrvd import cli
from netsrvd.commands import reload
reload.PATIENCE_SECONDS = 0.5
sys.exit(cli.main(["reload", sys.argv[1]]))
"""


def test_a_daemon_whose_loop_hangs_is_told(start: Start, tmp_path: Path) -> None:
    """The command gives up after a time, with the status of a service that is not there."""
    gate = Gate(tmp_path)
    run = start(planted=failing_echo('data == b"hang"', f"RuntimeError({gate.wait})"))
    with talking(run.port) as client:
        client.sendall(b"hang")
        gate.reached(run)
        done = subprocess.run(
            [sys.executable, "-c", HURRIED, str(run.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 69
        assert done.stderr == (f"netsrvd: process {run.pid}: no answer came in time; see its log\n")
        gate.open()
        assert ended(client)
    run.wait_line("RuntimeError")


def test_a_daemon_that_drains_says_that_it_stops(start: Start, ask: Ask) -> None:
    """It reads no file any more; the next start does."""
    run = start()
    with talking(run.port) as client:
        run.send(signal.SIGTERM)
        run.wait_line("stopping on SIGTERM")
        status, [line] = outcome(ask(run.pid))
        assert status == 78
        assert line == "netsrvd: the daemon is stopping; the next start reads the configuration"
        assert echoed(client)
    run.wait_end()


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
    assert (
        line == f"netsrvd: process {run.pid} is another user's, or has given up root; ask as root"
    )
    assert serves(run.port)
    assert run.lines_with("reload") == []


def test_a_crowd_of_callers_cannot_hinder_a_reload(start: Start, ask: Ask, tmp_path: Path) -> None:
    """As many silent ones as there may be make room. Those of another socket, which more users than
    root may reach, take no place here: not even such as wait for answers that they do not read.
    """
    path = str(tmp_path / "control")
    run = start(None, "--control", path)
    with ExitStack() as stack:
        silent = [stack.enter_context(calling(private_path(run.pid))) for _ in range(MOST_CALLERS)]
        deaf = [stack.enter_context(calling(path)) for _ in range(MOST_CALLERS)]
        for each in deaf:
            each.sock.settimeout(0.0)
            with suppress(BlockingIOError):
                while True:
                    each.send("io.netsrvd.Status")
        assert outcome(ask(run.pid)) == (0, [])
        run.wait_line("configuration reloaded: nothing changed")
        assert ended(silent[0].sock)


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
from netsrvd.control import listening
listening.DIRECTORIES = ("/nonexistent",)
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
            [link] = [link for link in run.links() if PRIVATE_NAME in link]
            assert link.endswith(" (deleted)")
            assert link.startswith(str(directory)) == (name == "short")
            assert list(directory.iterdir()) == []
            run.end()
