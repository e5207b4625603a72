"""Off the terminal: `netsrvd run --detach`."""

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.clients import HELLO, refused, serves, talking
from tests.support.detached import Caller, StreamSyslog, Syslog, adopting
from tests.support.peers import connect, echoed, nothing_more
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, echo, free_port
from tests.support.strangers import as_nobody


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    """Who calls `netsrvd run --detach`."""
    with adopting(), ExitStack() as undo:
        yield Caller(tmp_path, undo)


def test_it_returns_when_it_serves(syslog: Syslog, caller: Caller, port: int) -> None:
    """The command returns 0 without a word, and a client is served right after, every time."""
    for _ in range(5):
        daemon = caller.start(echo(port))
        with connect(("127.0.0.1", port)) as sock:
            assert echoed(sock)
        daemon.end()
    assert refused(port)


def test_it_has_left_the_terminal(syslog: Syslog, caller: Caller, port: int) -> None:
    """Its own session, no terminal, folder /, umask 027, /dev/null for the standard streams."""
    daemon = caller.start(echo(port))
    assert os.getsid(daemon.pid) not in {os.getsid(0), daemon.pid}
    assert daemon.stat(7) == 0  # tty_nr
    assert (daemon.proc / "cwd").readlink() == Path("/")
    assert daemon.status("Umask") == "0027"
    null = os.makedev(1, 3)
    assert [(daemon.proc / f"fd/{number}").stat().st_rdev for number in (0, 1, 2)] == [null] * 3
    assert not [link for link in daemon.descriptors() if "pts" in link or "output" in link]


def test_it_logs_to_syslog(syslog: Syslog, caller: Caller, port: int) -> None:
    """Every record arrives at /dev/log with facility daemon, its priority, and the PID."""
    daemon = caller.start(echo(port))
    assert syslog.wait("ready: ").startswith("<29>")
    with talking(port):
        syslog.wait(" connected to ")
    daemon.end()
    syslog.wait("stopping on SIGTERM")
    assert f" netsrvd[{daemon.pid}]: stopped after " in syslog.wait("stopped after")
    assert syslog.wait(" closed: client").startswith("<30>")


def test_it_reloads_what_was_named_from_its_folder(
    syslog: Syslog, caller: Caller, port: int
) -> None:
    """A relative `-c` is found again by SIGHUP, though the daemon's folder is /."""
    daemon = caller.start(echo(port))
    os.kill(daemon.pid, signal.SIGHUP)
    syslog.wait("configuration reloaded: nothing changed")


def test_the_pid_file_is_its_own(syslog: Syslog, caller: Caller, port: int) -> None:
    """It has the daemon's PID, is locked while it lives, and is gone when it has ended."""
    daemon = caller.start(echo(port))
    assert caller.pid_file.read_text() == f"{daemon.pid}\n"
    assert stat.S_IMODE(caller.pid_file.stat().st_mode) == 0o644
    assert [link for link in daemon.descriptors() if link == str(caller.pid_file)]
    daemon.end()
    assert not caller.pid_file.exists()


def test_a_second_daemon_is_refused(syslog: Syslog, caller: Caller, port: int) -> None:
    """While the PID file is held, another start ends with 73 and says by whom; nothing is hurt."""
    daemon = caller.start(echo(port))
    done = caller.call(echo(free_port(port + 1)))
    assert done.returncode == 73
    assert f"PID file pid is held by a running daemon, PID {daemon.pid}" in done.stdout
    assert caller.pid_file.read_text() == f"{daemon.pid}\n"
    assert serves(port)


def test_a_dead_owner_holds_nothing(syslog: Syslog, caller: Caller, port: int) -> None:
    """What a killed daemon left behind, the file and its PID, does no harm to the next one."""
    dead = caller.start(echo(port))
    dead.end(signal.SIGKILL, -signal.SIGKILL)
    assert caller.pid_file.read_text() == f"{dead.pid}\n"
    daemon = caller.start(echo(port))
    assert caller.pid_file.read_text() == f"{daemon.pid}\n" != f"{dead.pid}\n"
    assert serves(port)


def test_a_file_that_was_just_removed_is_made_anew(
    syslog: Syslog, caller: Caller, port: int
) -> None:
    """Where the last owner removes the file between open and lock, the lock is of the new file."""
    daemon = caller.start(
        echo(port),
        planted="""
import fcntl
from netsrvd import detach
def flock(descriptor, how, flock=fcntl.flock, removed=[]):
    if not removed:
        removed.append(1)
        detach.os.unlink("pid")
    flock(descriptor, how)
fcntl.flock = flock
""",
    )
    assert caller.pid_file.read_text() == f"{daemon.pid}\n"
    assert [link for link in daemon.descriptors() if link == str(caller.pid_file)]


@pytest.mark.parametrize(
    ("keys", "arguments", "status", "words"),
    [
        ({}, [], 69, "is already in use"),
        ({"host": "192.0.2.1"}, [], 69, "is not an address of this host"),
        ({"port": 0}, [], 78, "expected a port from 1 to 65535"),
        ({"host": "::1"}, ["--pid-file", "no/such/folder"], 73, "No such file or directory"),
        ({"host": "::1"}, ["--pid-file", "/dev/full"], 73, "is no regular file; name another"),
    ],
    ids=["in use", "not ours", "faulty", "no folder", "cannot be written"],
)
def test_what_fails_fails_before_the_terminal_is_left(
    syslog: Syslog,
    caller: Caller,
    port: int,
    keys: dict[str, object],
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    """The reason is a line on the caller's terminal, the status tells its kind, nothing is left."""
    with socket.create_server(("127.0.0.1", port)):
        done = caller.call(echo(**{"port": port, **keys}), *arguments)
    assert done.returncode == status, done
    [line] = done.stdout.splitlines()
    assert line.startswith("netsrvd: ")
    assert words in line
    assert not caller.pid_file.exists()


def test_a_failure_on_the_way_is_told_to_the_caller(
    syslog: Syslog, caller: Caller, port: int
) -> None:
    """What fails after the terminal was left, but before it serves, reaches the terminal."""
    planted = """
from netsrvd.daemon import Daemon
def broken(*_):
    raise ArithmeticError("planted")
Daemon.__init__ = broken
"""
    done = caller.call(echo(port), planted=planted)
    assert done.returncode == 73
    assert "before it was ready: ArithmeticError('planted')" in done.stdout
    assert not caller.pid_file.exists()


def test_without_any_log_it_stays(caller: Caller, port: int) -> None:
    """Where there is neither syslog nor a journal nobody would hear it: it refuses to leave."""
    done = caller.call(echo(port))
    assert done.returncode == 73
    assert "neither syslog nor a journal" in done.stdout


def test_closed_standard_streams_hinder_nothing(syslog: Syslog, caller: Caller, port: int) -> None:
    """Whoever starts it without standard streams gets a daemon that serves on all its sockets."""

    def close() -> None:
        for descriptor in (0, 1, 2):
            os.close(descriptor)

    caller.start(echo(port), limits=close)
    assert serves(port)
    syslog.wait("ready: ")


def test_no_client_receives_a_record(syslog: Syslog, caller: Caller, port: int) -> None:
    """Clients get their echo alone, whichever descriptors the log had before and has after.

    libsystemd and SysLogHandler keep a descriptor that the detaching closes: its number goes to
    the next client, and that client then receives the log.
    """
    daemon = caller.start(echo(port))
    with talking(port) as first, talking(port, "::1") as second:
        syslog.wait("[::1]:")
        syslog.go()
        with talking(port) as third:  # while nobody listens, whose number may be the log's
            syslog.come()
            with talking(port) as fourth:
                syslog.wait(" connected to ")
                for sock in (first, second, third, fourth):
                    assert echoed(sock, HELLO * 100)
                    assert nothing_more(sock)
    daemon.end()
    syslog.wait("stopped after ")


def test_a_syslog_on_a_stream_is_written_to(tmp_path: Path, caller: Caller, port: int) -> None:
    """Each record arrives whole, a NUL behind it; also those after the syslog daemon has gone and
    come again.
    """
    syslog = StreamSyslog(tmp_path)
    try:
        daemon = caller.start(echo(port))
        assert syslog.wait("ready: ").startswith("<29>")
        with talking(port):
            syslog.wait(" connected to ")
        syslog.go()
        with talking(port):
            syslog.come()
            syslog.wait(" connected to ")
        daemon.end()
        assert f" netsrvd[{daemon.pid}]: stopped after " in syslog.wait("stopped after")
        assert syslog.wait(" closed: client").startswith("<30>")
    finally:
        syslog.go()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_log_that_nobody_reads_is_told_on_the_terminal(
    tmp_path: Path, caller: Caller, port: int, kind: int
) -> None:
    """What a syslog daemon has left behind, or a socket of another kind: the command fails before
    it has left the terminal, and says why.
    """
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(tmp_path / "log"))
        if kind == socket.SOCK_SEQPACKET:
            sock.listen()
        else:
            sock.close()
        done = caller.call(echo(port))
    assert done.returncode == os.EX_CANTCREAT
    assert "neither syslog nor a journal" in done.stdout
    why = (
        "Protocol wrong type for socket" if kind == socket.SOCK_SEQPACKET else "Connection refused"
    )
    assert f"log: {why}" in done.stdout


@pytest.fixture
def shared(alone: None) -> Iterator[tuple[Syslog, Caller]]:
    """A syslog that any user reaches, and a caller, in a network of their own."""
    with ExitStack() as undo:
        folder = Path(undo.enter_context(TemporaryDirectory(prefix="netsrvd-test-")))
        folder.chmod(0o755)
        undo.enter_context(adopting())
        syslog = Syslog(folder)
        undo.callback(syslog.go)
        yield syslog, Caller(folder, undo)


def test_it_becomes_a_user_when_its_sockets_are_open(shared: tuple[Syslog, Caller]) -> None:
    """Root binds port 7 and writes the PID file; what serves has the user's IDs and groups alone,
    no capability, and no way back. The PID file is empty in the end, its folder being root's.
    """
    syslog, caller = shared
    daemon = caller.start(echo(7), user="nobody")
    assert serves(7)
    assert daemon.status("Uid").split() == ["65534"] * 4
    assert daemon.status("Gid").split() == ["65534"] * 4
    assert daemon.status("Groups").split() == ["65534"]
    assert int(daemon.status("CapPrm"), 16) == int(daemon.status("CapEff"), 16) == 0
    assert caller.pid_file.read_text() == f"{daemon.pid}\n"
    assert caller.pid_file.stat().st_uid == 0
    syslog.wait("ready: ")
    daemon.end()
    syslog.wait("stopped after")
    assert caller.pid_file.read_text() == ""
    caller.start(echo(7), user="nobody")


def test_what_the_user_may_not_fails_at_a_reload(shared: tuple[Syslog, Caller]) -> None:
    """Files that only root may read keep the old configuration in force."""
    syslog, caller = shared
    daemon = caller.start(echo(7), user="nobody")
    caller.config.chmod(0o600)
    os.kill(daemon.pid, signal.SIGHUP)
    syslog.wait("cannot be read: Permission denied")
    assert serves(7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--detach", "--user", "no-such-user"], "there is no user no-such-user; `adduser"),
        (["--user", "nobody"], "--user goes with --detach"),
        (["--inetd", "--user", "nobody"], "--detach, --pid-file and --user are for a daemon"),
    ],
)
def test_a_user_that_cannot_be_is_a_usage_error(arguments: list[str], words: str) -> None:
    """Before anything is opened."""
    done = subprocess.run(
        [COMMAND, "run", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 64
    assert words in done.stderr


def test_root_alone_can_become_another_user() -> None:
    """Others are told to leave it out."""
    said = as_nobody(
        """
        import sys
        from netsrvd import cli
        sys.stderr = sys.stdout
        print(cli.main(["run", "--detach", "--user", "nobody"]))
        """
    )
    assert said.splitlines() == [
        *("netsrvd: --user takes root, which would be given up; leave it out", "64")
    ]
