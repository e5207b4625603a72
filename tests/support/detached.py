"""A daemon that has left the terminal: found by its PID file, heard through its syslog."""

import ctypes
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from netsrvd.commands.run import SERVES_AS_ROOT
from tests.support.private import private_files
from tests.support.run import ENVIRONMENT, PATIENCE, command, toml

PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def adopting() -> Iterator[None]:
    """Become the parent of the daemons that are started meanwhile; at the end none is left."""
    libc = ctypes.CDLL(None)
    before = _children()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        # On the way to a daemon there are processes that end at once.
        left = [pid for pid in _children() - before if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert not left, f"processes were left behind: {left}"


def _children() -> set[int]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread has just ended
            found |= {int(pid) for pid in path.read_text().split()}
    return found


class Syslog:
    """What listens at FOLDER/log, which is /dev/log for the daemon, and reads at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._lines: list[str] = []
        self._news = threading.Condition()
        self.come()

    def come(self) -> None:
        """Listen, as at the start of syslogd."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(self._path))
        self._path.chmod(0o666)  # as syslogd does
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def go(self) -> None:
        """Listen no longer, as at the end of syslogd."""
        self._sock.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._sock.close()
        self._path.unlink()

    def wait(self, text: str) -> str:
        """Return the last line with `text`, which came now or before."""
        with self._news:
            assert self._news.wait_for(lambda: self._with(text), PATIENCE), (text, self._lines)
            return self._with(text)[-1]

    def _with(self, text: str) -> list[str]:
        return [line for line in self._lines if text in line]

    def _listen(self) -> None:
        while data := self._sock.recv(65536):
            with self._news:
                self._lines.append(data.decode())
                self._news.notify()


class StreamSyslog(Syslog):
    """A syslog-ng that listens on a stream socket, where a NUL ends each record."""

    def come(self) -> None:
        """Listen, as at the start of syslogd."""
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(str(self._path))
        self._sock.listen()
        self._live: list[socket.socket] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def go(self) -> None:
        """Listen no longer, and break off what is connected."""
        self._sock.shutdown(socket.SHUT_RD)
        for sock in self._live:
            with suppress(OSError):  # the daemon has ended, and the connection with it
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()
        self._path.unlink()

    def _listen(self) -> None:
        with suppress(OSError):  # EINVAL: `go`
            while True:
                sock, _ = self._sock.accept()
                self._live = [sock]
                self._read(sock)

    def _read(self, sock: socket.socket) -> None:
        rest = b""
        with sock:
            while data := sock.recv(65536):
                *records, rest = (rest + data).split(b"\0")
                with self._news:
                    self._lines += [record.decode() for record in records]
                    self._news.notify()


class Daemon:
    """A daemon that this process has adopted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.proc = Path(f"/proc/{pid}")
        self._pidfd = os.pidfd_open(pid)

    def status(self, field: str) -> str:
        """Return a field of /proc/PID/status."""
        return (self.proc / "status").read_text().partition(f"\n{field}:")[2].split("\n")[0].strip()

    def stat(self, number: int) -> int:
        """Return a field of /proc/PID/stat by its number in proc_pid_stat(5)."""
        fields = (self.proc / "stat").read_text().rpartition(") ")[2].split()
        return int(fields[number - 3])

    def descriptors(self) -> list[str]:
        """Return what its descriptors are."""
        return [str(entry.readlink()) for entry in (self.proc / "fd").iterdir()]

    def end(self, number: signal.Signals = signal.SIGTERM, status: int = 0) -> None:
        """End it by a signal and check its exit status; harmless when it has been ended."""
        if self._pidfd < 0:
            return
        signal.pidfd_send_signal(self._pidfd, number)
        ready, _, _ = select.select([self._pidfd], [], [], PATIENCE)
        assert ready, f"the daemon {self.pid} did not end"
        os.close(self._pidfd)
        self._pidfd = -1
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == status


class Caller:
    """A terminal in front of which `netsrvd run --detach` is called, in a folder of its own."""

    def __init__(self, folder: Path, undo: ExitStack) -> None:
        self.folder = folder
        self.pid_file = folder / "pid"
        self.config = folder / "netsrvd.toml"
        self._undo = undo

    def call(
        self,
        configuration: Mapping[str, object],
        *arguments: str | Path,
        planted: str = "",
        user: str = "",
        limits: Callable[[], None] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command until it returns; what it printed is in `stdout`."""
        self.config.write_text(toml(configuration))
        output = self.folder / "output"
        with output.open("w") as file:  # a pipe would only end with the daemon, if that had it
            done = subprocess.run(
                [
                    *private_files(self.folder),
                    *command(planted),
                    *["run", "--detach", "-c", self.config.name],
                    *(["--user", user] if user else []),
                    *(arguments or ["--pid-file", self.pid_file.name]),
                ],
                cwd=self.folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=PATIENCE,
                check=False,
                preexec_fn=limits,
            )
        done.stdout = output.read_text()
        return done

    def start(self, configuration: Mapping[str, object], **how: Any) -> Daemon:
        """Start a daemon; it ends with the test at the latest."""
        done = self.call(configuration, **how)
        user = how.get("user")
        said = "" if user or how.get("limits") else f"{SERVES_AS_ROOT}\n"
        assert (done.returncode, done.stdout) == (0, said), done.stdout
        daemon = Daemon(int(self.pid_file.read_text()))
        self._undo.callback(daemon.end)
        return daemon
